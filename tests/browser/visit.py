"""A visit: somebody opens a tenant's page in a browser of the size, language and theme that a test wants."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from saas.local.client import VENV_BIN
from tenants import scope
from tenants.models import Domain, Tenant
from tests.doubles.alipay import AlipayDouble
from tests.doubles.wechatpay import WeChatPayDouble
from tests.shop import Person, Shop, open_shop

HERE = Path(__file__).resolve().parent
WIDE = {"width": 1440, "height": 900}
TABLET = {"width": 768, "height": 1024}
PHONE = {"width": 390, "height": 844}
PATIENCE = 60_000  # ms
# What the console says of an offline spell that a test makes.
AWAY = (
    "net::ERR_INTERNET_DISCONNECTED",
    "net::ERR_INCOMPLETE_CHUNKED_ENCODING",
    "net::ERR_CONNECTION_CLOSED",
    "net::ERR_CONNECTION_RESET",
    "net::ERR_EMPTY_RESPONSE",
    "net::ERR_NETWORK_CHANGED",
)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What runs: the port of all tenants' hosts, and the doubles of the payment providers."""

    port: int
    wechat: WeChatPayDouble
    alipay: AlipayDouble


@dataclass(frozen=True, kw_only=True)
class Visits:
    """The ways to the stack's pages."""

    chromium: Any
    port: int
    shots: Path | None

    @contextmanager
    def page(
        self, host: str, *, token: str = "", port: int = 0, path: str = "", may_ask: str = "", **looks: Any
    ) -> Iterator[Any]:
        """Open a host's page as somebody new, or by a token.

        At the end it has asked no other host but `may_ask`, and its console holds no error: what the content security
        policy refuses would stand there.
        """
        home = f"http://{host}:{port or self.port}/"
        context = self.chromium.new_context(**{"locale": "en-US", "viewport": WIDE, **looks})
        if token:
            context.add_init_script(f"localStorage.setItem('banyan.token', '{token}')")
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        asked, faults = set[str](), list[str]()
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc or f"{host}:{port or self.port}"))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.goto(home + path)
        try:
            yield page
            faults = [fault for fault in faults if not any(word in fault for word in AWAY)]
            assert (faults, asked - {may_ask}) == ([], {f"{host}:{port or self.port}"})
        except BaseException:
            # What was there to see.
            page.screenshot(path=Path(os.environ["BANYAN_VAR"]) / "failed.png")
            raise
        finally:
            context.close()

    def shoot(self, page: Any, name: str) -> None:
        """Keep a picture for the README, where `--shots` asks for them."""
        if self.shots is not None:
            page.locator("uni-toast").last.wait_for(state="hidden")
            page.wait_for_timeout(600)  # what moves has come to rest
            page.screenshot(path=self.shots / f"{name}.png")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """axe, and Lighthouse with the Chromium that it starts."""

    folder: Path
    node: str
    chromium: str

    @classmethod
    def install(cls, folder: Path, *, chromium: str) -> Self:
        """Install both by the lock file; raises OSError with npm's reason."""
        places = (os.environ.get("PATH", ""), str(VENV_BIN))
        node, npm = (next(filter(None, (shutil.which(name, path=one) for one in places)), None) for name in NODE)
        if node is None or npm is None:
            raise OSError("there is no node, or no npm")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr[-300:])
        return cls(folder=folder, node=node, chromium=chromium)

    def axe(self, page: Any) -> list[str]:
        """Return what axe finds serious or critical on the page as it is now, by rule and element."""
        # What is pressed is paler for a moment.
        page.locator(".tap-pressed").first.wait_for(state="detached")
        # By the debugger, whose scripts the page's policy does not concern.
        source = (self.folder / "node_modules" / "axe-core" / "axe.min.js").read_text()
        page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": source})
        found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{one['id']}: {node['target']} {node['html'][:160]}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
            for node in one["nodes"]
        ]

    def lighthouse(self, url: str) -> dict[str, Any]:
        """Return Lighthouse's report of an address, as a phone on a slow network (simulated) has it.

        Where Lighthouse itself fails, on a busy machine at its Chromium's start, it begins anew; what it finds of a
        page is never asked for twice.
        """
        report = self.folder / "report.json"
        flags = "--headless=new --no-sandbox --disable-gpu --host-resolver-rules='MAP *.localhost 127.0.0.1'"
        command = [
            self.node,
            str(self.folder / "node_modules" / "lighthouse" / "cli" / "index.js"),
            url,
            "--output=json",
            f"--output-path={report}",
            f"--chrome-flags={flags}",
            "--only-categories=performance,accessibility,best-practices",
            "--quiet",
        ]
        environment = {**os.environ, "CHROME_PATH": self.chromium}
        said = ""
        for _ in range(3):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return dict(json.loads(report.read_text()))
            said = (done.stderr or done.stdout)[-2000:]
        raise OSError(said)


NODE = ("node", "npm")


def open_door(upstream_url: str, *, cash: int = 0) -> Shop:
    """Open a shop that guests may try, at a host that browsers find on this machine, and trust without TLS."""
    shop = open_shop(upstream_url, cash=cash)
    host = shop.host.replace(".example.com", ".localhost")
    with scope.platform("a test lets guests in"):
        Tenant.objects.filter(pk=shop.tenant.pk).update(allow_guest=True)
    with scope.tenant(shop.tenant.pk):
        Domain.objects.update(host=host)
    return replace(shop, host=host)


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def wait_until(page: Any, condition: str) -> None:
    """Wait for a condition of the page. Not `wait_for_function`: it evaluates a text, and the policy refuses that."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(f"() => {condition}"):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def enter_as_guest(page: Any) -> None:
    press(page, "Log in")
    press(page, "Try it without an account")
    wait_until(page, "localStorage.getItem('banyan.token')")


def log_in(page: Any, name: str, password: str) -> None:
    """Log in by the form, from the chat, and come back to it."""
    press(page, "Log in")
    page.get_by_role("textbox", name="User name, phone or email").fill(name)
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("main").get_by_role("button", name="Log in", exact=True).click()
    wait_until(page, "localStorage.getItem('banyan.token')")


def ask(page: Any, text: str) -> None:
    page.locator(".composer-text textarea").fill(text)
    press(page, "Send")


def shown(page: Any) -> str:
    """Return the last answer as the page shows it."""
    return " ".join(page.locator(".answer-body .md").last.inner_text().split())


def is_over(page: Any) -> None:
    """Wait until nothing is under way."""
    page.get_by_role("button", name="Send", exact=True).wait_for()


def told(shop: Shop, person: Person | None = None) -> list[str]:
    """Return the answers' texts as the server has them."""
    return [" ".join(message.answer.split()) for message in shop.messages(person)]

"""Goes the whole way of money through the running product, as its users do, against doubles of the providers.

`python -m tests.walk` starts the doubles and `manage.py up`, opens a merchant account of every channel in the
operator's admin, and then orders, pays, chats, is told again, is lied to, gives back and redeems over HTTP alone. With
`--stay` it leaves everything running for a person with a browser. Data is in BANYAN_VAR, or in a folder that goes with
it.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from saas.local.ports import free_port
from tests.doubles import alipay, stripe, wechatpay, xpay

ROOT = Path(__file__).resolve().parents[1]
TENANT, HOST, PLATFORM = "aurora", "aurora.localhost", "localhost"
APP_ID = "wx0123456789abcdef"
AMOUNTS = {"price": "10", "credits": "10", "bonus": "1"}
WAYS = [("wechat", ["native", "h5"]), ("alipay", ["wap", "page"]), ("stripe", ["checkout"])]


class Walk:
    """The doubles, the product, and what was seen on the way."""

    def __init__(self, var: Path, doubles: ExitStack) -> None:
        self.wechat = doubles.enter_context(wechatpay.running_wechatpay())
        self.alipay = doubles.enter_context(alipay.running_alipay())
        self.stripe = doubles.enter_context(stripe.running_stripe())
        self.xpay = doubles.enter_context(xpay.running_xpay())
        self.wechat.refunds_end = "SUCCESS"
        self.port = int(os.environ.get("PORT") or free_port())
        self.environment = {
            **os.environ,
            "BANYAN_VAR": str(var),
            "PORT": str(self.port),
            "WECHAT_PAY_API_URL": self.wechat.url,
            "ALIPAY_GATEWAY_URL": f"{self.alipay.url}/gateway.do",
            "STRIPE_API_URL": self.stripe.url,
            "WECHAT_API_URL": self.xpay.url,
            "HOLD_SECONDS": os.environ.get("HOLD_SECONDS") or "15",
            "SWEEP_SECONDS": os.environ.get("SWEEP_SECONDS") or "5",
        }
        self.logins: dict[str, tuple[str, str]] = {}
        self.addresses: dict[str, str] = {}
        self.told: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.orders: dict[str, str] = {}
        self.steps = 0

    @contextmanager
    def product(self) -> Iterator[None]:
        """Run `manage.py up` until the block ends."""
        command = [sys.executable, "manage.py", "up"]
        with subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    sys.stdout.write(line)
                    if login := re.search(r"http://([\w.]+):\d+/(?:admin|platform)/ +(\S+) +(\S+)", line):
                        self.logins[login[1]] = (login[2], login[3])
                    if "Ctrl-C ends" in line:
                        break
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate()

    def manage(self, *arguments: str) -> str:
        """Run one of the product's commands; return what it prints."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def client(self, host: str, **headers: str) -> httpx.Client:
        """Return a client that speaks to one host of the product."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Host": f"{host}:{self.port}", "Accept-Language": "en", **headers},
            timeout=60,
        )

    def user(self, name: str) -> httpx.Client:
        """Return a client that is logged in as a user of the tenant."""
        token = self.manage("issue_token", "--tenant", TENANT, "--user", name)
        return self.client(HOST, Authorization=f"Bearer {token}")

    def tell(self, channel: str) -> int:
        """Send what a provider last told; return the status."""
        body, headers = self.told[channel]
        with self.client(HOST) as provider:
            return provider.post(self.addresses[channel], content=body, headers=headers).status_code

    def saw(self, what: str, found: object, wanted: object) -> None:
        """Say what was seen, and stop where it is not what was wanted."""
        self.steps += 1
        sys.stdout.write(f"{self.steps:3}. {what}: {found}\n")
        if found != wanted:
            raise AssertionError(f"{what}: {found!r} is not {wanted!r}")


class Admin:
    """A person of the staff with a browser."""

    def __init__(self, walk: Walk, host: str) -> None:
        self.client = walk.client(host)
        self.base = "/platform" if host == PLATFORM else "/admin"
        name, secret = walk.logins[host]
        said = self.send(f"{self.base}/login/", username=name, password=secret)
        assert said.status_code == 302, said.text

    def send(self, path: str, **fields: Any) -> httpx.Response:
        """Open a page and send its form, with the fields as they stand and what was typed."""
        page = self.client.get(path)
        assert page.status_code == 200, f"{path}: {page.status_code}"
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token is not None
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page.text))
        return self.client.post(path, data={**hidden, "csrfmiddlewaretoken": token[1], **fields})

    def add(self, path: str, **fields: Any) -> str:
        """Add a row by its form; return its number."""
        said = self.send(f"{self.base}/{path}/add/", _continue="1", **fields)
        wrong = re.findall(r'class="[^"]*errorlist[^"]*".*?</ul>', said.text, re.DOTALL)
        assert said.status_code == 302, f"{path}: {said.status_code} {wrong or said.text[:2000]}"
        found = re.search(r"/(\w[\w-]*)/change/", said.headers["location"])
        assert found is not None
        return found[1]


# --- the way


def open_accounts(walk: Walk) -> None:
    """Open a merchant account of every channel, and packages, as the operator and an owner do."""
    wechat = wechatpay.Merchant(merchant_id="1900000001", app_id=APP_ID)
    ali = alipay.Merchant(merchant_id="2088101568338364", app_id="2021000000000001")
    card = stripe.Merchant(merchant_id="acct_1Walk")
    offer = xpay.Offer(app_id=APP_ID, offer_id="1450000001", products={"gold10": 1000})
    walk.wechat.merchants[wechat.merchant_id] = wechat
    walk.alipay.merchants[ali.app_id] = ali
    walk.stripe.merchants[card.secret_key] = card
    walk.xpay.offers[APP_ID] = offer
    walk.xpay.secrets[APP_ID] = "app-secret"
    operator = Admin(walk, PLATFORM)
    page = operator.client.get("/platform/billing/merchantaccount/add/").text
    tenant = re.search(r'<option value="(\d+)">aurora<', page)
    assert tenant is not None, "the tenant can be chosen"
    common = {"tenant": tenant[1], "environment": "production", "is_enabled": "on"}
    forms: dict[str, dict[str, str]] = {
        "wechat": {
            "merchant_id": wechat.merchant_id,
            "app_id": wechat.app_id,
            "certificate_serial": wechat.serial,
            "private_key": wechatpay.pem(wechat.key),
            "api_v3_key": wechat.api_v3_key,
            "platform_key_id": wechat.platform_key_id,
            "platform_public_key": wechatpay.public_pem(wechat.platform_key),
        },
        "alipay": {
            "merchant_id": ali.merchant_id,
            "app_id": ali.app_id,
            "private_key": alipay.key_text(ali.key),
            "platform_public_key": alipay.public_key_text(walk.alipay.key),
        },
        "stripe": {
            "merchant_id": card.merchant_id,
            "secret_key": card.secret_key,
            "webhook_secret": card.webhook_secret,
        },
        "wechat_virtual": {
            "merchant_id": offer.offer_id,
            "app_id": APP_ID,
            "app_key": offer.app_keys[0],
            "message_token": offer.message_token,
            "message_key": offer.message_key,
        },
    }
    for channel, fields in forms.items():
        number = operator.add("billing/merchantaccount", channel=channel, **common, **fields)
        address = f"/api/payments/{TENANT}/{channel}/{number}/notify"
        walk.addresses[channel] = address
        walk.saw(f"the page of {channel} names its address", address in page_of(operator, number), True)  # noqa: FBT003
    program = {"tenant": tenant[1], "app_id": APP_ID, "name": "Walk", "secret": "app-secret"}
    operator.add("tenants/miniprogram", **program)
    owner = Admin(walk, HOST)
    package = {"slug": "ten", "name": "Ten yuan", **AMOUNTS, "limit_per_user": "0", "position": "1"}
    owner.add("billing/package", **package, is_enabled="on", virtual_product_id="gold10")
    tried = operator.send(
        "/platform/billing/merchantaccount/", action="try_settings", _selected_action=list(map(str, range(1, 5)))
    )
    walk.saw("the settings are tried", tried.status_code, 302)
    found = operator.client.get("/platform/billing/merchantaccount/").text
    walk.saw("and right", found.count("takes these keys"), len(forms))


def page_of(staff: "Admin", number: str) -> str:
    """Return a merchant account's page."""
    return staff.client.get(f"{staff.base}/billing/merchantaccount/{number}/change/").text


def refuse(walk: Walk) -> None:
    """Ask without money."""
    bob = walk.user("bob")
    said = bob.post("/api/chat/stream", data={"message": "Who are you?"})
    sys.stdout.write(f"     {said.text}\n")
    walk.saw("bob, who has nothing, is refused", re.findall(r'"code": ?(\d+)', said.text), ["101"])
    walk.saw(
        "and sees what is on sale", [row["slug"] for row in bob.get("/api/billing/packages").json()["data"]], ["ten"]
    )
    ways = [(way["channel"], way["methods"]) for way in bob.get("/api/billing/channels").json()["data"]]
    walk.saw("and how to pay", ways, WAYS)


def balance(user: httpx.Client) -> tuple[int, int]:
    """Return balance and gift balance, in micro-yuan."""
    has = user.get("/api/billing/balance").json()["data"]
    return int(has["cash"]), int(has["gift"])


def order(walk: Walk, user: httpx.Client, channel: str, method: str, **query: str) -> tuple[str, str, Any]:
    """Order the package; return our number of the order, the provider's and what pays it."""
    asked = {"package": "ten", "channel": channel, "method": method}
    said = user.post("/api/billing/orders", json=asked, params=query).json()
    if said["code"] != 1:
        raise AssertionError(f"no order: {said}")
    number = said["data"]["order"]["id"]
    return number, number.replace("-", ""), said["data"]["payment"]


def recharge(walk: Walk) -> None:
    """Order and pay by every channel, be told, chat, and read the receipt."""
    bob = walk.user("bob")
    number, trade, _payment = order(walk, bob, "wechat", "native")
    walk.saw("nothing is credited yet", balance(bob), (0, 0))
    walk.wechat.pay(trade)
    walk.told["wechat"] = walk.wechat.notification(trade)
    walk.saw("WeChat Pay tells", walk.tell("wechat"), 200)
    walk.saw("¥10 and ¥1 are there", balance(bob), (10_000_000, 1_000_000))
    walk.orders["wechat"] = number
    _number, trade, payment = order(walk, bob, "alipay", "wap")
    walk.alipay.open(payment["pay_url"])
    walk.alipay.pay(trade)
    walk.told["alipay"] = walk.alipay.notification(trade)
    walk.saw("Alipay tells", walk.tell("alipay"), 200)
    _number, trade, _payment = order(walk, bob, "stripe", "checkout")
    walk.stripe.pay(trade)
    walk.told["stripe"] = walk.stripe.notification(trade)
    walk.saw("Stripe tells", walk.tell("stripe"), 200)
    walk.saw("three times ¥10 and ¥1 are there", balance(bob), (30_000_000, 3_000_000))
    with bob.stream("POST", "/api/chat/stream", data={"message": "What is the capital of France?"}) as answer:
        text = "".join(answer.iter_text())
    walk.saw("the answer is streamed to its end", "[DONE]" in text, True)  # noqa: FBT003
    receipt = bob.get("/api/billing/receipts").json()["data"]
    sys.stdout.write(f"     {text[-700:]}\n     {receipt}\n")
    cash, gift = balance(bob)
    charge = int(receipt[0]["receipt"]["charge"])
    walk.saw("the receipt says what is missing", charge, 33_000_000 - cash - gift)
    number, trade, _payment = order(walk, bob, "wechat", "native")
    walk.wechat.pay(trade)
    state = bob.post(f"/api/billing/orders/{number}/recheck").json()["data"]["state"]
    walk.saw("a payment that nobody told of is found", state, "paid")
    walk.saw("and credited", balance(bob), (cash + 10_000_000, gift + 1_000_000))
    virtual(walk)


def virtual(walk: Walk) -> None:
    """Buy in a mini-program."""
    phone = walk.client(HOST)
    code = walk.xpay.wx_login(app_id=APP_ID, openid="oCarol")
    token = phone.post("/api/auth/wechat", json={"code": code, "appid": APP_ID}).json()["data"]["token"]
    phone.headers["Authorization"] = f"Bearer {token}"
    _number, trade, payment = order(walk, phone, "wechat_virtual", "virtual", appid=APP_ID)
    walk.saw("the phone opens it", walk.xpay.open_payment(payment, app_id=APP_ID, openid="oCarol"), "ok")
    walk.xpay.pay(trade)
    query, body = walk.xpay.push(walk.xpay.delivery(trade), offer=walk.xpay.offers[APP_ID])
    with walk.client(HOST) as provider:
        said = provider.post(f"{walk.addresses['wechat_virtual']}?{query}", content=body)
    walk.saw("WeChat delivers", said.status_code, 200)
    walk.saw("¥10 and ¥1 are there", balance(phone), (10_000_000, 1_000_000))


def lie(walk: Walk) -> None:
    """Say it all again, and things that are not true; then let the truth be found by asking."""
    bob, somebody = walk.user("bob"), wechatpay.rsa_key("somebody")
    cash, gift = balance(bob)
    for channel in walk.told:
        walk.saw(f"{channel} told again", walk.tell(channel), 200)
    first, trade, _payment = order(walk, bob, "wechat", "native")
    walk.told["wechat"] = walk.wechat.notification(trade, sign_with=somebody, trade_state="SUCCESS")
    walk.saw("somebody signs for WeChat", walk.tell("wechat"), 401)
    walk.wechat.pay(trade)
    walk.told["wechat"] = walk.wechat.notification(trade, amount={"total": 1, "currency": "CNY"})
    walk.saw("WeChat tells of one fen", walk.tell("wechat"), 409)
    second, trade, payment = order(walk, bob, "alipay", "wap")
    walk.alipay.open(payment["pay_url"])
    walk.told["alipay"] = walk.alipay.notification(trade, sign_with=somebody, trade_status="TRADE_SUCCESS")
    walk.saw("somebody signs for Alipay", walk.tell("alipay"), 401)
    walk.alipay.pay(trade)
    for number in (first, second):
        said = bob.post(f"/api/billing/orders/{number}/recheck").json()
        walk.saw("what was paid is found by asking", said["data"]["state"], "paid")
    walk.saw("and credited once", balance(bob), (cash + 20_000_000, gift + 2_000_000))


def refund(walk: Walk) -> None:
    """Give a part back, as an owner does in the admin."""
    bob, owner = walk.user("bob"), Admin(walk, HOST)
    cash, gift = balance(bob)
    path = f"/admin/billing/order/{walk.orders['wechat']}/refund/"
    said = owner.send(path, yuan="4", kind="provider", reason="asked for it")
    walk.saw("the form shows what it takes", said.status_code, 200)
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', said.text))
    done = owner.client.post(path, data={**hidden, "confirmed": "1"})
    walk.saw("and is confirmed", done.status_code, 302)
    for _second in range(20):
        if bob.get(f"/api/billing/orders/{walk.orders['wechat']}").json()["data"]["refunds"][0]["state"] == "done":
            break
        time.sleep(1)
    order = bob.get(f"/api/billing/orders/{walk.orders['wechat']}").json()["data"]
    walk.saw("the user sees it", [(row["amount"], row["state"]) for row in order["refunds"]], [("4000000", "done")])
    walk.saw("and pays with what was bought", balance(bob), (cash - 4_000_000, gift - 400_000))


def redeem(walk: Walk) -> None:
    """Make a code and redeem it, twice."""
    bob = walk.user("bob")
    code = walk.manage("make_codes", "--tenant", TENANT, "--yuan", "5", "--count", "1", "--name", "walk").split()[-1]
    cash, gift = balance(bob)
    said = bob.post("/api/billing/redeem", json={"code": code}).json()
    walk.saw("a code is redeemed", (said["code"], said["data"]["credited"]), (1, "5000000"))
    again = bob.post("/api/billing/redeem", json={"code": code})
    sys.stdout.write(f"     {again.text}\n")
    walk.saw("once", balance(bob), (cash + 5_000_000, gift))


def audit(walk: Walk) -> None:
    """Add up."""
    time.sleep(2 * int(walk.environment["SWEEP_SECONDS"]))
    sys.stdout.write(walk.manage("audit_ledger") + "\n")


def main() -> int:
    """Walk; exit code 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="leave everything running until Ctrl-C")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        var = os.environ.get("BANYAN_VAR") or stack.enter_context(tempfile.TemporaryDirectory(prefix="banyan-walk-"))
        Path(var).chmod(0o711)  # the database's user must get to its data
        walk = Walk(Path(var), stack)
        stack.enter_context(walk.product())
        try:
            for part in (open_accounts, refuse, recharge, lie, refund, redeem, audit):
                part(walk)
        except Exception as fault:  # noqa: BLE001  the rest of the walk is of no use, but the product may be looked at
            sys.stdout.write(f"NOT AS IT SHOULD BE: {type(fault).__name__}: {fault}\n")
            code = 1
        else:
            code = 0
        while options.stay:
            signal.pause()
    return code


if __name__ == "__main__":
    sys.exit(main())

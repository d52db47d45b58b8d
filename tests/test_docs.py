"""What is documented is there, and what is there is documented."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

from chat.consumers import SOCKET_PATH
from chat.events import FailureKind
from chat.openai_api import COMPLETIONS_PATH, MODELS_PATH
from chat.staff_socket import STAFF_SOCKET_PATH
from chat.upstream.failures import RULES
from chat.views import CHAT_PATH
from tenants.errors import ErrorCode

ROOT = Path(__file__).resolve().parent.parent
APPS = ("saas", "tenants", "billing", "chat", "lifecycle")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def table_rows(page: str) -> list[str]:
    """Return the first column of the tables of a page."""
    return re.findall(r"^\| ([^|]+) \|", read(page), re.MULTILINE)


def sources() -> Iterator[Path]:
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.parts):
                yield path


def constants(nodes: Iterable[ast.expr]) -> set[str]:
    """Return the texts that stand there literally."""
    return {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


def refusal_types() -> set[str]:
    """Return every `type` that a ProductError is made with, by reading the source."""
    found: set[str] = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"ProductError", "invalid"}:
                found |= constants(word.value for word in node.keywords if word.arg in {"type", "kind"})
            if name == "_refusing":
                found |= constants(node.args)
    return found | {"invalid_parameter"}  # the default of chat.request.invalid


def paths(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[str]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern).replace("^", "").replace("\\Z", "")
        if isinstance(pattern, URLPattern):
            yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)
        elif path in {"/admin/", "/platform/", "/portal/"}:
            yield path
        else:
            yield from paths(pattern.url_patterns, path)


def test_every_refusal_is_documented() -> None:
    page = read("docs/errors.md")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    documented = set(re.findall(r"`([a-z_]+)`", "".join(rows) + page.split("Raised to staff")[1]))
    assert documented == refusal_types()


def test_no_refusal_has_a_word_that_clients_search_for() -> None:
    assert [kind for kind in refusal_types() if "error" in kind or "success" in kind] == []


def test_every_class_of_failure_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| (yes|no) \|", read("docs/upstreams.md"), re.MULTILINE)
    rules = {kind: rule for kind, rule in RULES.items() if kind is not FailureKind.BUSY}
    assert dict(rows) == {kind.replace("_", " "): "yes" if rule.fails_over else "no" for kind, rule in rules.items()}


def test_every_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (-?\d+) \|", read("docs/protocol.md"), re.MULTILINE)}
    assert documented == {int(code) for code in ErrorCode}


def test_every_endpoint_is_documented() -> None:
    documented = set(re.findall(r"`(?:[A-Z]+ )?(/[^`]*)`", "".join(table_rows("docs/api.md"))))
    served = {path for path in paths(get_resolver().url_patterns) if path != "/api/"}
    # What does not pass through Django's URLs.
    served |= {
        CHAT_PATH,
        SOCKET_PATH,
        STAFF_SOCKET_PATH,
        COMPLETIONS_PATH,
        MODELS_PATH,
        MODELS_PATH + "/{model}",
        "/static/",
    }
    assert documented == served


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)", read("docs/commands.md"), re.MULTILINE))
    assert documented == {name for name, app in get_commands().items() if app in APPS}


def test_every_dependency_has_its_reason() -> None:
    wanted = {
        re.split(r"[\[=<>]", line)[0]
        for path in (ROOT / "requirements").glob("*.in")
        for line in path.read_text("utf-8").splitlines()
        if line and line[0] not in "#-"
    }
    given = {name for row in table_rows("docs/dependencies.md") for name in row.split(", ")}
    assert wanted - given == set()


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")))
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", read(page))
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_first_pages_exist_and_their_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", read(page))
    missing = [link for link in links if "://" not in link and not ROOT.joinpath(link).exists()]
    assert missing == []

"""Every refusal for want of money or room says which limit it was, how much is used, when it ends, and what to do."""

import ast

from tests.test_docs import sources

WANTED = {"type", "scope", "action", "reset_at", "used", "limit"}


def refusals(*names: str) -> dict[str, set[str]]:
    """Return what each ProductError of these codes says, by reading the source: where it stands, its keywords."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "ProductError" or not node.args:
                continue
            code = node.args[0]
            if isinstance(code, ast.Attribute) and code.attr in names:
                found[f"{path.name}:{node.lineno}"] = {word.arg or "**" for word in node.keywords}
    return found


def test_every_refusal_says_which_limit_it_was() -> None:
    said = refusals("QUOTA", "RECHARGE")
    assert len(said) >= 8
    assert {where: WANTED - words for where, words in said.items() if WANTED - words} == {}

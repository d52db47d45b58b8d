"""What an account wants changed in a request's body: parameters dropped, renamed, clamped, forced.

    {"drop": ["frequency_penalty"], "rename": {"max_tokens": "max_completion_tokens"},
     "clamp": {"temperature": [0, 1]}, "force": {"enable_thinking": false}}

In this order: drop, clamp, rename, force. `check_rules` is asked when rules are stored, `apply_rules` for each request.
"""

from collections.abc import Mapping
from typing import Any, Final

# What a request is: without these, or with others, it is another request. A rename would be a drop.
_FIXED: Final = frozenset({"model", "messages", "stream"})
# What is held pays for one answer of at most so many tokens.
_BOUNDS: Final = frozenset({"max_tokens", "max_completion_tokens", "n"})
_PARTS: Final = frozenset({"drop", "rename", "clamp", "force"})


class BadRulesError(ValueError):
    """Rules that cannot be meant; `str()` names the part in English, for whoever writes rules."""


def apply_rules(rules: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return the body as the account wants it."""
    if not rules:
        return body
    for name in rules.get("drop", ()):
        body.pop(name, None)
    for name, (low, high) in rules.get("clamp", {}).items():
        if isinstance(value := body.get(name), int | float):
            body[name] = _clamp(value, low, high)
    for name, new in rules.get("rename", {}).items():
        if name in body:
            body[new] = body.pop(name)
    body.update(rules.get("force", {}))
    return body


def _clamp(value: float, low: float | None, high: float | None) -> float:
    if low is not None and value < low:
        return low
    return high if high is not None and value > high else value


def check_rules(rules: object) -> None:
    """Raise BadRulesError for rules that `apply_rules` could not follow, or that change what a request is or costs."""
    if not isinstance(rules, dict) or set(rules) - _PARTS:
        raise BadRulesError("an object with drop, rename, clamp and force is wanted")
    drop, rename, clamp, force = (rules.get(part) for part in ("drop", "rename", "clamp", "force"))
    if drop is not None and not (isinstance(drop, list) and _are_names(drop)):
        raise BadRulesError('drop: a list of names such as ["logit_bias"] is wanted')
    if rename is not None and not (isinstance(rename, dict) and _are_names([*rename, *rename.values()])):
        raise BadRulesError('rename: names such as {"max_tokens": "max_completion_tokens"} are wanted')
    if clamp is not None and not (isinstance(clamp, dict) and all(map(_is_range, clamp.values()))):
        raise BadRulesError('clamp: ranges such as {"temperature": [0, 1]} are wanted; null is no bound')
    if force is not None and not isinstance(force, dict):
        raise BadRulesError('force: values such as {"enable_thinking": false} are wanted')
    _check_fixed(drop or [], rename or {}, clamp or {}, force or {})


def _check_fixed(drop: list[str], rename: dict[str, str], clamp: dict[str, Any], force: dict[str, Any]) -> None:
    for name in {*drop, *rename, *rename.values(), *clamp, *force} & _FIXED:
        raise BadRulesError(f"{name}: cannot be changed")
    for name in {new for old, new in rename.items() if new in _BOUNDS and old not in _BOUNDS} | (_BOUNDS & set(force)):
        raise BadRulesError(f"{name}: bounds what an answer costs, and cannot be set")
    for name in _BOUNDS & set(clamp):
        if clamp[name][0] is not None:
            raise BadRulesError(f"{name}: bounds what an answer costs, and cannot be raised")


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _is_range(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  # low and high
        return False
    low, high = value
    if not all(bound is None or (isinstance(bound, int | float) and not isinstance(bound, bool)) for bound in value):
        return False
    return low is None or high is None or low <= high

"""A question, looked at before anything is stored, frozen or sent upstream: the words here, the remote check later.

The remote check waits for a service outside, so it is made by the turn's guard, on the event loop, before the model is
called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chat.moderation import evidence
from chat.moderation.checkers import Subject, WeChatChecker
from chat.moderation.evidence import Evidence
from chat.moderation.lists import Hit, Lists
from chat.moderation.refusals import question_refused
from chat.moderation.rules import Rules, rules_of
from chat.moderation.text import fold
from chat.moderation.window import MASK
from tenants.models import EndUser, MiniProgram, Tenant, WeChatIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A question of a tenant that moderates. `text` is what is stored and sent: with asterisks over masked words.

    `attached` is the same of each text that was attached to it.
    """

    rules: Rules = field(repr=False)
    subject: Subject
    text: str = field(repr=False)
    found: tuple[Evidence, ...] = field(repr=False)
    attached: tuple[str, ...] = field(default=(), repr=False)

    @property
    def checked(self) -> str:
        """What a remote checker is given: the question, and all that is attached to it."""
        return "\n\n".join(text for text in (self.text, *self.attached) if text)

    def refuse_blocked(self, user: EndUser) -> None:
        """Raise ProductError 11000, evidence kept, where a word of the question is one to refuse."""
        if any(one.action == "block" for one in self.found):
            evidence.keep(tenant_id=user.tenant_id, user_id=user.pk, message_id=None, found=self.found)
            raise question_refused()


def screen(tenant: Tenant, user: EndUser, text: str, *, attached: Sequence[str] = ()) -> Screened | None:
    """Return what the tenant's words say of a question and its files, None where the tenant moderates nothing.

    Must run in the tenant's scope, outside of a transaction: the evidence of a refused question must stay.
    """
    rules = rules_of(tenant)
    if rules is None:
        return None
    found: list[Evidence] = []
    seen = _seeing(rules, found)
    text, *rest = [seen(each) for each in (text, *attached)]
    return _screened(rules, user, text, found, attached=tuple(rest))


def screen_messages(
    tenant: Tenant, user: EndUser, messages: Sequence[Mapping[str, Any]]
) -> tuple[Screened | None, Sequence[Mapping[str, Any]]]:
    """Do the same for a whole conversation in OpenAI's form; return it, too, with asterisks over masked words.

    What the model itself said before (role assistant) was looked at then. A remote checker is given the last text of
    role user: those before it were last once.
    """
    rules = rules_of(tenant)
    if rules is None:
        return None, messages
    found: list[Evidence] = []
    seen = _seeing(rules, found)
    clean = [message if message.get("role") == "assistant" else _with_texts(message, seen) for message in messages]
    asked = [text for message in clean if message.get("role") == "user" for text in _texts(message)]
    return _screened(rules, user, asked[-1] if asked else "", found), clean


def _seeing(rules: Rules, found: list[Evidence]) -> Callable[[str], str]:
    """Return what masks a text and adds what it sees to `found`."""

    def seen(text: str) -> str:
        hits = find(rules.lists, text) if rules.lists else []
        found.extend(_evidence(text, hits))
        return masked(text, hits)

    return seen


def _screened(
    rules: Rules, user: EndUser, text: str, found: list[Evidence], *, attached: tuple[str, ...] = ()
) -> Screened:
    return Screened(
        rules=rules,
        subject=_subject(user, rules),
        text=text,
        attached=attached,
        # What had a text refused comes first: of many hits not all are kept.
        found=tuple(sorted(found, key=lambda one: one.action != "block")),
    )


def _texts(message: Mapping[str, Any]) -> list[str]:
    """Return the texts of a message: its content, or its content's parts of type text."""
    content = message.get("content")
    parts: list[Any] = content if isinstance(content, list) else [{"text": content}]
    return [str(part["text"]) for part in parts if _is_text(part)]


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _with_texts(message: Mapping[str, Any], seen: Callable[[str], str]) -> Mapping[str, Any]:
    """Return a message with each of its texts put through `seen`."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": seen(content)}
    if not isinstance(content, list):
        return message
    parts = [{**part, "text": seen(part["text"])} if _is_text(part) else part for part in content]
    return {**message, "content": parts}


@dataclass(frozen=True, slots=True)
class Place:
    """A hit in the text as it was written, from `start` up to `end`."""

    start: int
    end: int
    hit: Hit


def find(lists: Lists, text: str) -> list[Place]:
    """Return every hit in a whole text, in its order."""
    folded = fold(text)
    hits = lists.find(folded, is_whole=True).hits
    return sorted(
        (Place(folded.at[hit.start], folded.at[hit.end - 1] + 1, hit) for hit in hits),
        key=lambda place: (place.start, place.end),
    )


def masked(text: str, places: list[Place]) -> str:
    """Return the text with asterisks over what is to be masked."""
    for place in places:
        if place.hit.word.action == "mask":
            text = text[: place.start] + MASK * (place.end - place.start) + text[place.end :]
    return text


def _evidence(text: str, places: list[Place]) -> list[Evidence]:
    first: dict[tuple[str, str], Evidence] = {}
    for place in places:
        word = place.hit.word
        first.setdefault(
            (word.source, word.word),
            Evidence(
                direction="question",
                source=word.source,
                category=word.category,
                action=word.action,
                word=word.word,
                text=evidence.excerpt(text, around=place.start),
            ),
        )
    return list(first.values())


def _subject(user: EndUser, rules: Rules) -> Subject:
    """Return the person as WeChat knows them in one of the tenant's mini-programs, where it does and is asked."""
    if not any(isinstance(checker, WeChatChecker) for checker in rules.checkers):
        return Subject(user_id=user.pk)
    programs = {program.app_id: program for program in MiniProgram.objects.all()}
    known = WeChatIdentity.objects.filter(user=user, app_id__in=programs).order_by("-pk").first()
    if known is None:
        return Subject(user_id=user.pk)
    return Subject(user_id=user.pk, program=programs[known.app_id], openid=known.openid)

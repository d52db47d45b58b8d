"""Evidence of what was hit: made where it is found, kept with the turn's end."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from chat.moderation.models import ModerationHit

log = structlog.get_logger(__name__)

# Characters of a text that are kept, around what was hit; and so many hits of one text.
MOST_TEXT = 2000
MOST_HITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A hit before it is a row; the fields are ModerationHit's."""

    direction: str
    source: str
    category: str
    action: str
    word: str = ""
    text: str = field(repr=False)


def excerpt(text: str, *, around: int) -> str:
    """Return a long text's part around a position."""
    start = max(0, min(around - MOST_TEXT // 2, len(text) - MOST_TEXT))
    return text[start : start + MOST_TEXT]


def keep(*, tenant_id: int, user_id: int, message_id: uuid.UUID | None, found: Iterable[Evidence]) -> None:
    """Write down what was found in a text, each word once. Must run in the tenant's scope."""
    rows = [
        ModerationHit(
            tenant_id=tenant_id,
            user_id=user_id,
            message_id=message_id,
            direction=one.direction,
            source=one.source,
            category=one.category,
            word=one.word,
            action=one.action,
            text=one.text,
        )
        for one in list(found)[:MOST_HITS]
    ]
    ModerationHit.objects.bulk_create(rows)
    for row in rows:
        # Never the text, nor the word: the log is read by more people than the evidence.
        log.info(
            "moderation_hit",
            tenant_id=tenant_id,
            message_id=str(message_id or ""),
            direction=row.direction,
            source=row.source,
            category=row.category,
            action=row.action,
        )

"""Many words at once: what a person pastes, looked at before it is added.

A line is a word, or what `export` writes: word, category, action. What a line does not say, the form says for all.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from django.db import transaction
from django.db.models import Q

from chat.moderation.models import MAX_WORD_CHARACTERS, Action, Category, ModerationWord, key_of

MOST_LINES: Final = 20_000


@dataclass(slots=True)
class Preview:
    """What pasted lines would do: `new` words, those that the list has, and lines that cannot be taken.

    A word that the list has stays as it is there.
    """

    new: list[ModerationWord] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)


def preview(*, tenant_id: int | None, pasted: str, category: str, action: str) -> Preview:
    """Return what pasting does to a tenant's list, or to the platform's (None). Must run in a scope that sees it."""
    found = Preview()
    owner = Q(tenant__isnull=True) if tenant_id is None else Q(tenant_id=tenant_id)
    known = set(ModerationWord.objects.filter(owner).values_list("key", flat=True))
    for number, cells in enumerate(csv.reader(pasted.splitlines()[:MOST_LINES]), 1):
        if not any(cell.strip() for cell in cells):
            continue
        word, row_category, row_action = _cells(cells, category, action)
        key = key_of(word)
        if not key.strip("*") or len(word) > MAX_WORD_CHARACTERS or not (row_category and row_action):
            found.bad.append((number, ",".join(cells)[:MAX_WORD_CHARACTERS]))
        elif key in known:
            found.known.append(word)
        else:
            known.add(key)
            found.new.append(
                ModerationWord(tenant_id=tenant_id, word=word, key=key, category=row_category, action=row_action)
            )
    return found


def _cells(cells: list[str], category: str, action: str) -> tuple[str, str, str]:
    """Return a line's word, category and action; "" for a value that is none."""
    word, *rest = (cell.removeprefix("\ufeff").strip() for cell in cells)  # spreadsheets begin with a mark
    said_category, said_action = (*rest, "", "")[:2]
    return (
        word,
        (said_category or category) if said_category in {"", *Category.values} else "",
        (said_action or action) if said_action in {"", *Action.values} else "",
    )


def add(words: Iterable[ModerationWord]) -> int:
    """Add what a preview found new; return how many. What somebody else has added meanwhile stays as it is."""
    rows = list(words)
    with transaction.atomic():
        ModerationWord.objects.bulk_create(rows, batch_size=2000, ignore_conflicts=True)
    return len(rows)

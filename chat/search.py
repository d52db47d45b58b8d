"""Searching in what a user asked and was answered, in any language.

A text's terms are its pairs of neighbouring characters, which need no dictionary to cut Chinese into words. Pairs fall
into a few thousand groups, which keeps the index small, and a group's term is hashed with the tenant and the user, so
the index has no list that two users share, and a common pair costs a user what that user wrote. The index only
proposes: PostgreSQL then looks for the words themselves in what it found, and in what is not indexed yet.
"""

import re
import zlib
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from chat.models import Message, SearchEntry
from tenants import scope
from tenants.models import EndUser

_SIGN = 2**31
# Groups of pairs. An answer of 600 characters is in one of 14: so many messages are left to look through for a word of
# two characters, and hardly any for one of four. More groups would find little faster, in a much larger index.
_GROUPS = 2**13
# Characters of a text that are shown before and after what was found.
SNIPPET_BEFORE, SNIPPET_AFTER = 20, 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A message that has every word, and the surroundings of the first of them."""

    message: Message
    place: str  # "question" or "answer"
    snippet: str


def terms_of(text: str, *, tenant_id: int, user_id: int) -> list[int]:
    """Return the terms of a user's text, 32-bit integers in ascending order."""
    seed = zlib.crc32(f"{tenant_id}:{user_id}".encode())
    pairs = {run[at : at + 2] for run in text.casefold().split() for at in range(len(run) - 1)}
    groups = {zlib.crc32(pair.encode("utf-8", "surrogatepass")) % _GROUPS for pair in pairs}
    return sorted(zlib.crc32(group.to_bytes(2, "big"), seed) - _SIGN for group in groups)


def find(*, user: EndUser, query: str, before: str = "", limit: int) -> list[Hit]:
    """Return the user's latest messages whose question or answer has every word of `query`, the latest first.

    `before` is the id of the last one known. Must run in the tenant's scope.
    """
    words = query.split()
    found = _candidates(user, query).select_related("conversation").order_by("-pk")
    for word in words:
        found = found.filter(Q(question__icontains=word) | Q(answer__icontains=word))
    if before:
        found = found.filter(pk__lt=before)
    return [_hit(message, words) for message in found[:limit]]


def _candidates(user: EndUser, query: str) -> QuerySet[Message]:
    mine = Message.objects.filter(user=user, api_key=None, conversation__deleted_at__isnull=True)
    terms = terms_of(query, tenant_id=user.tenant_id, user_id=user.pk)
    if not terms:
        return mine  # a single character: most messages have a common one, so the latest are soon found
    indexed = SearchEntry.objects.filter(user=user, terms__contains=terms).values("message_id")
    waiting = Message.objects.filter(user=user, indexed_at__isnull=True).values("pk")
    return mine.filter(pk__in=indexed.union(waiting, all=True))


def _hit(message: Message, words: list[str]) -> Hit:
    for place, text in (("answer", message.answer), ("question", message.question)):
        seen = re.search(re.escape(words[0]), text, re.IGNORECASE)
        if seen:
            start, end = max(0, seen.start() - SNIPPET_BEFORE), seen.end() + SNIPPET_AFTER
            cut = ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
            return Hit(message=message, place=place, snippet=" ".join(cut.split()))
    return Hit(message=message, place="question", snippet=message.question[:SNIPPET_AFTER])


def index(message: Message) -> bool:
    """Bring an ended message into the index; False where another process just did."""
    with scope.tenant(message.tenant_id), transaction.atomic():
        waiting = Message.objects.filter(pk=message.pk, ended_at__isnull=False, indexed_at__isnull=True)
        if not waiting.update(indexed_at=timezone.now()):
            return False
        # Read after the row was taken: nobody can change the text now.
        said = Message.objects.select_related("conversation").get(pk=message.pk)
        # Of a call of the API nothing is kept that could be searched.
        if said.conversation is not None and said.conversation.deleted_at is None:
            text = f"{said.question}\n{said.answer}"
            terms = terms_of(text, tenant_id=said.tenant_id, user_id=said.user_id)
            entry = SearchEntry(tenant_id=said.tenant_id, user_id=said.user_id, message=said, terms=terms)
            SearchEntry.objects.bulk_create(
                [entry], update_conflicts=True, unique_fields=["tenant", "message"], update_fields=["terms"]
            )
        return True

"""Conversations as files that their user takes along: Markdown to read, JSON to read with a program."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from chat.attachments import files_of, listed
from chat.labels import ai_label, aigc
from chat.models import Conversation, Message
from tenants.models import Tenant

Format = Literal["md", "json"]

_TYPES: dict[Format, str] = {"md": "text/markdown; charset=utf-8", "json": "application/json"}
# Conversations whose messages are read at a time.
_BATCH = 100


def export(*, conversations: QuerySet[Conversation], tenant: Tenant, name: str, kind: Format) -> HttpResponse:
    """Return a file of that name (ASCII, without its ending) with conversations, the oldest message first in each."""
    messages = Prefetch("messages", Message.objects.order_by("created_at", "pk"))
    rows = conversations.prefetch_related(messages).iterator(chunk_size=_BATCH)
    label, facts = ai_label(), aigc(produced_id=name, tenant=tenant)
    zone = ZoneInfo(tenant.timezone)
    made = _markdown(rows, zone, label, facts) if kind == "md" else _json(rows, label, facts)
    response = HttpResponse(made, content_type=_TYPES[kind])
    response["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return response


def export_answer() -> dict[str, Any]:
    """Return how OpenAPI describes such a file as an answer."""
    kinds = {"text/markdown": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
    return {"responses": {200: {"description": "OK", "content": kinds}}}


def _json(rows: Iterable[Conversation], label: str, facts: dict[str, Any]) -> Iterator[str]:
    head = json.dumps({"label": label, "AIGC": facts, "exported_at": timezone.now().isoformat()}, ensure_ascii=False)
    yield head.removesuffix("}") + ', "conversations": ['
    for number, row in enumerate(rows):
        told = told_of(row, row.messages.all())
        yield ("," if number else "") + "\n" + json.dumps(told, ensure_ascii=False)
    yield "\n]}\n"


def told_of(row: Conversation, messages: Iterable[Message]) -> dict[str, Any]:
    """Return a conversation as JSON's types; what was attached is named."""
    return {
        "id": str(row.pk),
        "title": row.title,
        "created_at": row.created_at.isoformat(),
        "messages": [_message(said) for said in listed(list(messages))],
    }


def _message(said: Message) -> dict[str, Any]:
    answer = {"model": said.offer_slug, "text": said.answer, "ai_generated": True, "state": said.state}
    files = [{"id": str(file.pk), "kind": file.kind, "name": file.name} for file in files_of(said)]
    if said.reasoning:
        answer["reasoning"] = said.reasoning
    return {
        "id": str(said.pk),
        "asked_at": said.created_at.isoformat(),
        "question": said.question,
        **({"attachments": files} if files else {}),
        "answer": answer,
    }


def _markdown(rows: Iterable[Conversation], zone: ZoneInfo, label: str, facts: dict[str, Any]) -> Iterator[str]:
    # JSON is YAML, too: the front matter is where programs look for a Markdown file's metadata.
    yield f"---\nAIGC: {json.dumps(facts, ensure_ascii=False)}\n---\n\n> {label}\n"
    asked, attached, nothing = _("Question"), _("Attached"), _("No answer.")
    for row in rows:
        yield f"\n# {_one_line(row.title)}\n\n{_moment(row.created_at, zone)}\n"
        for said in listed(list(row.messages.all())):
            yield f"\n## {asked}\n" + (f"\n{said.question}\n" if said.question else "")
            if names := ", ".join(_one_line(file.name) for file in files_of(said)):
                yield f"\n{attached}: {names}\n"
            heading = _("AI-generated answer (%(model)s)") % {"model": said.offer_slug}
            thought = f"{_quoted(said.reasoning)}\n\n" if said.reasoning else ""
            yield f"\n## {heading}\n\n{thought}{said.answer or nothing}\n"


def _quoted(reasoning: str) -> str:
    heading = _("Reasoning")
    return "\n".join(f"> {line}".rstrip() for line in [f"**{heading}**", "", *reasoning.splitlines()])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _moment(at: datetime, zone: ZoneInfo) -> str:
    return f"{timezone.localtime(at, zone):%Y-%m-%d %H:%M}"

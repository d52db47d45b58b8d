"""What a question is asked of: its model, its conversation with what was said there, its role.

All of it is read by one round trip, which a request's user is found by too (`find`), before the turn's transaction.
"""

import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from chat.context import Said, branch_query
from chat.models import Conversation, Role
from chat.routes import OnSale, sale_query
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.table import Joined, Query, Table, fetch, fetch_all

# `Place.parent` of a question that begins a conversation, or begins it anew.
ROOT: Final = "root"

_ROLES: Final = Table(Role)
_ROLE: Final = _ROLES.select(
    "WHERE tenant_id = %(tenant)s AND is_enabled AND CASE WHEN %(slug)s = '' THEN is_default ELSE slug = %(slug)s END"
)
_THREADS: Final = Joined(conversation=Table(Conversation), role=_ROLES)
_THREAD: Final = _THREADS.select("""
FROM chat_conversation conversation
LEFT JOIN chat_role role ON role.tenant_id = conversation.tenant_id AND role.id = conversation.role_id
WHERE conversation.tenant_id = %(tenant)s AND conversation.id = %(conversation)s AND conversation.deleted_at IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a question is asked, in the request's words: "" where it does not say."""

    model: str = ""
    conversation: str = ""
    parent: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What there is at a place. `thread` may be anybody's: `conversation_of` lets only its user have it."""

    sale: OnSale | None
    role: Role | None = None
    thread: Conversation | None = None
    # The turns before the question, the latest first.
    branch: list[Said] = field(default_factory=list)

    def conversation_of(self, user_id: int) -> Conversation:
        """Return the conversation that goes on, if it is the user's; raise ProductError 404."""
        return _owned(self.thread, user_id)

    def named_role(self, slug: str) -> Role | None:
        """Return the role that was named, or the tenant's default one, or none where it has none; or refuse (404)."""
        if slug and self.role is None:
            raise ProductError(
                ErrorCode.NOT_FOUND,
                _("This assistant is not available. Please choose another one."),
                type="role_not_found",
                scope="role",
                action="choose_role",
            )
        return self.role


def find(place: Place, *beside: Query[Any], tenant_id: int) -> tuple[Findings, list[Any]]:
    """Return what there is at a place, and what else is asked for `beside` it, which may raise: by one round trip."""
    wanted = _queries(place, tenant_id)
    found = fetch_all(*beside, *wanted.values())
    return Findings(**dict(zip(wanted, found[len(beside) :], strict=True))), found[: len(beside)]


def _queries(place: Place, tenant_id: int) -> dict[str, Query[Any]]:
    wanted: dict[str, Query[Any]] = {"sale": sale_query(tenant_id=tenant_id, slug=place.model)}
    if not place.conversation or place.role:
        wanted["role"] = Query(_ROLE, {"tenant": tenant_id, "slug": place.role}, _ROLES.first)
    if place.conversation:
        conversation_id = parse_id(place.conversation)
        wanted["thread"] = _thread_query(tenant_id, conversation_id)
        if place.parent != ROOT:
            last = parse_id(place.parent)
            wanted["branch"] = branch_query(last, tenant_id=tenant_id, conversation_id=conversation_id)
    return wanted


def find_conversation(*, user_id: int, conversation_id: str) -> Conversation:
    """Return the user's own conversation of that id, with its role; raise ProductError 404. In the tenant's scope."""
    return _owned(fetch(_thread_query(scope.current_tenant_id(), parse_id(conversation_id))), user_id)


def _owned(thread: Conversation | None, user_id: int) -> Conversation:
    """Return a conversation that is the user's own; refuse any other as one that does not exist."""
    if thread is None or thread.user_id != user_id:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This conversation does not exist. Please start a new one."),
            type="conversation_not_found",
            scope="conversation",
            action="start_conversation",
        )
    return thread


def _thread_query(tenant_id: int | None, conversation_id: uuid.UUID | None) -> Query[Conversation | None]:
    scope.require_owner(tenant_id)
    return Query(_THREAD, {"tenant": tenant_id, "conversation": conversation_id}, _thread)


def _thread(rows: list[tuple[Any, ...]]) -> Conversation | None:
    found = _THREADS.first(rows)
    if found is None:
        return None
    conversation: Conversation
    conversation, conversation.role = found
    return conversation


def parse_id(text: str) -> uuid.UUID | None:
    """Return the id that `text` spells, None where it spells none: to its reader, an object that does not exist."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None

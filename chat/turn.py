"""A turn's two transactions: the one that admits or refuses it, and the one that ends it.

    open_turn()    offer, context, the message's row, quota and hold: all or nothing
    close_turn()   the answer's row, settle or void: all or nothing, then usage is handed to Celery

Both run in a thread (chat.threads), inside the tenant's scope, and between them no database connection is held.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _

from billing import adjustments, holds
from billing.pricing import Quantities
from billing.tasks import enqueue_record
from chat import attachments, keys, refusals
from chat.attachments import Attached
from chat.context import build_context, check_call, estimate_tokens
from chat.events import FailureKind
from chat.findings import ROOT, Findings, Place, find, parse_id
from chat.models import Conversation, Message, ModelOffer
from chat.moderation import evidence
from chat.moderation.evidence import Evidence
from chat.moderation.question import Screened, screen, screen_messages
from chat.moderation.refusals import Refused, refusal
from chat.routes import OnSale, available, targets_of
from chat.upstream import tokens
from chat.upstream.base import ChatRequest, UpstreamTarget
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Tenant
from tenants.table import Planned, Query, Statement, Table, carry_out, fetch, fetch_all, one_at_a_time, run_all

log = structlog.get_logger(__name__)

# A question is a person's typing or a pasted page; the model's window is checked apart.
MAX_QUESTION_CHARACTERS = 100_000
TITLE_CHARACTERS = 40
# So much of what a model thought is kept, from its beginning: it is read by people, in a fold.
MAX_REASONING_CHARACTERS: Final = 50_000
# Why moderation ended an answer before its upstream did, as its receipt says.
MODERATED: Final = "moderated"

# A hold's life is renewed at a quarter of its lease; so long, nobody else can have ended it.
HEARTBEATS_PER_LEASE: Final = 4

# This process, to others: what it generates it can be asked for under this name (chat.relay).
PROCESS: Final = uuid.uuid4().hex
# Why an answer ended before its upstream did, as its receipt says.
STOPPED: Final = "stopped"
EXPIRED: Final = "expired"
# For how long a repeated call of the API is taken for a try of the first one, where no key says so.
RETRY_WINDOW: Final = timedelta(minutes=10)
# When it is worth asking again where too many answers are running: they take seconds.
BUSY_SECONDS: Final = 5

# What every chat runs.
_MESSAGES: Final = Table(Message)
_CONVERSATIONS: Final = Table(Conversation)
_ASKED: Final = _MESSAGES.select(
    "WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND client_msg_id = %(client_msg_id)s"
)
_COUNT_RUNNING: Final = (
    "SELECT count(*) FROM chat_message WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND state = 'running'"
)
_TOUCH: Final = (
    "UPDATE chat_conversation SET updated_at = %(now)s WHERE tenant_id = %(tenant)s AND id = %(conversation)s"
)
# A question that names no parent follows what is the latest once its conversation is touched, and so locked: of several
# at once each follows the one before it. Its time is the database's, behind that wait, so that both orders agree.
_NOW: Final = {"created_at": "clock_timestamp()"}
_BEHIND_THE_LATEST: Final = {
    **_NOW,
    "parent_id": (
        "(SELECT id FROM chat_message WHERE tenant_id = %(tenant_id)s AND conversation_id = %(conversation_id)s "
        "ORDER BY created_at DESC, id DESC LIMIT 1)"
    ),
}
_KEEP: Final = """
UPDATE chat_message message SET answer = told.answer, reasoning = coalesce(told.reasoning, message.reasoning)
FROM unnest(%(tenants)s::bigint[], %(messages)s::uuid[], %(answers)s::text[], %(reasonings)s::text[])
    AS told (tenant, id, answer, reasoning)
WHERE message.tenant_id = told.tenant AND message.id = told.id AND message.state = 'running'
  AND message.stop_asked_at IS NULL
RETURNING message.id
"""
_STORE: Final = """
UPDATE chat_message SET state = %(state)s, answer = %(answer)s, reasoning = %(reasoning)s,
    finish_reason = %(finish_reason)s, receipt = %(receipt)s, failure = %(failure)s,
    ended_at = %(now)s, indexed_at = NULL
WHERE tenant_id = %(tenant)s AND id = %(message)s AND state = ANY(%(open)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a program asks for by an API key: all of it, in OpenAI's words, and none of it is kept.

    `extra` is passed upstream as it is; `max_tokens` is None where the program leaves it open. `digest` tells equal
    calls; `is_retry`: the program's library says that it has asked before.
    """

    key_id: int
    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    max_tokens: int | None = None
    digest: str = ""
    is_retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a user asks for, parsed and of the right types, not yet checked against anything stored.

    At most one of `parent` (the message that the question follows), `regenerate` (the message whose question is asked
    again) and `edit` (the message whose question this one replaces) is given; "" where not. `attachments` are ids;
    None: those of the message that is replaced, if one is. A `call` takes the place of the text and of everything
    about conversations.
    """

    message: str = ""
    conversation: str = ""
    parent: str = ""
    regenerate: str = ""
    edit: str = ""
    model: str = ""
    role: str = ""
    client_msg_id: str = ""
    attachments: tuple[uuid.UUID, ...] | None = None
    call: Call | None = None
    # What of the attachments was found, and whose words moderation masked.
    files: tuple[Attached, ...] = field(default=(), repr=False)
    masked: tuple[Attached, ...] = field(default=(), repr=False)

    @property
    def names_a_message(self) -> bool:
        """Whether the place of the question is known only once a message is."""
        return bool(self.regenerate or self.edit or (self.parent and self.parent != ROOT))

    @property
    def place(self) -> Place:
        """Where it is asked."""
        if self.call is not None:
            return Place(model=self.model)
        return Place(model=self.model, conversation=self.conversation, parent=self.parent, role=self.role)


class _Prompt(NamedTuple):
    """What is sent upstream for a question, how many tokens it takes at most, what it may cost, and its rows."""

    request: ChatRequest
    tokens: int
    rows: Sequence[Statement]
    budget: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An admitted turn: all that the pump needs, so that it need not look anything up. Its hold has the same id."""

    tenant_id: int
    user_id: int
    message_id: uuid.UUID
    # None for a call of the API, which is in no conversation.
    conversation_id: uuid.UUID | None
    language: str
    model: str
    targets: tuple[UpstreamTarget, ...]
    request: ChatRequest
    # True where the balance, not the offer, set the longest answer.
    cut_to_balance: bool
    # The tenant's policy for an answer whose last reader has left: stop it, or (False) finish it.
    stop_when_left: bool = False
    # What the tenant's moderation knows of the question; None where the tenant has none.
    screened: Screened | None = field(default=None, repr=False)
    # Until when, on this process's monotonic clock, the upstream may be called without another look at the hold.
    dispatched_until: float = 0.0
    # The key of a call of the API, whose text is kept nowhere; and the tokens that are reckoned for an image in it.
    api_key_id: int | None = None
    image_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the pump saw when the upstream was done: the text, what it cost there, and whether it broke."""

    text: str
    had_output: bool
    # What was shown of the model's reasoning.
    reasoning: str = field(default="", repr=False)
    # Billable output that is not shown: reasoning, tool calls. Counted where the upstream reports no usage.
    hidden: str = ""
    finish_reason: str = ""
    # Why we ended it before the upstream did: STOPPED, EXPIRED, MODERATED, "client_left".
    stopped: str = ""
    usage: holds.Usage | None = None
    failure: FailureKind | None = None
    # Which text moderation refused, and what it found in both.
    refused: Refused = Refused.NOTHING
    found: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a turn ended. A cut answer has both: a receipt for what was generated, and the failure that cut it.

    `is_late`: the hold had been charged at its checkpoint, and now for the whole.
    """

    finish_reason: str = ""
    receipt: dict[str, Any] | None = None
    failure: ProductError | None = None
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What there is of a running turn so far, and what it would be charged if this were all."""

    turn: Turn
    outcome: Outcome
    quantities: Quantities


class AlreadyAskedError(Exception):
    """The same client message id was used before: the reader attaches to that message's answer."""

    def __init__(self, message: Message) -> None:
        super().__init__(str(message.id))
        self.message = message


def open_turn(  # noqa: PLR0913  what a request is, and what is known of it
    *,
    tenant: Tenant,
    user: EndUser,
    ask: Ask,
    language: str,
    is_full: bool = False,
    findings: Findings | None = None,
) -> Turn:
    """Admit a turn, in one transaction: nothing stays of one that is refused, but moderation's evidence.

    `is_full`: this process generates as many answers as it may, so it only says where a known key's answer is.
    `findings`: what there is at the ask's place, where that was read already. Raises ProductError (404, 10001, 101,
    102, 11000) and AlreadyAskedError. Must run in the tenant's scope.
    """
    findings = None if ask.names_a_message else findings
    ask = _place(user, ask)
    ask = replace(ask, files=attachments.find_for(user_id=user.pk, ids=ask.attachments or ()))
    screened, ask = _screen(tenant, user, ask)
    if ask.call is not None:
        _refuse_repeated(user, ask)
    try:
        if len(ask.files) != len(ask.attachments or ()):
            raise refusals.attachment_not_found()
        if is_full:
            raise too_many("process", settings.MAX_ANSWERS)
        if screened:
            screened.refuse_blocked(user)
        findings = findings or find(ask.place, tenant_id=tenant.pk)[0]
        with transaction.atomic():
            return _admit(tenant=tenant, user=user, ask=ask, findings=findings, language=language, screened=screened)
    except holds.BudgetShortError:
        raise keys.limit_reached(ask.call.key_id) from None  # type: ignore[union-attr]  # only calls have budgets
    except (IntegrityError, ProductError):
        # Whatever stands against it, what was asked before has its answer: of two requests with one key at once, the
        # second finds here what the first has written.
        _refuse_repeated(user, ask)
        raise


def _admit(  # noqa: PLR0913  what a request is, and what is known of it
    *, tenant: Tenant, user: EndUser, ask: Ask, findings: Findings, language: str, screened: Screened | None
) -> Turn:
    if findings.sale is None:
        raise refusals.model_not_found()
    offer, begun = findings.sale.offer, time.monotonic()
    _refuse_too_many(user)
    message = Message(
        tenant_id=tenant.pk,
        user=user,
        served_by=PROCESS,
        client_msg_id=ask.client_msg_id or None,
        offer_slug=offer.slug,
    )
    if ask.call is None:
        prompt = _place_question(message, ask, findings, findings.sale, language=language)
    else:
        prompt = _place_call(message, ask, ask.call, offer)
    longest = min(prompt.request.max_tokens, offer.context_window - prompt.tokens)
    # Last: from here to the commit the tenant's other turns wait for its wallet's row.
    hold = holds.admit(
        holds.HoldRequest(
            hold_id=message.id,
            tenant_id=tenant.pk,
            user_id=user.pk,
            # What failed of a call may be tried anew under its key, so a call's hold goes by the message.
            key=f"{user.pk}:{(not ask.call and ask.client_msg_id) or message.id}",
            sku=offer.sku,
            prompt_tokens=prompt.tokens,
            max_completion_tokens=longest,
            min_completion_tokens=min(offer.min_output_tokens, longest),
            quota_group=offer.quota_group,
            paid_way=offer.paid_way and not user.is_guest,
            is_guest=user.is_guest,
            budget=prompt.budget,
            # Moderation may take its time before the upstream is called; else nothing stands between.
            dispatched=screened is None,
        ),
        # Before anything is locked: a second request with this key waits here, and takes no money.
        first=prompt.rows,
    )
    return Turn(
        tenant_id=tenant.pk,
        user_id=user.pk,
        message_id=message.id,
        conversation_id=message.conversation_id,
        language=language,
        model=offer.slug,
        targets=targets_of(offer),
        request=replace(prompt.request, max_tokens=hold.max_completion_tokens),
        cut_to_balance=hold.max_completion_tokens < longest,
        stop_when_left=tenant.on_disconnect == Tenant.OnDisconnect.STOP,
        api_key_id=message.api_key_id,
        image_tokens=offer.image_tokens,
        screened=screened,
        dispatched_until=0.0 if screened else begun + settings.HOLD_SECONDS / HEARTBEATS_PER_LEASE,
    )


def _place_question(message: Message, ask: Ask, findings: Findings, sale: OnSale, *, language: str) -> _Prompt:
    """Put a person's question into its conversation, and return it with as much of that as fits.

    That was read a moment ago: what another request asks there meanwhile goes before it in the tree, unanswered.
    """
    conversation, is_new = _conversation_of(message.user, ask, findings, language=language)
    branch, offer = findings.branch, sale.offer
    seen = [each for said in branch if said.is_answered for each in said.attachments]
    messages = build_context(
        conversation.role,
        branch=branch,
        question=ask.message,
        offer=offer,
        rules=sale.rules,
        files=ask.files,
        earlier=attachments.earlier(user_id=message.user_id, ids=seen),
    )
    message.conversation = conversation
    message.parent_id = branch[0].id if branch else None
    message.question = ask.message
    message.attachments = [file.id for file in ask.files]
    touched = {"tenant": message.tenant_id, "conversation": conversation.pk, "now": timezone.now()}
    rows = [
        _CONVERSATIONS.insertion(conversation) if is_new else Statement(_TOUCH, touched),
        _MESSAGES.insertion(message, **(_NOW if is_new or ask.parent else _BEHIND_THE_LATEST)),
    ]
    prompt_tokens = estimate_tokens(messages, offer)
    if ask.files:
        run_all(rows)
        rows.clear()
        attachments.claim(message=message, files=ask.files, changed=ask.masked)
    attachments.with_pictures(messages)
    return _Prompt(ChatRequest(messages=messages, max_tokens=offer.max_output_tokens), prompt_tokens, rows)


def _conversation_of(user: EndUser, ask: Ask, findings: Findings, *, language: str) -> tuple[Conversation, bool]:
    """Return the user's own conversation that goes on, or a new one, to be written; and whether it is new.

    A conversation keeps the role that it began with, unless the request names another.
    """
    if not ask.conversation:
        role = findings.named_role(ask.role)
        return Conversation(tenant_id=user.tenant_id, user=user, role=role, title=_title(ask, language)), True
    conversation = findings.conversation_of(user.pk)
    if ask.role:
        conversation.role = findings.named_role(ask.role)
    return conversation, False


def _title(ask: Ask, language: str) -> str:
    """Return how a conversation is called that begins so: as it is asked, else after the first file."""
    title = " ".join(ask.message.split())
    if not title and ask.files:
        # A phone's names for its pictures say nothing.
        with translation.override(language):
            title = str(_("Picture")) if ask.files[0].is_image else ask.files[0].name
    return title[:TITLE_CHARACTERS]


def _place_call(message: Message, ask: Ask, call: Call, offer: ModelOffer) -> _Prompt:
    """Note a program's call, without what it says, and return that with what its key may still spend."""
    if call.is_retry:
        # Once more, now that the user's other requests are over.
        _refuse_repeated(message.user, ask)
    request = ChatRequest(
        messages=call.messages,
        max_tokens=min(call.max_tokens or offer.max_output_tokens, offer.max_output_tokens),
        extra=call.extra,
    )
    prompt_tokens = check_call(request, offer)
    message.api_key_id = call.key_id
    message.request_digest = call.digest
    return _Prompt(request, prompt_tokens, [_MESSAGES.insertion(message)], keys.budget_of(call.key_id))


def _screen(tenant: Tenant, user: EndUser, ask: Ask) -> tuple[Screened | None, Ask]:
    """Return what the tenant's moderation knows of what is asked, and that with what it masks masked."""
    if ask.call is None:
        screened = screen(tenant, user, ask.message, attached=[f"{file.name}\n{file.text}" for file in ask.files])
        return screened, _clean(ask, screened) if screened else ask
    screened, messages = screen_messages(tenant, user, ask.call.messages)
    return screened, replace(ask, call=replace(ask.call, messages=messages)) if screened else ask


def _clean(ask: Ask, screened: Screened) -> Ask:
    """Return what is asked with asterisks over masked words."""
    names = [text.partition("\n") for text in screened.attached]
    files = tuple(
        file._replace(name=name, text=text) for file, (name, _end, text) in zip(ask.files, names, strict=True)
    )
    changed = tuple(file for file, before in zip(files, ask.files, strict=True) if file != before)
    return replace(ask, message=screened.text, files=files, masked=changed)


def _place(user: EndUser, ask: Ask) -> Ask:
    """Return `ask` with its question, its conversation and its parent, as far as a message that it names says them.

    What replaces a message goes to the same model, unless the request names another.
    """
    name = "regenerate" if ask.regenerate else "edit" if ask.edit else "parent"
    named = ask.regenerate or ask.edit or ask.parent
    if not named or ask.parent == ROOT:
        return ask
    known = find_message(user_id=user.pk, message_id=parse_id(named), parameter=name)
    if parse_id(ask.conversation) not in {None, known.conversation_id}:
        raise message_not_found(name)
    placed = replace(ask, conversation=str(known.conversation_id))
    if name == "parent":
        return placed
    message = known.question if ask.regenerate else ask.message
    files = tuple(known.attachments) if ask.attachments is None else ask.attachments
    if not message and not files:
        raise message_not_found(name)  # moderation took the question away
    return replace(
        placed,
        message=message,
        parent=str(known.parent_id or ROOT),
        model=ask.model or known.offer_slug,
        attachments=files,
    )


def _refuse_too_many(user: EndUser) -> None:
    """Raise ProductError 102 where the user has as many answers running, in all processes, as one may have.

    The lock, until the commit, has a user's requests counted one after the other. It is taken by the same round trip
    that counts, in a statement of its own, so that the count sees what those before it have committed.
    """
    if not settings.MAX_ANSWERS_PER_USER:
        return
    whose = {"tenant": user.tenant_id, "user": user.pk}
    _locked, running = fetch_all(
        one_at_a_time("chat_message_running", user.pk),
        Query(_COUNT_RUNNING, whose, lambda rows: rows[0][0]),
    )
    if running >= settings.MAX_ANSWERS_PER_USER:
        raise too_many("user", settings.MAX_ANSWERS_PER_USER)


def too_many(whose: str, limit: int) -> ProductError:
    """Return the refusal where `limit` answers of the "user", this "process" or this "socket" are running (102)."""
    return refusals.too_many_answers(
        whose, used=limit, limit=limit, reset_at=timezone.now() + timedelta(seconds=BUSY_SECONDS)
    )


def _refuse_repeated(user: EndUser, ask: Ask) -> None:
    """Raise AlreadyAskedError for a known key, or the refusal that the key now carries another text."""
    known = _known(user, ask)
    if known is None:
        return
    # Of one that moderation refused nothing is kept: neither words nor files.
    is_kept = bool(known.question or known.attachments)
    is_other = is_kept and (known.question, known.attachments) != (ask.message, list(ask.attachments or ()))
    if is_other or known.request_digest != (ask.call.digest if ask.call else ""):
        raise ProductError(
            ErrorCode.INVALID,
            _("This message id was already used for another text. Send it again with a new id."),
            type="client_msg_id_reused",
            scope="client_msg_id",
            action="retry_with_new_id",
        )
    raise AlreadyAskedError(known)


def _known(user: EndUser, ask: Ask) -> Message | None:
    """Return the message of which a request is a repetition, if it is one.

    A call of the API that failed, and so cost nothing, may be tried anew: programs' libraries do that by themselves.
    Those that send no key are known by an equal call of the same API key before.
    """
    known: Message | None = None
    if ask.client_msg_id:
        asked = {"tenant": user.tenant_id, "user": user.pk, "client_msg_id": ask.client_msg_id}
        known = fetch(Query(_ASKED, asked, _MESSAGES.first))
    elif ask.call and ask.call.is_retry:
        before = timezone.now() - RETRY_WINDOW
        calls = Message.objects.filter(
            user=user, api_key_id=ask.call.key_id, request_digest=ask.call.digest, created_at__gt=before
        )
        known = calls.exclude(state=Message.State.FAILED).order_by("-created_at").first()
    if known and ask.call and known.state == Message.State.FAILED:
        Message.objects.filter(pk=known.pk, state=Message.State.FAILED).update(client_msg_id=None)
        return None
    return known


def offers_on_sale() -> QuerySet[ModelOffer]:
    """Return the tenant's offers that may be asked. Must run in the tenant's scope."""
    return available(ModelOffer.objects.all())


def find_message(*, user_id: int, message_id: uuid.UUID | None, parameter: str = "message_id") -> Message:
    """Return the user's own message; raise ProductError 404, of that parameter. Must run in the tenant's scope."""
    # Calls of the API are no messages of a conversation, and have no text to come back to.
    mine = Message.objects.filter(user_id=user_id, api_key=None, conversation__deleted_at__isnull=True)
    message = mine.filter(pk=message_id).first() if message_id else None
    if message is None:
        raise message_not_found(parameter)
    return message


def message_not_found(parameter: str) -> ProductError:
    """Return the refusal of a message that does not exist, or is somebody else's (404)."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This message does not exist. Please send it again."),
        type="message_not_found",
        scope=parameter,
        action="resend",
    )


def dispatch_turn(turn: Turn) -> bool:
    """Commit that the upstream is about to be called; False where the hold has expired meanwhile."""
    with scope.tenant(turn.tenant_id):
        return holds.dispatch(tenant_id=turn.tenant_id, hold_id=turn.message_id)


def note_stop(message: Message) -> bool:
    """Note that the user wants no more of an answer, for the process that generates it; False where it has ended.

    The note is what a process finds at its next checkpoint, should nothing faster reach it. Must run in the tenant's
    scope.
    """
    running = Message.objects.filter(pk=message.pk, state=Message.State.RUNNING)
    return running.update(stop_asked_at=Now()) == 1


def checkpoint_turns(checkpoints: Sequence[Checkpoint]) -> dict[uuid.UUID, str]:
    """Keep what was generated so far, should this process die; return of which message to generate no more, and why.

    One round trip for all, of every tenant; each row is named with its tenant. Rows that are not as expected, or in
    someone's hands, are looked at one by one.
    """
    kept_holds, kept_messages = fetch_all(
        holds.checkpoints_query([(each.turn.tenant_id, each.turn.message_id, each.quantities) for each in checkpoints]),
        Query(
            _KEEP,
            {
                "tenants": [each.turn.tenant_id for each in checkpoints],
                "messages": [each.turn.message_id for each in checkpoints],
                "answers": [_kept(each.turn, each.outcome) for each in checkpoints],
                # Most answers have none: nothing is bound, sent and written for them.
                "reasonings": [_thought(each.turn, each.outcome) or None for each in checkpoints],
            },
            lambda rows: {message_id for (message_id,) in rows},
        ),
    )
    left = [each for each in checkpoints if each.turn.message_id not in kept_holds & kept_messages]
    reasons = {each.turn.message_id: checkpoint_turn(each) for each in left}
    return {message_id: reason for message_id, reason in reasons.items() if reason}


def checkpoint_turn(checkpoint: Checkpoint) -> str:
    """Keep what there is of one turn; return why to stop here, "" to go on."""
    turn, outcome = checkpoint.turn, checkpoint.outcome
    with scope.tenant(turn.tenant_id), transaction.atomic():
        if not holds.checkpoint(tenant_id=turn.tenant_id, hold_id=turn.message_id, quantities=checkpoint.quantities):
            return EXPIRED
        wanted = Message.objects.filter(pk=turn.message_id, state=Message.State.RUNNING, stop_asked_at=None)
        kept = {"answer": _kept(turn, outcome), "reasoning": _thought(turn, outcome)}
        return "" if wanted.update(**kept) else STOPPED


def close_turn(turn: Turn, outcome: Outcome) -> Ending:
    """End the turn in one transaction: settle what was generated, or void; then hand the usage to Celery."""
    with scope.tenant(turn.tenant_id), translation.override(turn.language):
        with transaction.atomic():
            if turn.api_key_id is not None:
                keys.lock(turn.api_key_id)  # before the user's rows, as when the call was admitted
            store = _Store(turn, outcome)
            ending = _settle(turn, outcome, store) if outcome.had_output else _void(turn, outcome, store)
            if store.is_done and outcome.found:
                evidence.keep(
                    tenant_id=turn.tenant_id, user_id=turn.user_id, message_id=turn.message_id, found=outcome.found
                )
        if ending.receipt is not None:
            enqueue_record(hold_id=turn.message_id, tenant_id=turn.tenant_id)
    return ending


def _settle(turn: Turn, outcome: Outcome, store: "_Store") -> Ending:
    reason = (MODERATED if outcome.refused else outcome.stopped) or (
        "upstream_broken" if outcome.failure else outcome.finish_reason
    )
    if reason == "length" and turn.cut_to_balance:
        reason = "balance"
    usage = usage_of(turn, outcome)
    settled: list[Ending] = []

    def along(receipt: holds.Receipt) -> Planned:
        settled.append(_ending(turn, outcome, receipt))
        return store.planned(settled[0])

    if holds.settle(tenant_id=turn.tenant_id, hold_id=turn.message_id, usage=usage, reason=reason, along=along):
        return settled[0]
    # One that ended by itself, at its checkpoint, is charged the difference once; one that is void stays so.
    late = adjustments.adjust(tenant_id=turn.tenant_id, hold_id=turn.message_id, usage=usage)
    receipt = late or holds.receipt_of(tenant_id=turn.tenant_id, hold_id=turn.message_id)
    if receipt is None:
        return store.at_once(Ending(failure=refusals.expired()))
    return store.at_once(replace(_ending(turn, outcome, receipt), is_late=late is not None))


def _ending(turn: Turn, outcome: Outcome, receipt: holds.Receipt) -> Ending:
    return Ending(
        finish_reason=outcome.finish_reason,
        receipt={"model": turn.model, **receipt.as_json()},
        failure=_failure_of(outcome),
    )


def _failure_of(outcome: Outcome) -> ProductError | None:
    """Return what cut an answer of which a part was shown."""
    if outcome.refused:
        return refusal(outcome.refused, is_charged=True)
    return refusals.cut_short() if outcome.failure and not outcome.stopped else None


def _void(turn: Turn, outcome: Outcome, store: "_Store") -> Ending:
    kind = outcome.failure or FailureKind.EMPTY
    if outcome.refused:
        reason, failure = MODERATED, refusal(outcome.refused, is_charged=False)
    elif outcome.stopped:
        reason, failure = outcome.stopped, refusals.stopped()
    elif turn.api_key_id is not None and kind is FailureKind.REQUEST:
        reason, failure = f"upstream_{kind}", refusals.request_refused()
    else:
        reason, failure = f"upstream_{kind}", refusals.upstream_failed(kind)
    holds.void(tenant_id=turn.tenant_id, hold_id=turn.message_id, reason=reason)
    return store.at_once(Ending(failure=failure))


class _Store:
    """Writes an answer's final state. Only a message that runs has one to come, or one that was cut too early.

    `is_done`: it was written.
    """

    def __init__(self, turn: Turn, outcome: Outcome) -> None:
        self._turn, self._outcome = turn, outcome
        self.is_done = False

    def at_once(self, ending: Ending) -> Ending:
        """Write it by a round trip of its own."""
        carry_out(self.planned(ending))
        return ending

    def planned(self, ending: Ending) -> Planned:
        """Return the statement that writes it, having written what goes with it."""
        turn, outcome = self._turn, self._outcome
        if ending.failure is None:
            state = Message.State.CUT if outcome.stopped else Message.State.DONE
        else:
            state = Message.State.CUT if ending.receipt else Message.State.FAILED
        open_states = {Message.State.RUNNING, *([Message.State.CUT] if ending.is_late else [])}
        if outcome.refused is Refused.QUESTION:
            _forget_question(turn)
        if turn.api_key_id is not None:
            note_charge(Message.objects.filter(pk=turn.message_id, state__in=open_states).first(), ending.receipt)
        values = {
            "tenant": turn.tenant_id,
            "message": turn.message_id,
            "open": [str(open_state) for open_state in open_states],
            "state": state,
            "answer": _kept(turn, outcome) if ending.receipt else "",
            "reasoning": _thought(turn, outcome) if ending.receipt else "",
            "finish_reason": ending.finish_reason[:32],
            "receipt": _as_json(ending.receipt),
            "failure": _as_json(ending.failure.body("")) if ending.failure else None,
            "now": timezone.now(),
        }
        return Planned([Statement(_STORE, values)], self._check)

    def _check(self, stored: Sequence[int]) -> None:
        self.is_done = list(stored) == [1]


def _as_json(value: dict[str, Any] | None) -> Any:
    return None if value is None else connection.ops.adapt_json_value(value, None)


def _forget_question(turn: Turn) -> None:
    """Take a refused question out of the history, and out of the title of the conversation that it began."""
    Message.objects.filter(pk=turn.message_id).update(question="", attachments=[])
    attachments.forget_of(turn.message_id)
    if turn.conversation_id is None:
        return
    others = Message.objects.filter(conversation_id=turn.conversation_id).exclude(pk=turn.message_id)
    if not others.exists():
        Conversation.objects.filter(pk=turn.conversation_id).update(title="")


def _kept(turn: Turn, outcome: Outcome) -> str:
    """Return what is stored of an answer's text: of a call of the API nothing."""
    return outcome.text if turn.api_key_id is None else ""


def _thought(turn: Turn, outcome: Outcome) -> str:
    """Return what is stored of an answer's reasoning: of a call of the API nothing."""
    return outcome.reasoning if turn.api_key_id is None else ""


def note_charge(message: Message | None, receipt: Mapping[str, Any] | None) -> None:
    """Add what a call of the API is charged to its key, less what an earlier receipt of it said.

    Part of the transaction that ends the call; `message` is None where that has nothing to write any more.
    """
    if message is None or message.api_key_id is None or receipt is None:
        return
    before = int(message.receipt["charge"]) if message.receipt else 0
    keys.note_spent(message.api_key_id, int(receipt["charge"]) - before)


def usage_of(turn: Turn, outcome: Outcome) -> holds.Usage:
    """Return what the answer used: the upstream's figures, or an offline count where there are none."""
    return outcome.usage or _estimate_usage(turn, outcome)


def _estimate_usage(turn: Turn, outcome: Outcome) -> holds.Usage:
    """Count offline what the upstream did not report; never above what is held."""
    completion = tokens.count(outcome.text) + tokens.count(outcome.hidden)
    return holds.Usage(
        prompt=tokens.count_request(turn.request, image_tokens=turn.image_tokens),
        cached=0,
        completion=min(completion, turn.request.max_tokens),
        source="estimate",
    )


def ending_of(message: Message) -> Ending:
    """Return how a stored message ended, as its first reader was told."""
    return Ending(
        finish_reason=message.finish_reason,
        receipt=message.receipt,
        failure=stored_failure(message.failure) if message.failure else None,
    )


def stored_failure(body: dict[str, Any]) -> ProductError:
    """Return the exception that `body`, an error object of the wire, was made from."""
    return ProductError(
        ErrorCode(body["code"]), body["msg"], type=body["type"], scope=body["scope"], action=body["action"]
    )

"""The checklist of a tenant: each step looked at live where it can be, and kept as it was found.

steps      every step as it stands, for a page
run        look at one step now, or at all that are not green
proof      what a tenant's host answers to show that it is this service's

Calls to anybody are made outside of transactions. A step that is put off ("not set up") hinders nobody; the list is
done when all others are green.
"""

import re
import socket
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import orjson
import structlog
from django.conf import settings
from django.utils import timezone
from django.utils.crypto import constant_time_compare, get_random_string, salted_hmac
from django.utils.translation import gettext_lazy as _

from billing import pricing, wallet
from billing.models import MerchantAccount
from billing.payments import try_settings
from billing.payments.provider import PaymentError, ProviderRefusedError
from billing.yuan import show_yuan
from chat.models import ModelOffer
from chat.upstream.addresses import ForbiddenAddressError
from chat.views import CHAT_PATH
from lifecycle import claims, trial_payment
from lifecycle.addresses import Place, look_up, visit
from lifecycle.models import Check
from tenants import invitations, scope
from tenants.errors import ProductError
from tenants.login import issue_token, revoke_token
from tenants.models import Domain, Membership, MiniProgram, Tenant
from tenants.wechat import WeChatAwayError, client_for
from tenants.wechat_token import WeChatRefusedError, try_secret

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

Kind, State = Check.Kind, Check.State

PROOF_PATH: Final = "/api/opening/proof"
# Below this a wallet does not last for a handful of answers.
LEAST_WALLET: Final = 100_000
# What the first answer may cost the checklist's user at most.
_PURSE: Final = 1_000_000
# Who looks at the list waits for name servers no longer, however many names there are.
_DNS_SECONDS: Final = 3.0
_CERTIFICATE_DAYS: Final = 7
_READ_BYTES: Final = 64 * 1024
_QUESTION: Final = "你好"
_DATA: Final = re.compile(rb"^(event: error\r?\n)?data: (.*?)\r?\n", re.MULTILINE)

# What can be found, in words for the person who reads the list; the gaps are an outcome's facts.
WORDS: Final[dict[str, "_StrOrPromise"]] = {
    "": "",
    "models_ready": _("Models on offer: %(count)s; the first is “%(model)s”."),
    "no_default_model": _("No model is offered by default. Offer one, and mark it as the default."),
    "model_without_price": _("“%(model)s” has no price. Publish its retail price."),
    "price_below_floor": _("“%(sku)s” sells below what it costs you. Raise its price."),
    "wallet_filled": _("¥%(yuan)s are in the wallet."),
    "wallet_empty": _("¥%(yuan)s are in the wallet: too little for answers. Fill it."),
    "address_ours": _("%(host)s leads here."),
    "address_unknown": _("%(host)s leads nowhere yet. Add a DNS record for it; it may take an hour to be known."),
    "address_private": _("%(host)s leads into a private network. Point it at this service's public address."),
    "address_silent": _("Nothing answers at %(host)s. Is the DNS record right, and the port open?"),
    **claims.WORDS,
    "address_foreign": _("Something else answers at %(host)s. Point its DNS record at this service."),
    "certificate_good": _("The certificate of %(host)s is good for %(days)s more days."),
    "certificate_local": _("%(host)s is a name of this machine only: no certificate is wanted."),
    "certificate_missing": _("%(host)s is served without HTTPS, which WeChat and browsers ask for."),
    "certificate_refused": _("The certificate of %(host)s is not accepted: %(why)s."),
    "certificate_ends": _("The certificate of %(host)s ends in %(days)s days. Renew it."),
    "chat_streams": _("A question was asked at %(host)s, and the answer came word by word."),
    "chat_refused": _("The chat at %(host)s refused: %(why)s"),
    "chat_silent": _("The chat at %(host)s gave no answer."),
    "staff_in": _("%(name)s looks after this service."),
    "staff_invited": _("The invitation is open until %(until)s. It works once."),
    "staff_missing": _("Nobody has a log-in yet, and no invitation is open. Make a new one."),
    "mini_program_good": _("WeChat accepts the app id %(app_id)s and its secret."),
    "mini_program_missing": _("No mini-program is set up. It can be done at any time."),
    "mini_program_app_id": _("WeChat knows no app id %(app_id)s. Copy it from the mini-program's console."),
    "mini_program_secret": _("The secret of %(app_id)s is wrong. Reset it in the mini-program's console and paste it."),
    "mini_program_address": _("WeChat refuses this server's address. Add it to the allow list of %(app_id)s."),
    "mini_program_refused": _("WeChat refuses %(app_id)s with the code %(code)s."),
    "mini_program_away": _("WeChat does not answer just now. Look again in a minute."),
    "merchant_good": _("The provider answers and accepts the keys of %(account)s."),
    "merchant_missing": _("No way of paying is set up. It can be done at any time."),
    "merchant_refused": _("The provider refuses %(account)s: %(code)s."),
    "merchant_away": _("The provider of %(account)s does not answer, or its public key here is not its own."),
    "payment_missing": _("Set up WeChat Pay or Alipay first; then pay ¥0.01, which is paid back at once."),
    "payment_start": _("Start it, pay ¥0.01 with your phone, and it is paid back at once."),
    "payment_open": _("Waiting for the payment of ¥0.01."),
    "payment_paid": _("Paid. The ¥0.01 is on its way back."),
    "payment_returned": _("¥0.01 was paid and paid back."),
    "payment_failed": _("¥0.01 was paid, and the provider refused to pay it back. Look at the order's refund."),
    "check_failed": _("This could not be looked at just now. Try again; support finds the reason in the log."),
}

_WECHAT_WORDS: Final = {
    40013: "mini_program_app_id",
    40125: "mini_program_secret",
    40001: "mini_program_secret",
    40164: "mini_program_address",
}


class Finding(NamedTuple):
    """How a step was found."""

    state: Check.State
    word: str
    facts: dict[str, Any]


class Step(NamedTuple):
    """A step for a page: what it is, how it stands, and that in words."""

    kind: str
    name: "_StrOrPromise"
    state: str
    text: str
    checked_at: datetime | None


def steps(*, tenant: Tenant) -> list[Step]:
    """Return the tenant's steps in their order, in the reader's language."""
    with scope.tenant(tenant.pk):
        known = {row.kind: row for row in Check.objects.all()}
    found = []
    for kind in Kind:
        row = known.get(kind) or Check(kind=kind)
        found.append(Step(kind, kind.label, row.state, say(row), row.checked_at))
    return found


def say(row: Check) -> str:
    """Say what was found, in the reader's language."""
    text = str(WORDS.get(row.word, ""))
    return text % row.facts if row.facts else text


def is_done(found: Iterable[Step]) -> bool:
    """Whether nothing is left to do."""
    return all(step.state in {State.GREEN, State.LATER} for step in found)


def run(*, tenant: Tenant, actor: str, kind: str = "") -> list[Step]:
    """Look at one step, or at every one that is not green, and keep what was found; return all steps."""
    with scope.tenant(tenant.pk):
        green = set(Check.objects.filter(state=State.GREEN).values_list("kind", flat=True))
    for name in Kind:
        if kind == name or (not kind and name not in green):
            _keep(tenant, name, _look(tenant, name), actor)
    return steps(tenant=tenant)


def look_at_host(*, tenant: Tenant, host: str) -> list[tuple[Check.State, str]]:
    """Look whether a host leads here and has a good certificate; return how each stands, and that in words."""
    findings = [_domain_of(tenant, host)]
    if findings[0].state == State.GREEN:
        findings.append(_certificate_of(host))
    return [(finding.state, say(Check(word=finding.word, facts=finding.facts))) for finding in findings]


def look_at_program(program: MiniProgram) -> tuple[Check.State, str]:
    """Ask WeChat whether it takes a mini-program's app id and secret; return how it stands, and that in words."""
    finding = _program(program)
    return finding.state, say(Check(word=finding.word, facts=finding.facts))


def start_payment(*, tenant: Tenant, actor: str, address: str) -> trial_payment.Standing:
    """Begin the payment of ¥0.01; raise ProductError as `recharge.try_payment`."""
    standing = trial_payment.start(tenant=tenant, address=address)
    if standing.state == "none":
        _keep(tenant, Kind.PAYMENT, Finding(State.LATER, "payment_missing", {}), actor)
    else:
        _keep(tenant, Kind.PAYMENT, Finding(State.RED, "payment_open", {}), actor)
    return standing


def proof(*, tenant: Tenant, nonce: str) -> str:
    """Return what only this service can answer for this tenant."""
    return str(salted_hmac("lifecycle.checks.proof", f"{tenant.pk}:{nonce}", algorithm="sha256").hexdigest())


def _look(tenant: Tenant, kind: Check.Kind) -> Finding:
    with scope.tenant(tenant.pk):
        try:
            return _LOOKS[kind](tenant)
        except Exception:
            # One step that breaks must not hide the others, nor what is wrong from the log.
            log.exception("check_broke", kind=str(kind), tenant_slug=tenant.slug)
            return Finding(State.RED, "check_failed", {})


def _keep(tenant: Tenant, kind: Check.Kind, finding: Finding, actor: str) -> None:
    with scope.tenant(tenant.pk):
        Check.objects.update_or_create(
            tenant=tenant,
            kind=kind,
            defaults={
                "state": finding.state,
                "word": finding.word,
                "facts": finding.facts,
                "checked_at": timezone.now(),
                "checked_by": actor,
            },
        )


def _models(tenant: Tenant) -> Finding:
    offers = list(ModelOffer.objects.filter(is_enabled=True).order_by("-is_default", "pk"))
    if not offers or not offers[0].is_default:
        return Finding(State.RED, "no_default_model", {})
    for offer in offers:
        try:
            pricing.current_prices(tenant_id=tenant.pk, sku=offer.sku)
        except ProductError:
            return Finding(State.RED, "model_without_price", {"model": offer.name})
    for price, _floor in pricing.below_floor(tenant_id=tenant.pk):
        return Finding(State.RED, "price_below_floor", {"sku": price.sku})
    return Finding(State.GREEN, "models_ready", {"count": len(offers), "model": offers[0].name})


def _wallet(tenant: Tenant) -> Finding:
    balance = wallet.balance_of(tenant_id=tenant.pk)
    facts = {"yuan": show_yuan(balance)}
    if balance < LEAST_WALLET:
        return Finding(State.RED, "wallet_empty", facts)
    return Finding(State.GREEN, "wallet_filled", facts)


def _domain(tenant: Tenant) -> Finding:
    """Look for the proofs that are missing, then at every host: a name that is proven just now is among them."""
    looks = claims.look_at_waiting(tenant=tenant, actor="checklist", within=_DNS_SECONDS)
    finding = Finding(State.RED, "address_unknown", {"host": tenant.slug})
    for host in _hosts():
        finding = _domain_of(tenant, host)
        if finding.state != State.GREEN:
            return finding
    for look in looks:
        if not look.is_proven:
            return Finding(State.RED, look.word, look.facts)
    return finding


def _domain_of(tenant: Tenant, host: str) -> Finding:
    facts, nonce = {"host": host}, get_random_string(32)
    try:
        place = look_up(host)
    except ForbiddenAddressError:
        return Finding(State.RED, "address_private", facts)
    except OSError:
        return Finding(State.RED, "address_unknown", facts)
    try:
        with visit(place, "GET", f"{PROOF_PATH}?nonce={nonce}") as response:
            said = _some_of(response)
    except httpx.HTTPError as fault:
        if isinstance(fault.__cause__, ssl.SSLError) or "CERTIFICATE" in str(fault):
            # The name leads somewhere; what is wrong with its certificate is the next step's to say.
            return Finding(State.RED, "certificate_refused", {**facts, "why": _why(fault)})
        return Finding(State.RED, "address_silent", facts)
    if not constant_time_compare(_proof_in(said), proof(tenant=tenant, nonce=nonce)):
        return Finding(State.RED, "address_foreign", facts)
    return Finding(State.GREEN, "address_ours", facts)


def _certificate(_tenant: Tenant) -> Finding:
    finding = Finding(State.RED, "certificate_missing", {"host": ""})
    for host in _hosts():
        finding = _certificate_of(host)
        if finding.state != State.GREEN:
            break
    return finding


def _certificate_of(host: str) -> Finding:
    facts = {"host": host}
    try:
        place = look_up(host)
        if place.scheme != "https":
            return (
                Finding(State.GREEN, "certificate_local", facts)
                if place.is_local
                else Finding(State.RED, "certificate_missing", facts)
            )
        days = _days_left(place)
    except ForbiddenAddressError:
        return Finding(State.RED, "address_private", facts)
    except ssl.SSLError as fault:
        return Finding(State.RED, "certificate_refused", {**facts, "why": _why(fault)})
    except OSError:
        return Finding(State.RED, "address_silent", facts)
    if days < _CERTIFICATE_DAYS:
        return Finding(State.RED, "certificate_ends", {**facts, "days": days})
    return Finding(State.GREEN, "certificate_good", {**facts, "days": days})


def _days_left(place: Place) -> int:
    context = ssl.create_default_context()
    with (
        socket.create_connection((place.address, place.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=place.host) as sealed,
    ):
        shown: Any = sealed.getpeercert()
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    return (ends - timezone.now()).days


def _chat(tenant: Tenant) -> Finding:
    """Ask a question at the tenant's own host as a browser does, and wait for the first words of the answer."""
    host = next(iter(_hosts()), "")
    facts = {"host": host}
    trial_payment.afford(tenant=tenant, amount=_PURSE)
    token = issue_token(user=trial_payment.tester(tenant), label="checklist", days=1)
    try:
        with visit(
            look_up(host),
            "POST",
            CHAT_PATH,
            json={"message": _QUESTION},
            headers={"Authorization": f"Bearer {token}", "Accept-Language": tenant.language},
        ) as response:
            return _first_words(response, facts)
    except (httpx.HTTPError, OSError) as fault:
        log.info("checklist_chat_silent", tenant_slug=tenant.slug, fault=type(fault).__name__)
        return Finding(State.RED, "chat_silent", facts)
    finally:
        revoke_token(tenant_id=tenant.pk, token=token)


def _first_words(response: httpx.Response, facts: dict[str, Any]) -> Finding:
    said = b""
    for piece in response.iter_raw():
        said += piece
        for refused, data in _DATA.findall(said):
            if refused:
                return Finding(State.RED, "chat_refused", {**facts, "why": _message_in(data)})
            if _content_in(data):
                return Finding(State.GREEN, "chat_streams", facts)
        if len(said) > _READ_BYTES:
            break
    return Finding(State.RED, "chat_silent", facts)


def _staff(_tenant: Tenant) -> Finding:
    members = Membership.objects.filter(role=Membership.Role.OWNER, staff__is_active=True).select_related("staff")
    if member := members.first():
        return Finding(State.GREEN, "staff_in", {"name": member.staff.get_username()})
    if open_one := invitations.latest_open():
        until = f"{timezone.localtime(open_one.expires_at):%Y-%m-%d %H:%M}"
        return Finding(State.RED, "staff_invited", {"until": until})
    return Finding(State.RED, "staff_missing", {})


def _mini_program(_tenant: Tenant) -> Finding:
    finding = Finding(State.LATER, "mini_program_missing", {})
    for program in MiniProgram.objects.order_by("pk"):
        finding = _program(program)
        if finding.state != State.GREEN:
            break
    return finding


def _program(program: MiniProgram) -> Finding:
    facts: dict[str, Any] = {"app_id": program.app_id}
    try:
        try_secret(program, client_for(settings.WECHAT_API_URL))
    except WeChatRefusedError as refusal:
        word = _WECHAT_WORDS.get(refusal.code, "mini_program_refused")
        return Finding(State.RED, word, {**facts, "code": refusal.code})
    except WeChatAwayError:
        return Finding(State.RED, "mini_program_away", facts)
    return Finding(State.GREEN, "mini_program_good", facts)


def _merchant(_tenant: Tenant) -> Finding:
    finding = Finding(State.LATER, "merchant_missing", {})
    for account in MerchantAccount.objects.filter(is_enabled=True).order_by("pk"):
        facts = {"account": f"{account.channel} {account.merchant_id}"}
        try:
            try_settings(account)
        except ProviderRefusedError as refusal:
            return Finding(State.RED, "merchant_refused", {**facts, "code": refusal.code})
        except PaymentError:
            return Finding(State.RED, "merchant_away", facts)
        finding = Finding(State.GREEN, "merchant_good", facts)
    return finding


def _payment(tenant: Tenant) -> Finding:
    """Look how the payment that a person began stands; nothing is begun here."""
    standing = trial_payment.go_on(tenant=tenant)
    match standing.state:
        case "returned":
            return Finding(State.GREEN, "payment_returned", {})
        case "none" if not trial_payment.is_possible(tenant_id=tenant.pk):
            return Finding(State.LATER, "payment_missing", {})
        case "none":
            return Finding(State.RED, "payment_start", {})
        case state:
            return Finding(State.RED, f"payment_{state}", {})


_LOOKS: Final[dict[Check.Kind, Callable[[Tenant], Finding]]] = {
    Kind.MODELS: _models,
    Kind.WALLET: _wallet,
    Kind.DOMAIN: _domain,
    Kind.CERTIFICATE: _certificate,
    Kind.CHAT: _chat,
    Kind.STAFF: _staff,
    Kind.MINI_PROGRAM: _mini_program,
    Kind.MERCHANT: _merchant,
    Kind.PAYMENT: _payment,
}


def _hosts() -> list[str]:
    return list(Domain.objects.order_by("pk").values_list("host", flat=True))


def _some_of(response: httpx.Response) -> bytes:
    """Read a bounded part of a body that somebody else may have written."""
    said = b""
    for piece in response.iter_raw():
        said += piece
        if len(said) > _READ_BYTES:
            break
    return said[:_READ_BYTES]


def _read(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _proof_in(said: bytes) -> str:
    match _read(said):
        case {"data": {"proof": str(found)}}:
            return found
        case _:
            return ""


def _message_in(data: bytes) -> str:
    match _read(data):
        case {"msg": str(found)}:
            return found
        case _:
            return "?"


def _content_in(data: bytes) -> bool:
    match _read(data):
        case {"choices": [{"delta": dict(delta)}, *_]}:
            return bool(delta.get("content") or delta.get("reasoning_content"))
        case _:
            return False


def _why(fault: Exception) -> str:
    """Return OpenSSL's reason, without the addresses and line numbers around it."""
    found = re.search(
        r"(self.signed certificate|certificate has expired|[Hh]ostname mismatch|unable to get [a-z ]+)", str(fault)
    )
    return found[0] if found else "TLS"

"""Domains that a tenant enters by itself: what is refused, what DNS must say, and the moment it does.

fit       what a tenant may call its own at all, and `free`: what nobody has
claim     keep a name as one to be proven; it serves nothing
records   what to set, either of which is the proof
look      ask DNS now; a name that is proven becomes the tenant's domain
look_at_waiting  the same for all of a tenant's, in a time that a page can wait
sweep     look at those that were entered lately; beat's part

Only who may change a name's zone can set either record, and each names this one tenant: the CNAME its own subdomain of
the operator, the text a word that nobody else is shown. That the name leads here would prove nothing, since it does so
for whoever claims it. DNS is asked outside of transactions.
"""

import ipaddress
import time
from collections.abc import Iterable
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from publicsuffixlist import PublicSuffixList

from billing import notices
from lifecycle import history
from lifecycle.addresses import address_of, is_ours, own_host, spoken, typed_host
from lifecycle.models import DomainClaim, TenantEvent
from lifecycle.records import DnsAwayError, NoTimeLeftError, cname_of, texts_of
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import Branding, Domain, Notice, Tenant
from tenants.resolve import forget

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

# Names that a tenant may have waiting at once: each is a question to somebody else's name servers every few minutes.
MOST: Final = 10
PREFIX: Final = "_banyan"
_MARK: Final = "banyan-domain="
# A name with the prefix before it must be one, too.
_LONGEST: Final = 240
_SWEEP_MOST: Final = 40
_LONGEST_AGO: Final = (F("checked_at").asc(nulls_first=True), "pk")
_SHOWN: Final = 120  # characters of what somebody else's DNS says

PROVEN: Final = "claim_proven"
WORDS: Final[dict[str, "_StrOrPromise"]] = {
    PROVEN: _("%(host)s is proven, and leads to this service as soon as its DNS record does."),
    "claim_waits": _(
        "%(host)s is not proven yet. Set a CNAME to %(target)s, or a TXT record at %(name)s with the text %(text)s."
    ),
    "claim_text_waits": _("%(host)s is not proven yet. Set a TXT record at %(name)s with the text %(text)s."),
    "claim_elsewhere": _("The CNAME of %(host)s leads to %(found)s. Set it to %(target)s."),
    "claim_other_text": _("The text at %(name)s is another one. Set it to %(text)s."),
    "claim_dns_away": _("The name servers of %(host)s do not answer just now. Look again in a minute."),
    "claim_not_looked": _(
        "%(host)s was not looked up yet: its name servers take long. It is looked at again within minutes."
    ),
    "claim_taken": _("%(host)s is in use by somebody else already. Please ask who runs the platform."),
}


class Record(NamedTuple):
    """A DNS record to set: its kind, its name, and what it holds."""

    kind: str
    name: str
    value: str


class Look(NamedTuple):
    """What DNS said of a name, in a word of WORDS and its facts."""

    word: str
    facts: dict[str, Any]

    @property
    def is_proven(self) -> bool:
        """Whether the name is the tenant's domain now."""
        return self.word == PROVEN

    def __str__(self) -> str:
        return str(WORDS[self.word]) % self.facts


def fit(typed: str) -> str:
    """Return the host name that was typed, fit to be a tenant's own.

    Raises ProductError INVALID "domain_unfit" with what is wrong in words.
    """
    try:
        host = typed_host(typed)
    except ValidationError as wrong:
        raise _unfit(" ".join(wrong.messages)) from None
    if not host or len(host) > _LONGEST or _is_address(host):
        raise _unfit(_("A host name such as chat.example.com is wanted, no address in numbers."))
    if is_ours(host):
        raise _unfit(_("This name is the platform's own. Please choose another."))
    if not _suffixes().privatesuffix(host):
        raise _unfit(
            _("“%(host)s” is no name that somebody can own: it needs a public ending and a name before it."), host
        )
    return host


def free(typed: str) -> str:
    """Return the host name that was typed, as `fit`, if nobody has it; in the tenant's scope. Raises the same."""
    host = fit(typed)
    if Domain.objects.filter(host=host).exists():
        raise _unfit(_("%(host)s is among your domains already."), host)
    # Within one's own scope another's row is not seen.
    if Tenant.objects.filter(domains__host=host).exists():
        raise _unfit(WORDS["claim_taken"], host)
    return host


def claim(*, tenant: Tenant, typed: str, actor: str) -> DomainClaim:
    """Keep a name as one to be proven; the same one again is the same claim, watched anew.

    Raises ProductError INVALID "domain_unfit", QUOTA "domain_claims_limit".
    """
    with scope.tenant(tenant.pk), transaction.atomic():
        Branding.objects.select_for_update(no_key=True).filter(tenant=tenant).first()  # one claims at a time
        host = free(typed)
        used = DomainClaim.objects.exclude(host=host).count()
        if used >= MOST:
            raise ProductError(
                ErrorCode.QUOTA,
                _("%(used)d domains wait for their proof. Prove or delete some of them first.") % {"used": used},
                type="domain_claims_limit",
                scope="tenant",
                action="prove",
                reset_at=None,
                used=used,
                limit=MOST,
            )
        kept, _made = DomainClaim.objects.update_or_create(
            tenant=tenant,
            host=host,
            defaults={"watched_until": _watched_until()},
            create_defaults={"claimed_by": actor, "watched_until": _watched_until()},
        )
    log.info("domain_claimed", tenant_slug=tenant.slug, host=host, actor=actor)
    return kept


def records(row: DomainClaim) -> list[Record]:
    """Return the records of which one is wanted; the first also leads the name here, where a CNAME may stand."""
    text = Record("TXT", f"{PREFIX}.{row.host}", _text(row))
    target = target_of(row.tenant)
    # The name of a zone itself has other records, which a CNAME tolerates none of.
    if not target or _suffixes().privatesuffix(row.host) == row.host:
        return [text]
    return [Record("CNAME", row.host, target), text]


def target_of(tenant: Tenant) -> str:
    """Return the subdomain of the operator that a tenant has by its slug; empty if it has that no more.

    Not another one that it was given: who had that before may still be led to. A slug is one tenant's for ever, also
    that of a deleted one.
    """
    host = own_host(tenant.slug)
    with scope.tenant(tenant.pk):
        return host if Domain.objects.filter(host=host).exists() else ""


def look(row: DomainClaim, *, actor: str, until: float | None = None) -> Look:
    """Ask DNS whether a name is proven, and keep what it said; a proven one becomes the tenant's domain.

    Not within a transaction: name servers may take seconds. `until`: when, on the monotonic clock, to wait no longer.
    """
    found = _ask(row, until)
    if found.is_proven:
        found = _take(row, actor)
    if not found.is_proven:
        with scope.tenant(row.tenant_id):
            kept = {name: fact for name, fact in found.facts.items() if name == "found"}
            DomainClaim.objects.filter(pk=row.pk).update(
                word=found.word, facts=kept, checked_at=timezone.now(), watched_until=row.watched_until
            )
    log.info("domain_claim_checked", host=row.host, tenant_id=row.tenant_id, found=found.word, actor=actor)
    return found


def look_again(row: DomainClaim, *, actor: str) -> Look:
    """Look, since a person asks; by itself it is looked at for as long again."""
    row.watched_until = _watched_until()
    return look(row, actor=actor)


def look_at_waiting(*, tenant: Tenant, actor: str, within: float) -> list[Look]:
    """Look at all of a tenant's names that wait, those first that were not looked at for longest.

    DNS is waited for `within` so many seconds, in all; what then is left is beat's to look at.
    """
    until = time.monotonic() + within
    with scope.tenant(tenant.pk):
        DomainClaim.objects.update(watched_until=_watched_until())
        rows = list(DomainClaim.objects.select_related("tenant").order_by(*_LONGEST_AGO))
    found = []
    for row in rows:
        is_time = time.monotonic() < until
        found.append(look(row, actor=actor, until=until) if is_time else Look("claim_not_looked", _facts(row)))
    return found


def sweep() -> int:
    """Look at the claims that are watched, those first that were not looked at for longest; return how many hold.

    Whoever is told is told of proofs alone: what is missing stands on the page.
    """
    with scope.platform("claims of every tenant"):
        waiting = list(
            DomainClaim.objects.filter(watched_until__gt=timezone.now())
            .exclude(tenant__status=Tenant.Status.CLOSED)
            .select_related("tenant")
            .order_by(*_LONGEST_AGO)[:_SWEEP_MOST]
        )
    proven = [row for row in waiting if look(row, actor="beat").is_proven]
    for row in proven:
        with scope.tenant(row.tenant_id):
            notices.tell(kind=Notice.Kind.DOMAIN, tenant=row.tenant, write=partial(_proven, row))
    return len(proven)


def waiting(*, tenant: Tenant) -> list[DomainClaim]:
    """Return a tenant's names that are not proven yet, the oldest first."""
    with scope.tenant(tenant.pk):
        return list(DomainClaim.objects.select_related("tenant").order_by("pk"))


def said(row: DomainClaim) -> str:
    """Say what is wanted, or was found last, in the reader's language."""
    # What is to be set is said as it is now; kept is what DNS said.
    return str(Look(row.word, {**row.facts, **_facts(row)})) if row.word in WORDS else str(Look(*_waits(row)))


def _unfit(words: "_StrOrPromise", host: str = "") -> ProductError:
    told = str(words) % {"host": spoken(host)} if host else str(words)
    return ProductError(ErrorCode.INVALID, told, type="domain_unfit")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.rpartition(".")[2].isdigit()
    return True


@cache
def _suffixes() -> PublicSuffixList:
    """Return the list of names under which anybody may register one; what is on no list is no public name."""
    return PublicSuffixList(accept_unknown=False)


def _watched_until() -> Any:
    return timezone.now() + timedelta(hours=settings.DOMAIN_CLAIM_HOURS)


def _text(row: DomainClaim) -> str:
    """Return the text that proves the name for this tenant, and for no other."""
    word = salted_hmac("lifecycle.claims", f"{row.tenant_id}:{row.host}", algorithm="sha256").hexdigest()
    return f"{_MARK}{word[:40]}"


def _facts(row: DomainClaim, **more: str) -> dict[str, Any]:
    text = Record("TXT", f"{PREFIX}.{row.host}", _text(row))
    return {"host": row.host, "name": text.name, "text": text.value, "target": target_of(row.tenant), **more}


def _waits(row: DomainClaim) -> Look:
    word = "claim_waits" if records(row)[0].kind == "CNAME" else "claim_text_waits"
    return Look(word, _facts(row))


def _ask(row: DomainClaim, until: float | None) -> Look:
    wanted = {record.kind: record for record in records(row)}
    try:
        led = cname_of(row.host, until=until) if "CNAME" in wanted else ""
        if led and led == wanted["CNAME"].value:
            return Look(PROVEN, _facts(row))
        texts = [text.strip() for text in texts_of(wanted["TXT"].name, until=until)]
    except NoTimeLeftError:
        return Look("claim_not_looked", _facts(row))
    except DnsAwayError:
        return Look("claim_dns_away", _facts(row))
    if wanted["TXT"].value in texts:
        return Look(PROVEN, _facts(row))
    if any(text.startswith(_MARK) for text in texts):
        return Look("claim_other_text", _facts(row))
    return Look("claim_elsewhere", _facts(row, found=led[:_SHOWN])) if led else _waits(row)


def _take(row: DomainClaim, actor: str) -> Look:
    """Make a proven name the tenant's domain, once: whoever proved it at the same time finds it there."""
    with scope.tenant(row.tenant_id):
        try:
            with transaction.atomic():
                kept = DomainClaim.objects.select_for_update().filter(pk=row.pk)
                if kept.first() is None:
                    # Proven at the same moment by another look, or withdrawn.
                    is_there = Domain.objects.filter(host=row.host).exists()
                    return Look(PROVEN if is_there else "claim_waits", _facts(row))
                Domain.objects.create(tenant=row.tenant, host=row.host)
                kept.delete()
                history.record(tenant=row.tenant, kind=TenantEvent.Kind.DOMAIN_PROVEN, actor=actor, host=row.host)
                transaction.on_commit(forget)
        except IntegrityError:
            return Look("claim_taken", _facts(row))
    return Look(PROVEN, _facts(row))


def _proven(row: DomainClaim) -> Letter:
    facts = {"host": spoken(row.host), "url": f"{address_of(row.host)}/"}
    return Letter(
        gettext("%(host)s is proven") % facts,
        gettext("DNS says that %(host)s is yours. Your service answers at %(url)s as soon as the name leads to it.")
        % facts,
    )


def say_all(rows: Iterable[DomainClaim]) -> list[dict[str, Any]]:
    """Return claims as a page or a program shows them."""
    return [
        {"host": row.host, "text": said(row), "records": [record._asdict() for record in records(row)]} for row in rows
    ]

"""The nightly audit: run, kept as a row, and told to the operator where something is wrong.

In this order, each committed before the next: what was found must not be lost to a mail server that is away.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import structlog
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from billing import audit, notices
from billing.audit import Breach, Result
from billing.models import AuditRun
from tenants import noticeboard, scope
from tenants.letters import Letter
from tenants.models import Notice

log = structlog.get_logger(__name__)


def run() -> AuditRun:
    """Audit the whole ledger and keep what was found; log breaches as errors and mail them to `ALERT_EMAILS`."""
    kept = AuditRun.objects.create()
    results = audit.audit()
    AuditRun.objects.filter(pk=kept.pk).update(
        ended_at=Now(),
        breaches=sum(result.breaches for result in results),
        checked=[
            {"invariant": result.check.invariant, "rows": result.rows, "breaches": result.breaches}
            for result in results
        ],
        details=[_as_json(breach) for breach in audit.breaches_of(results)],
    )
    kept.refresh_from_db()
    broken = [result for result in results if result.breaches]
    for result in broken:
        log.error(
            "ledger_broken",
            run=kept.pk,
            invariant=result.check.invariant,
            breaches=result.breaches,
            rows=[_as_json(breach) for breach in result.shown],
        )
    if broken:
        notices.alert(write=partial(_found, kept, broken), run=kept.pk)
        with scope.platform("a notice to the operator"):
            noticeboard.put_up(
                kind=Notice.Kind.FAILURE, texts=noticeboard.in_every_language(partial(_found, kept, broken))
            )
    else:
        log.info("ledger_audited", run=kept.pk, rows=sum(result.rows for result in results))
    return kept


def _as_json(breach: Breach) -> dict[str, Any]:
    return {"invariant": breach.invariant, "tenant": breach.tenant, "row": breach.row, "found": breach.found}


def _found(kept: AuditRun, broken: Iterable[Result]) -> Letter:
    subject = ngettext(
        "The ledger's audit found %(count)d breach", "The ledger's audit found %(count)d breaches", kept.breaches
    )
    return Letter(subject % {"count": kept.breaches}, "\n".join(_lines(kept, broken)))


def _lines(kept: AuditRun, broken: Iterable[Result]) -> Iterator[str]:
    yield _("Audit %(run)d of the ledger, %(time)s: these rows break what must always be true.") % {
        "run": kept.pk,
        "time": f"{timezone.localtime(kept.ended_at):%Y-%m-%d %H:%M %Z}",
    }
    platform = _("platform")
    for result in broken:
        yield ""
        yield f"{result.check.invariant} · {result.check.meaning}"
        yield from (f"  {breach.tenant or platform}: {breach.row}: {breach.found}" for breach in result.shown)
        if rest := result.breaches - len(result.shown):
            yield "  " + _("… and %(count)d more") % {"count": rest}
    yield ""
    yield _("`manage.py audit_ledger` checks again. docs/money.md says what each of these means.")

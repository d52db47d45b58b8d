"""A tenant's terms and privacy policy: its own words, or ours with its name filled in, so that none is without.

    current     what stands on a page now, in a language
    publish     a new version of a tenant's own; earlier ones stay
    blocks      a text cut into headings, paragraphs and lists, for a page

Each within the tenant's scope.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from string import Template
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Max
from django.utils import translation
from django.utils.translation import gettext as _

from tenants.compliance import compliance_of, service_name
from tenants.models import LegalText, Tenant

# When our own texts were changed last, and how often they were.
OURS_CHANGED_ON: Final = date(2026, 11, 26)
_FOLDER: Final = Path(__file__).parent / "legal_texts"
LANGUAGES: Final = ("zh-hans", "en")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A text as it stands on a page. `version` is 0 where it is ours."""

    kind: str
    language: str
    body: str
    version: int
    changed_on: date


class Block(NamedTuple):
    """A piece of a text: "heading", "paragraph" with one line, or "list" with its entries."""

    kind: str
    lines: list[str]


def current(*, tenant: Tenant, kind: str, language: str) -> Shown:
    """Return what stands on a page now: the tenant's own text in that language, or else in the other, or ours."""
    own = LegalText.objects.filter(kind=kind).order_by("-version")
    # Our words beside its own in another language might say something else.
    row = own.filter(language=language).first() or own.first()
    if row is None:
        return Shown(
            kind=kind,
            language=language,
            body=our_text(tenant=tenant, kind=kind, language=language),
            version=0,
            changed_on=OURS_CHANGED_ON,
        )
    changed_on = row.created_at.astimezone(ZoneInfo(tenant.timezone)).date()
    return Shown(kind=kind, language=row.language, body=row.body, version=row.version, changed_on=changed_on)


def our_text(*, tenant: Tenant, kind: str, language: str) -> str:
    """Return our own text, with what is known of the tenant filled in."""
    compliance, name = compliance_of(tenant), service_name(tenant)
    with translation.override(language):
        contact = compliance.contact or _("the feedback within the service")
    return _template(kind, language).substitute(name=name, company=compliance.company or name, contact=contact)


@transaction.atomic
def publish(*, tenant: Tenant, kind: str, language: str, body: str, actor: str) -> LegalText:
    """Publish a new version of a tenant's own text. Two at once come one after the other."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    versions = LegalText.objects.filter(kind=kind, language=language)
    last = versions.aggregate(last=Max("version"))["last"] or 0
    return LegalText.objects.create(
        tenant=tenant, kind=kind, language=language, version=last + 1, body=body, created_by=actor
    )


def blocks(body: str) -> Iterator[Block]:
    """Cut a text into pieces; whatever it holds is text, and no markup but headings and lists."""
    for piece in body.replace("\r\n", "\n").split("\n\n"):
        lines = [line.strip() for line in piece.split("\n") if line.strip()]
        if not lines:
            continue
        if lines[0].startswith("# "):
            yield Block("heading", [lines[0].removeprefix("# ")])
            lines = lines[1:]
        yield from _listed(lines)


def _listed(lines: list[str]) -> Iterator[Block]:
    entries: list[str] = []
    for line in lines:
        if line.startswith("- "):
            entries.append(line.removeprefix("- "))
            continue
        if entries:
            yield Block("list", entries)
            entries = []
        yield Block("paragraph", [line])
    if entries:
        yield Block("list", entries)


@cache
def _template(kind: str, language: str) -> Template:
    return Template((_FOLDER / f"{kind}.{language}.txt").read_text("utf-8").strip())

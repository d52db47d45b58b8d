"""The JSON API of what the tenant lays out for its users: assistants by category, and announcements."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Schema
from pydantic import Field

from chat.models import Announcement, AnnouncementRead, PlatformAnnouncement, Role, RoleCategory
from chat.refusals import announcement_not_found
from tenants.api import Envelope, Text, ok, signed_in, user_of
from tenants.models import EndUser

router = Router(tags=["assistants"], auth=signed_in)

# Announcements of either side that are told at a time.
LATEST = 20


class CategoryOut(Schema):
    """A shelf of assistants."""

    slug: str
    name: str


class RoleOut(Schema):
    """An assistant as its user sees it; its instructions are between the tenant and the model."""

    slug: str
    name: str
    category: CategoryOut | None
    description: str
    avatar_url: str
    opening: str
    suggestions: list[str]
    is_default: bool

    @staticmethod
    def resolve_suggestions(row: Role) -> list[str]:
        """Return the suggested questions, one a line in the row."""
        return [line.strip() for line in row.suggestions.splitlines() if line.strip()]


class AnnouncementOut(Schema):
    """An announcement: `id` names whose it is, too."""

    id: str
    source: Literal["tenant", "platform"]
    title: str
    body: str
    starts_at: datetime
    ends_at: datetime | None
    is_read: bool


@router.get("/roles", response=Envelope[list[RoleOut]])
def roles(
    request: HttpRequest,  # noqa: ARG001  # ninja's first
    category: Annotated[Text, Field(max_length=64)] = "",
    q: Annotated[Text, Field(max_length=80)] = "",
) -> Any:
    """Return the assistants that a chat may name, in the tenant's order; of a category, or with `q` in their names."""
    rows = Role.objects.filter(is_enabled=True).select_related("category").order_by("position", "name", "pk")
    if category:
        rows = rows.filter(category__slug=category)
    if q:
        rows = rows.filter(Q(name__icontains=q) | Q(description__icontains=q))
    return ok(list(rows))


@router.get("/roles/categories", response=Envelope[list[CategoryOut]])
def categories(request: HttpRequest) -> Any:  # noqa: ARG001  # ninja's first
    """Return the categories that have assistants, in the tenant's order."""
    used = Role.objects.filter(category=OuterRef("pk"), is_enabled=True)
    return ok(list(RoleCategory.objects.filter(Exists(used)).order_by("position", "name", "pk")))


@router.get("/announcements", response=Envelope[list[AnnouncementOut]])
def announcements(request: HttpRequest, unread: bool = False) -> Any:  # noqa: FBT001, FBT002  # a parameter of the query
    """Return what users are told now by the platform and the tenant, the latest first; `unread` leaves out the rest."""
    user = user_of(request)
    told = [
        *((row, "platform") for row in _told(PlatformAnnouncement.objects.all(), user, "platform_announcement")),
        *((row, "tenant") for row in _told(Announcement.objects.all(), user, "announcement")),
    ]
    told.sort(key=lambda pair: (pair[0].starts_at, pair[0].pk), reverse=True)
    return ok([_shown(row, source) for row, source in told if not (unread and row.is_read)])


@router.post("/announcements/{announcement_id}/read", response=Envelope[None])
def read(request: HttpRequest, announcement_id: str) -> Any:
    """Note that the user has read an announcement; once is enough."""
    user = user_of(request)
    source, _dash, number = announcement_id.partition("-")
    if source not in {"tenant", "platform"} or not number.isdecimal() or len(number) > 18:  # noqa: PLR2004  # of a bigint
        raise announcement_not_found()
    key = "announcement" if source == "tenant" else "platform_announcement"
    rows: QuerySet[Any] = Announcement.objects.all() if source == "tenant" else PlatformAnnouncement.objects.all()
    found = _current(rows).filter(pk=int(number)).first()
    if found is None:
        raise announcement_not_found()
    mark = AnnouncementRead(tenant_id=user.tenant_id, user=user, **{key: found})
    AnnouncementRead.objects.bulk_create([mark], ignore_conflicts=True)
    return ok()


def _current(rows: QuerySet[Any]) -> QuerySet[Any]:
    now = timezone.now()
    return rows.filter(Q(ends_at__isnull=True) | Q(ends_at__gt=now), is_enabled=True, starts_at__lte=now)


def _told(rows: QuerySet[Any], user: EndUser, key: str) -> QuerySet[Any]:
    reads = AnnouncementRead.objects.filter(user=user, **{key: OuterRef("pk")})
    told: QuerySet[Any] = _current(rows).annotate(is_read=Exists(reads)).order_by("-starts_at", "-pk")
    return told[:LATEST]


def _shown(row: Any, source: str) -> dict[str, Any]:
    names = ("title", "body", "starts_at", "ends_at", "is_read")
    return {"id": f"{source}-{row.pk}", "source": source, **{name: getattr(row, name) for name in names}}

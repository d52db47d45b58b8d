"""Sessions of staff: which there are, since when and from where; each may be ended from another.

attend      keeps who is here, and says whether the session may go on
open_ones   a staff user's sessions that go on
end         ends one, or all but one
"""

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from tenants.models import StaffSession, StaffUser

_KEY: Final = "staff_session"
_SEEN_SECONDS: Final = 60
_BROWSERS: Final = (
    ("MicroMessenger", "WeChat"),
    ("Edg", "Edge"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


def attend(request: HttpRequest, staff: StaffUser) -> bool:
    """Keep that `staff` is here; False, and the session is over, where it was ended from elsewhere.

    One query for most requests; the moment is written once a minute.
    """
    number = request.session.get(_KEY)
    if number is None:
        request.session[_KEY] = _begin(request, staff).pk
        return True
    row = StaffSession.objects.filter(pk=number, staff=staff, ended_at=None).first()
    if row is None:
        request.session.flush()
        return False
    if (timezone.now() - row.seen_at).total_seconds() > _SEEN_SECONDS:
        StaffSession.objects.filter(pk=number).update(seen_at=timezone.now(), address=_address_of(request))
    return True


def number_of(request: HttpRequest) -> int:
    """Return the number of the request's own session, 0 where it has none yet."""
    return int(request.session.get(_KEY, 0))


def open_ones(staff: StaffUser) -> QuerySet[StaffSession]:
    """Return the sessions that go on, the latest first."""
    oldest = timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    return StaffSession.objects.filter(staff=staff, ended_at=None, created_at__gt=oldest).order_by("-seen_at")


def end(staff: StaffUser, *, number: int | None = None, but: int | None = None) -> int:
    """End a staff user's session of this number, or all, or all but one; return how many ended."""
    rows = StaffSession.objects.filter(staff=staff, ended_at=None)
    rows = rows if number is None else rows.filter(pk=number)
    rows = rows if but is None else rows.exclude(pk=but)
    return rows.update(ended_at=timezone.now())


def _begin(request: HttpRequest, staff: StaffUser) -> StaffSession:
    return StaffSession.objects.create(
        staff=staff,
        host=request.get_host()[:253],
        address=_address_of(request),
        device=device_of(request.headers.get("User-Agent", "")),
    )


def device_of(agent: str) -> str:
    """Return what a person calls the device: browser and system."""
    found = [next((name for mark, name in names if mark in agent), "") for names in (_BROWSERS, _SYSTEMS)]
    return " · ".join(name for name in found if name) or agent[:80]


def _address_of(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))[:64]

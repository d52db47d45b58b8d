"""The portal's navigation: a place that has no address (yet) is left out."""

from typing import TYPE_CHECKING, Final, NamedTuple

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


class Entry(NamedTuple):
    """A link in the navigation; `icon` is a name of Material Symbols."""

    label: "_StrPromise"
    icon: str
    url: str
    is_current: bool


_PLACES: Final = (
    ("portal:home", _("Home"), "home"),
    ("portal:tenants", _("Tenants"), "storefront"),
    ("portal:open_tenant", _("Open a tenant"), "add_business"),
    ("portal:wallet", _("Wallet"), "account_balance_wallet"),
    ("portal:commissions", _("Commissions"), "savings"),
    ("portal:withdrawals", _("Withdrawals"), "payments"),
    ("portal:prices", _("Prices"), "sell"),
    ("portal:statements", _("Statements"), "description"),
    ("portal:resellers", _("Sub-resellers"), "groups"),
)


# One's own pages, reached beside one's name.
_NOWHERE: Final = ("portal:security", "portal:notices")
# A reseller of the second level has nobody below it.
_FIRST_LEVEL_ONLY: Final = frozenset({"portal:resellers"})


def navigation(path: str, *, is_first_level: bool) -> list[Entry]:
    """Return the links of a page at `path`; the longest address that it begins with is where one is, if any."""
    places = [place for place in _PLACES if is_first_level or place[0] not in _FIRST_LEVEL_ONLY]
    known = [(_url(name), label, icon) for name, label, icon in places]
    found = (url for url, _label, _icon in known if url and path.startswith(url))
    current = "" if path in {_url(name) for name in _NOWHERE} else max(found, key=len, default="")
    return [Entry(label, icon, url, url == current) for url, label, icon in known if url]


def _url(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""

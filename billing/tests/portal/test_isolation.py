"""Nobody sees another reseller's, through no address of the portal: the addresses come from the URL configuration.

A new page is tried by being there; one whose address names something has to say here what is another's of its kind.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from billing import audit
from billing.models import Account, CommissionTerms, PriceVersion, Transfer, WalletNotice, WalletTopUp, Withdrawal
from billing.tests.conftest import open_shop
from billing.tests.portal.trade import Trade, answer, browser, free, make_statement, page
from lifecycle.models import Opening
from tenants import scope
from tenants.models import Reseller, StaffUser, Tenant
from tests.factories import host_of, make_operator, make_reseller, make_staff, make_terms


def drafted(trade: Trade) -> object:
    """Return the number of an opening that the reseller has begun."""
    answers = {"name": {"name": trade.payee}}
    return Opening.objects.get_or_create(reseller=trade.reseller, key="draft", defaults={"answers": answers})[0].pk


# Anybody may look at these.
PUBLIC: Final = frozenset(
    {"log_in", "log_out", "second_factor", "forgot", "reset", "sign_up", "confirm", "terms", "invitation"}
)
# What another reseller's object is called in an address.
NAMES: Final[dict[str, Callable[[Trade], list[object]]]] = {
    "tenant": lambda trade: [trade.own.tenant.slug],
    "allot": lambda trade: [trade.own.tenant.slug],
    "price": lambda trade: [trade.own.tenant.slug],
    "statement": lambda trade: [trade.statement.pk],
    "reseller": lambda trade: [trade.child.slug],
    "opening_step": lambda trade: [drafted(trade), "brand"],
    "checklist": lambda trade: [trade.own.tenant.slug],
}


def patterns() -> dict[str, URLPattern]:
    """Return every address of the portal by its name."""
    (portal,) = (
        each for each in get_resolver().url_patterns if isinstance(each, URLResolver) and each.namespace == "portal"
    )
    found = [each for each in portal.url_patterns if isinstance(each, URLPattern)]
    assert len(found) == len(portal.url_patterns)
    return {str(each.name): each for each in found}


PAGES: Final = sorted(set(patterns()) - PUBLIC)
LISTS: Final = [name for name in PAGES if not patterns()[name].pattern.converters]
NAMED: Final = [name for name in PAGES if patterns()[name].pattern.converters]


def test_every_address_that_names_something_is_tried() -> None:
    assert sorted(NAMES) == NAMED


@pytest.mark.parametrize("name", LISTS)
def test_no_page_filter_or_file_shows_anothers(trade: Trade, other: Trade, name: str) -> None:
    client, theirs = browser(trade.reseller), other
    secrets = [*theirs.secrets, theirs.reseller.name, theirs.own.tenant.name, str(theirs.withdrawal.pk)]
    for asked in (
        {},
        {"format": "csv"},
        {"days": "90", "page": "1"},
        {"state": "released"},
        {"tenant": str(theirs.own.tenant.pk)},
        {"reseller": str(theirs.reseller.pk), "staff": "1"},
    ):
        body = client.get(page(name), asked).content.decode()
        assert [secret for secret in secrets if secret in body] == []


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("file", ["", "csv"])
def test_asking_for_anothers_tenant_shows_nothing_of_it(trade: Trade, other: Trade, name: str, file: str) -> None:
    """The slug that was asked for may be said back; its name, its rows and its figures may not."""
    client, theirs = browser(trade.reseller), other.own
    body = client.get(page(name), {"tenant": theirs.tenant.slug, "sku": theirs.sku, "format": file}).content.decode()
    assert (theirs.tenant.name in body, f">{theirs.tenant.slug}<" in body) == (False, False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["", "csv"])
def test_anothers_object_is_not_there(trade: Trade, other: Trade, name: str, file: str) -> None:
    theirs, mine = page(name, *NAMES[name](other)), page(name, *NAMES[name](trade))
    client = browser(trade.reseller)
    missing = {client.get(theirs, {"format": file}).status_code, client.post(theirs, {"format": file}).status_code}
    # Some take no GET, and say so to everybody.
    assert missing <= {404, 405}
    assert 404 in missing or client.get(mine).status_code == 405
    answers = {client.get(mine).status_code, client.post(mine, {}).status_code}
    assert answers <= {200, 302, 405}


@pytest.mark.parametrize("name", ["tenant", "allot", "price", "statement"])
def test_a_parent_opens_no_page_of_its_childs(trade: Trade, name: str) -> None:
    theirs: object = make_statement(trade.child).pk if name == "statement" else trade.below.tenant.slug
    url = page(name, theirs)
    assert {browser(trade.reseller).get(url).status_code, browser(trade.reseller).post(url).status_code} <= {404, 405}
    if name == "tenant":
        assert browser(trade.child).get(url).status_code == 200


@pytest.mark.parametrize("name", LISTS)
def test_a_child_sees_nothing_of_its_parent(trade: Trade, name: str) -> None:
    sibling = make_reseller(parent=trade.reseller)
    shop = open_shop(reseller=sibling)
    hidden = [trade.reseller.slug, trade.own.tenant.slug, trade.payee, trade.top_up.bank_reference, sibling.slug]
    client = browser(trade.child)
    for asked in ({}, {"format": "csv"}):
        body = client.get(page(name), asked).content.decode()
        assert [secret for secret in [*hidden, shop.tenant.slug] if secret in body] == []


def test_a_reseller_of_the_second_level_has_nobody_below_it(trade: Trade) -> None:
    client = browser(trade.child)
    urls = [page("resellers"), page("open_reseller"), page("reseller", trade.child.slug)]
    assert [client.get(url).status_code for url in urls] == [404, 404, 404]
    assert [client.post(url, {}).status_code for url in urls] == [405, 404, 404]
    assert page("resellers") not in client.get(page("home")).content.decode()


@pytest.mark.parametrize("name", PAGES)
def test_whoever_is_no_reseller_is_asked_to_log_in(trade: Trade, name: str) -> None:
    url = page(name, *(NAMES[name](trade) if name in NAMES else []))
    for who in (None, make_staff(trade.own.tenant), make_operator()):
        for ask in (browser(who).get, browser(who).post):
            answered = ask(url)
            assert (answered.status_code, answered["Location"]) == (302, f"/portal/login/?next={url}")


@pytest.mark.parametrize("name", sorted(patterns()))
def test_no_page_is_on_a_tenants_host(trade: Trade, name: str) -> None:
    converters = patterns()[name].pattern.converters
    url = page(name, *(NAMES[name](trade) if name in NAMES else ["1"] * len(converters)))
    client = browser(trade.reseller, host=host_of(trade.own.tenant))
    answers = {client.get(url).status_code, client.post(url).status_code}
    assert answers == {404}


def rows() -> dict[str, Any]:
    """Count what a POST could make, and sum what it could move."""
    with scope.platform("test"):
        kinds = (CommissionTerms, PriceVersion, Transfer, WalletNotice, WalletTopUp, Withdrawal)
        counts = {kind.__name__: kind.objects.count() for kind in kinds}
        moved = dict(Account.objects.order_by("pk").values_list("pk", "posted"))
    people = {kind.__name__: kind.objects.count() for kind in (Reseller, StaffUser, Tenant, LogEntry)}
    return {**counts, **people, "moved": moved}


@pytest.mark.parametrize("name", NAMES)
def test_no_post_to_anothers_object_changes_anything(trade: Trade, other: Trade, name: str) -> None:
    form = {
        "amount": "1",
        "number": "0195b4a0-0000-7000-8000-000000000000",
        "share": "1",
        "per_call": "1",
        "sku": other.own.sku,
        "prompt_rate": "9",
        "cached_rate": "9",
        "completion_rate": "9",
    }
    client = browser(trade.reseller)
    before = rows()
    assert client.post(page(name, *NAMES[name](other)), form).status_code in {404, 405}
    assert rows() == before


def test_no_form_acts_for_another_reseller(trade: Trade, other: Trade) -> None:
    """Whatever else a form names, what it does is the logged-in reseller's."""
    client = browser(trade.reseller)
    named = {"reseller": other.reseller.pk, "reseller_id": other.reseller.pk, "tenant": other.own.tenant.pk}
    client.post(page("wallet"), {"amount": "5", "bank_reference": "mine", **named})
    client.post(page("wallet_notice"), {"threshold": "9", **named})
    free(trade.reseller)
    account = {"payee": "Mine", "bank": "ICBC", "bank_account": "1"}
    number = "0195b4a0-0000-7000-8000-000000000001"
    client.post(page("withdrawals"), {"amount": "0.000001", "number": number, **account, **named})
    with scope.platform("test"):
        assert WalletTopUp.objects.get(bank_reference="mine").reseller == trade.reseller
        assert Withdrawal.objects.get(pk=number).reseller == trade.reseller
        assert WalletNotice.objects.get(reseller=other.reseller).threshold == 7_000_000
        assert WalletNotice.objects.get(reseller=trade.reseller).threshold == 9_000_000
    taken = client.post(
        page("withdrawals"), {"amount": "0.000001", "number": str(other.withdrawal.pk), **account, **named}
    )
    assert (taken.status_code, other.payee in taken.content.decode()) == (200, False)
    for tenant in (trade.own.tenant, other.own.tenant):
        assert audit.audit_tenant(tenant_id=tenant.pk) == []


@pytest.mark.parametrize("name", LISTS)
def test_the_number_of_queries_does_not_grow(trade: Trade, name: str) -> None:
    client = browser(trade.reseller)

    def queries() -> int:
        client.get(page(name), {"days": "90"})
        with CaptureQueriesContext(connection) as asked:
            client.get(page(name), {"days": "90"})
        return len(asked)

    before = queries()
    for number in (1, 2):
        shop = open_shop(reseller=trade.reseller)
        answer(shop)
        child = make_reseller(parent=trade.reseller)
        make_terms(child, own_ppm=1)
        answer(open_shop(reseller=child))
        make_statement(trade.reseller, trade.statement.month.replace(month=number + 1))
    assert (queries(), queries()) == (before, before)


@pytest.mark.parametrize("name", ["tenant", "reseller"])
def test_the_number_of_queries_of_an_objects_page_does_not_grow(trade: Trade, name: str) -> None:
    client, url = browser(trade.reseller), page(name, *NAMES[name](trade))
    client.get(url)
    with CaptureQueriesContext(connection) as before:
        client.get(url)
    answer(open_shop(reseller=trade.child))
    answer(trade.own)
    with CaptureQueriesContext(connection) as after:
        client.get(url)
    assert len(after) == len(before)

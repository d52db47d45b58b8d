"""What the portal's pages show and do, and what they refuse."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks
from structlog.testing import capture_logs

from billing import audit, commission_terms, wallet
from billing.models import CommissionTerms, PriceVersion, WalletTopUp, Withdrawal
from billing.tests.portal.trade import Trade, browser, free, make_statement, page
from billing.tests.resale import whole_audit
from tenants import scope
from tenants.errors import ProductError
from tenants.models import PlatformMembership, Reseller, StaffUser, TermsAcceptance
from tests.factories import YUAN, make_partner, make_price, make_reseller, make_sku, make_terms, unique


@pytest.fixture
def client(trade: Trade) -> Client:
    return browser(trade.reseller)


def faults(answer: object) -> list[str]:
    form = answer.context["form"]  # type: ignore[attr-defined]
    return [str(fault) for field in form.errors.values() for fault in field]


def test_home_shows_figures_and_each_leads_to_its_list(trade: Trade, client: Client) -> None:
    home = client.get(page("home"), {"days": "7"})
    tiles = {name: (value, url) for name, value, url in home.context["tiles"]}
    usage = f"{page('usage')}?days=7"
    assert tiles == {
        "tenants that serve": ("1 / 1", f"{page('tenants')}?days=7"),
        "users": ("1", f"{page('tenants')}?days=7"),
        "new users": ("1", f"{page('tenants')}?days=7"),
        "active users": ("1", f"{page('tenants')}?days=7"),
        "chats": ("2", usage),
        "tokens": ("3000", usage),
        "wholesale charge": ("¥0.005", usage),
        # A fifth of two answers at 2500 each; a refund took back a share of 500 of the users' money.
        "own share": (tiles["own share"][0], page("commissions")),
    }
    for url in {url for _name, _value, url in [*home.context["tiles"], *home.context["money"]]}:
        assert client.get(url.split("#")[0]).status_code == 200
    chats = home.context["charts"][0]
    assert [bar.title for bar in chats.bars][-1] == f"{timezone.localdate():%m-%d}: 2"
    assert len(chats.bars) == 7
    assert client.get(chats.bars[-1].url).context["table"].page.paginator.count == 1


@pytest.mark.django_db
def test_a_reseller_without_tenants_is_told_what_to_do() -> None:
    reseller = make_reseller()
    said = browser(reseller).get(page("home")).content.decode()
    assert "You have no tenant yet." in said
    for name in ("tenants", "usage", "prices", "commissions", "withdrawals", "wallet", "statements", "resellers"):
        assert browser(reseller).get(page(name)).status_code == 200


def test_the_list_of_usage_is_by_day_tenant_and_item(trade: Trade, client: Client) -> None:
    today = timezone.localdate().isoformat()
    file = client.get(page("usage"), {"day": today, "format": "csv"}).content.decode("utf-8-sig").splitlines()
    assert file[1:] == [f"{today},{trade.own.tenant.slug},{trade.own.sku},2,2000,1000,0.005"]
    for asked in ({"day": "2020-02-30"}, {"day": "x"}, {"tenant": "no\0pe"}, {"days": "9999"}, {"page": "x"}):
        assert client.get(page("usage"), asked).status_code == 200


def test_a_tenants_page_and_its_wallet(trade: Trade, client: Client) -> None:
    url, tenant = page("tenant", trade.own.tenant.slug), trade.own.tenant
    shown = client.get(url)
    assert (shown.context["own_wallet"], shown.context["hosts"]) == ("¥99.00", [f"{tenant.slug}.test"])
    before = wallet.balance_of(tenant_id=tenant.pk)
    form = {"amount": "2.5", "number": str(uuid4())}
    with capture_logs() as logs:
        said = client.post(page("allot", tenant.slug), form, follow=True)
    assert [str(message) for message in said.context["messages"]] == ["¥2.50 were put into the tenant's wallet."]
    assert [log["what"] for log in logs if log["event"] == "portal_acted"] == [
        "¥2.50 were put into the tenant's wallet."
    ]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(tenant.pk), "¥2.50 were put into the tenant's wallet.")
    client.post(page("allot", tenant.slug), form, follow=True)
    assert wallet.balance_of(tenant_id=tenant.pk) == before + 2_500_000
    for wrong, message in (
        ({**form, "amount": "3"}, "This form was sent before, with another amount."),
        ({**form, "number": str(uuid4()), "amount": "97"}, "Your wallet does not cover this. Please top it up."),
        ({"amount": "x", "number": str(uuid4())}, "An amount such as 10 or 0.50 is wanted"),
    ):
        said = client.post(page("allot", tenant.slug), wrong, follow=True)
        assert [str(each)[: len(message)] for each in said.context["messages"]] == [message]
    assert wallet.balance_of(tenant_id=tenant.pk) == before + 2_500_000
    assert audit.audit_tenant(tenant_id=tenant.pk) == []
    assert whole_audit() == []


def test_a_top_up_is_asked_for(trade: Trade, client: Client) -> None:
    assert client.post(page("wallet"), {"amount": "12.5", "bank_reference": "ICBC  77"}).status_code == 302
    asked = WalletTopUp.objects
    with scope.platform("test"):
        row = asked.get(bank_reference="ICBC 77")
    assert (row.amount, row.reseller_id, row.tenant_id, row.state) == (12_500_000, trade.reseller.pk, None, "requested")
    assert LogEntry.objects.get().change_message == "A top-up was asked for."
    assert faults(client.post(page("wallet"), {"amount": "0", "bank_reference": ""}))[-1] == "This field is required."
    shown = client.get(page("wallet")).content.decode()
    assert ("ICBC 77" in shown, "¥12.50" in shown, "wallet filled by the reseller" in shown) == (True, True, True)
    assert client.post(page("wallet_notice"), {"threshold": "8"}).status_code == 302
    assert client.get(page("wallet")).context["notice"].initial == {"threshold": 8 * YUAN}
    assert client.get(page("wallet"), {"format": "csv"})["Content-Type"] == "text/csv; charset=utf-8"


def test_a_withdrawal_is_asked_for_once(trade: Trade, client: Client) -> None:
    free(trade.reseller)
    form = {"amount": "0.0001", "payee": "Grove Ltd", "bank": "ICBC", "bank_account": "6222000099998888"}
    number = str(client.get(page("withdrawals")).context["form"].initial["number"])
    for _ in range(2):
        assert client.post(page("withdrawals"), {**form, "number": number}).status_code == 302
    rows = Withdrawal.objects.filter(reseller=trade.reseller).exclude(pk=trade.withdrawal.pk)
    assert [(str(row.pk), row.amount, row.state) for row in rows] == [(number, 100, "requested")]
    shown = client.get(page("withdrawals")).content.decode()
    assert ("…8888" in shown, "6222000099998888" in shown) == (True, False)
    file = client.get(page("withdrawals"), {"format": "csv"}).content.decode()
    assert ("…8888" in file, "6222000099998888" in file) == (True, False)
    (fault,) = faults(client.post(page("withdrawals"), {**form, "amount": "99", "number": str(uuid4())}))
    assert (fault[:6], fault[-21:]) == ("Only ¥", "can be withdrawn now.")
    assert whole_audit() == []


def test_commissions_are_listed_and_filtered(trade: Trade, client: Client) -> None:
    both = client.get(page("commissions"))
    assert both.context["table"].page.paginator.count == 2  # of its own tenant, and of its child's
    for asked, count in (({"tenant": trade.own.tenant.slug}, 1), ({"state": "disputed"}, 0), ({"state": "x"}, 2)):
        assert client.get(page("commissions"), asked).context["table"].page.paginator.count == count
    assert both.context["terms"][:2] == [("of its own tenants", "20.00 %"), ("of its children's tenants", "5.00 %")]
    assert "refund" in both.content.decode()


def test_statements_are_listed_printed_and_given_as_a_file(trade: Trade, client: Client) -> None:
    assert trade.statement.number in client.get(page("statements")).content.decode()
    shown = client.get(page("statement", trade.statement.pk)).content.decode()
    assert (trade.statement.number in shown, page("statements") in shown) == (True, True)
    file = client.get(page("statement", trade.statement.pk), {"format": "csv"})
    assert file["Content-Disposition"] == f'attachment; filename="statement-{trade.statement.number}.csv"'
    so_far = client.get(page("statement_so_far")).content.decode()
    assert (trade.own.tenant.slug in so_far, "not final" in so_far) == (True, True)
    assert client.get(page("statement", make_statement(make_reseller()).pk)).status_code == 404


def test_prices_are_shown_and_reckoned_without_what_the_platform_pays(trade: Trade, client: Client) -> None:
    make_price("cost", sku=trade.own.sku, rates=(123_457, 0, 0))
    asked = {"tenant": trade.own.tenant.slug, "sku": trade.own.sku, "answers": "1000", "prompt": "1000", "cached": "0"}
    shown = client.get(page("prices"), {**asked, "completion": "500"})
    assert [(line["name"], line["amount"]) for line in shown.context["reckoned"]] == [
        ("the user pays", "¥5.00"),
        ("the tenant pays", "¥2.50"),
        ("tenant's margin", "¥2.50"),
        ("own share", "¥0.50"),
    ]
    assert "0.123457" not in shown.content.decode()


def test_a_price_is_published_within_the_floors(trade: Trade, client: Client) -> None:
    tenant, sku = trade.own.tenant, trade.own.sku
    url = f"{page('price', tenant.slug)}?sku={sku}"
    rates = {"sku": sku, "prompt_rate": "1.5", "cached_rate": "1", "completion_rate": "4", "per_call": "0"}
    assert client.get(url).context["form"].initial["prompt_rate"] == 2 * YUAN
    assert faults(client.post(url, {**rates, "prompt_rate": "0.9", "cached_rate": "0.9"})) == [
        "This price is below what the item costs the seller."
    ]
    assert faults(client.post(url, {**rates, "cached_rate": "9"})) == [
        "A cached prompt is not dearer than a fresh one."
    ]
    assert client.post(url, rates)["Location"] == f"{page('prices')}?tenant={tenant.slug}"
    with scope.tenant(tenant.pk):
        made = PriceVersion.objects.filter(sku=sku, tenant=tenant).latest("pk")
    assert (made.prompt_rate, made.completion_rate, made.level) == (1_500_000, 4_000_000, "retail")
    assert LogEntry.objects.get().change_message == "A price was published."


def test_no_page_tells_anothers_prices(trade: Trade, other: Trade, client: Client) -> None:
    sku = make_sku(other.own.tenant, retail=(77_770_000, 77_770_000, 77_770_000))
    rates = (8_888_888, 8_888_888, 8_888_888)
    make_price("wholesale", sku=sku, rates=rates, reseller_id=other.reseller.pk)
    said = client.get(page("prices"), {"tenant": trade.own.tenant.slug}).content.decode()
    assert (sku in said, "77.77" in said, "8.888888" in said) == (True, False, False)
    theirs = browser(other.reseller).get(page("prices"), {"tenant": other.own.tenant.slug}).content.decode()
    assert ("77.77" in theirs, "8.888888" in theirs) == (True, True)


def test_a_sub_reseller_is_opened_and_comes_in(
    trade: Trade, client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    slug = unique("sub")
    form = {"name": "Sub Ltd", "slug": slug.upper(), "contact": "Ann", "email": "ann@example.com", "share": "15.1"}
    (fault,) = faults(client.post(page("open_reseller"), form))
    assert (fault, Reseller.objects.filter(slug=slug).count()) == ("Within your own terms that is at most 15.00 %.", 0)
    with django_capture_on_commit_callbacks(execute=True):
        opened = client.post(page("open_reseller"), {**form, "share": "15"})
    assert opened["Location"] == page("reseller", slug)
    child = Reseller.objects.get(slug=slug)
    terms = CommissionTerms.objects.get(reseller=child)
    assert (child.parent, child.depth, terms.own_ppm, terms.parent_ppm) == (trade.reseller, 2, 150_000, 0)
    assert (terms.min_withdrawal, terms.freeze_days) == (1, 7)
    (letter,) = mail.outbox
    assert (letter.to, slug in letter.body) == (["ann@example.com"], True)
    assert LogEntry.objects.get().change_message == "A sub-reseller was opened."
    for taken in (slug, trade.reseller.slug, StaffUser.objects.earliest("pk").username):
        assert faults(client.post(page("open_reseller"), {**form, "slug": taken}))[-1] == "This short name is taken."
    assert PlatformMembership.objects.get(reseller=child).staff.has_usable_password() is False
    assert TermsAcceptance.objects.filter(reseller=child).count() == 0


def test_a_sub_resellers_terms_stay_within_ones_own(trade: Trade, client: Client) -> None:
    url = page("reseller", trade.child.slug)
    shown = client.get(url)
    assert (shown.context["most"], trade.below.tenant.name in shown.content.decode()) == ("15.00 %", True)
    assert faults(client.post(url, {"share": "15.0001"})) == ["Within your own terms that is at most 15.00 %."]
    assert faults(client.post(url, {"share": "-1"}))[0][:12] == "A percentage"
    assert client.post(url, {"share": "12.5"}).status_code == 302
    agreed = commission_terms.terms_of(reseller_id=trade.child.pk)
    assert agreed is not None
    assert agreed.own_ppm == 125_000
    later = timezone.now() + timedelta(days=1)
    make_terms(trade.reseller, own_ppm=60_000, parent_ppm=50_000, effective_at=later)
    assert commission_terms.most_for_child(parent_id=trade.reseller.pk) == 10_000
    assert faults(client.post(url, {"share": "1.1"})) == ["Within your own terms that is at most 1.00 %."]


@pytest.mark.django_db
def test_without_terms_of_ones_own_nothing_can_be_given() -> None:
    parent = make_reseller()
    child, stranger = make_reseller(parent=parent), make_reseller(parent=make_reseller())
    assert commission_terms.most_for_child(parent_id=parent.pk) == 0
    for whom, wanted in ((child, "beyond_own_terms"), (stranger, "reseller_not_found")):
        with pytest.raises(ProductError) as refused:
            commission_terms.publish_child_terms(parent_id=parent.pk, child_id=whom.pk, own_ppm=0, actor="t")
        assert refused.value.type == wanted


def test_the_list_of_sub_resellers_counts_what_is_ones_own(trade: Trade, client: Client) -> None:
    file = client.get(page("resellers"), {"format": "csv"}).content.decode("utf-8-sig").splitlines()
    # 5 % of 2500: what the child gets is its own business, but for the share that was agreed.
    assert file[1].startswith(f"{trade.child.name},1,1,1,0.0025,0.000125,10.00 %,")
    assert make_partner(trade.child).username not in client.get(page("resellers")).content.decode()

"""Monthly statements: they add up, they are the owner's calendar's, they are made once and are nobody else's."""

import csv
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import connection, transaction
from django.db.utils import IntegrityError
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from billing import ledger, redeem, statements, tasks, usage
from billing.ledger import Movement
from billing.models import AccountKind, Statement, Transfer
from billing.statements import GRACE, STATED_RESELLER_KINDS, Figures, Period, StatementError
from billing.tests.conftest import Shop, open_shop
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.models import Tenant
from tests.factories import (
    YUAN,
    credit,
    fill_wallet,
    host_of,
    make_codes,
    make_operator,
    make_reseller,
    make_staff,
)

MONTH = date(2026, 3, 1)
Kind = Transfer.Kind


def move_to(moment: datetime, *tenants: Tenant) -> None:
    """Have the tenants' transfers of just now be of another time: the ledger refuses, so its guard steps aside."""
    keys = [tenant.pk for tenant in tenants]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_transfer DISABLE TRIGGER billing_transfer_append_only")
        cursor.execute(
            "UPDATE billing_transfer SET created_at = %s"
            " WHERE tenant_id = ANY(%s) AND created_at > now() - interval '1 day'",
            [moment, keys],
        )
        cursor.execute("ALTER TABLE billing_transfer ENABLE TRIGGER billing_transfer_append_only")


def answer(shop: Shop, **fields: Any) -> None:
    hold = shop.admit(**fields)
    shop.settle(hold)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)


def figures(shop: Shop, month: date = MONTH) -> Figures:
    with scope.tenant(shop.tenant.pk):
        period = Period.of_month(month, shop.tenant.timezone)
        return statements.figures_of_tenant(tenant=shop.tenant, period=period)


def account(told: Figures, kind: str, channel: str = "") -> tuple[int, dict[str, int], int]:
    [row] = [row for row in told.accounts if (row.kind, row.channel) == (kind, channel)]
    return row.opening, row.movements, row.closing


def open_before(moment: datetime, *tenants: Tenant) -> None:
    Tenant.objects.filter(pk__in=[tenant.pk for tenant in tenants]).update(created_at=moment)


def test_a_months_movements_lie_between_its_balances(shop: Shop, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    credit(shop.user, 5 * YUAN)
    move_to(datetime(2026, 2, 10, tzinfo=UTC), shop.tenant)
    credit(shop.user, 20 * YUAN)
    credit(shop.user, YUAN, kind="gift")
    [code] = make_codes(shop.tenant)
    redeem.redeem(tenant_id=shop.tenant.pk, user_id=shop.user.pk, code=code)
    answer(shop, free_per_day=1)
    answer(shop)
    fill_wallet(shop.tenant, 7 * YUAN)
    move_to(datetime(2026, 3, 10, tzinfo=UTC), shop.tenant)
    credit(shop.user, 3 * YUAN)
    told = figures(shop)
    # 1000 prompt tokens at ¥2 and 500 at ¥6 a million, from the gift; half of it wholesale, twice.
    assert account(told, "user_cash") == (5 * YUAN, {"credit": 20 * YUAN, "redeem": 10 * YUAN}, 35 * YUAN)
    assert account(told, "user_gift") == (0, {"gift": YUAN, "answer": -5_000}, 995_000)
    assert account(told, "tenant_revenue") == (0, {"answer": 5_000}, 5_000)
    assert account(told, "tenant_wholesale") == (
        1000 * YUAN,
        {"wallet_topup": 7 * YUAN, "answer": -5_000},
        1007 * YUAN - 5_000,
    )
    assert {row.kind for row in told.accounts} & {"platform_revenue", "reseller_accrued"} == set()
    assert account(told, "psp_clearing", "redeem") == (0, {"redeem": -10 * YUAN}, -10 * YUAN)


def test_usage_is_that_of_the_months_days(shop: Shop) -> None:
    credit(shop.user, YUAN)
    answer(shop)
    today = timezone.localdate()
    [row] = figures(shop, today).usage
    assert (row.name, row.answers, row.prompt_tokens, row.completion_tokens) == (shop.sku, 1, 1000, 500)
    assert (row.charge, row.wholesale_charge) == (5_000, 2_500)
    assert figures(shop, today - timedelta(days=40)).usage == []


@pytest.mark.parametrize(
    ("zone", "first"), [("Asia/Shanghai", "2026-02-28T16:00"), ("America/New_York", "2026-03-01T05:00")]
)
def test_a_month_is_the_tenants_calendars(db: None, zone: str, first: str) -> None:
    shop = open_shop(timezone=zone)
    edge = datetime.fromisoformat(first).replace(tzinfo=UTC)
    for amount, moment in ((1, edge - timedelta(microseconds=1)), (10, edge)):
        credit(shop.user, amount)
        move_to(moment, shop.tenant)
    assert account(figures(shop), "user_cash") == (1, {"credit": 10}, 11)


def test_a_ledger_that_does_not_add_up_has_no_statement(shop: Shop) -> None:
    credit(shop.user, 5)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_account SET posted = posted + 1 WHERE user_id = %s", [shop.user.pk])
        with pytest.raises(StatementError):
            figures(shop)
        transaction.set_rollback(True)


def test_it_is_made_once_and_stays_as_it_was(shop: Shop) -> None:
    credit(shop.user, 5 * YUAN)
    move_to(datetime(2026, 3, 10, tzinfo=UTC), shop.tenant)
    open_before(datetime(2026, 3, 1, tzinfo=UTC), shop.tenant)
    with scope.platform("a test"):
        made = statements.make_statement(month=MONTH, tenant=shop.tenant)
    assert made.number == f"202603-{shop.tenant.slug}"
    credit(shop.user, YUAN)
    move_to(datetime(2026, 3, 11, tzinfo=UTC), shop.tenant)
    statements.make_statements(month=MONTH)
    with scope.tenant(shop.tenant.pk):
        [kept] = Statement.objects.all()
        assert account(Figures.from_json(kept.figures), "user_cash") == (0, {"credit": 5 * YUAN}, 5 * YUAN)
        with pytest.raises(IntegrityError, match="only ever added"), transaction.atomic():
            Statement.objects.filter(pk=kept.pk).update(number="another")


def test_whoever_opened_later_has_none_and_a_month_that_goes_on_has_none(shop: Shop) -> None:
    statements.make_statements(month=MONTH)
    with scope.tenant(shop.tenant.pk):
        assert Statement.objects.count() == 0
    with scope.platform("a test"), pytest.raises(ValueError, match="is not over"):
        statements.make_statement(month=timezone.localdate(), tenant=shop.tenant)


def test_many_at_once_make_one(committed_shop: Shop) -> None:
    tenant = committed_shop.tenant

    def make() -> int:
        with scope.platform("a test"):
            return statements.make_statement(month=MONTH, tenant=tenant).pk

    assert len(set(together([make] * 8))) == 1


def test_a_resellers_statement_is_its_accounts_and_its_tenants_answers(db: None) -> None:
    reseller = make_reseller()
    shop, stranger = open_shop(reseller=reseller), open_shop()
    with scope.platform("a test"):
        period = Period.of_month(timezone.localdate(), "Asia/Shanghai")
        told = statements.figures_of_reseller(reseller=reseller, period=period)
    assert stranger.tenant.slug not in told.commission
    assert {row.kind for row in told.accounts} <= {str(kind) for kind in STATED_RESELLER_KINDS}
    assert [row.name for row in told.usage] in ([], [shop.tenant.slug])


def make(tenant: Tenant, month: date) -> Statement:
    with scope.platform("a test"):
        return statements.make_statement(month=month, tenant=tenant)


def test_a_month_begins_with_what_the_statement_before_closed_with(shop: Shop) -> None:
    credit(shop.user, 5)
    move_to(datetime(2026, 2, 10, tzinfo=UTC), shop.tenant)
    february = make(shop.tenant, date(2026, 2, 1))
    credit(shop.user, 7)
    move_to(datetime(2026, 3, 10, tzinfo=UTC), shop.tenant)
    march = make(shop.tenant, MONTH)
    assert account(Figures.from_json(february.figures), "user_cash") == (0, {"credit": 5}, 5)
    assert account(Figures.from_json(march.figures), "user_cash") == (5, {"credit": 7}, 12)
    # What slips into a month that was told already is found by the next: it has to add up to the balance.
    credit(shop.user, 9)
    move_to(datetime(2026, 3, 20, tzinfo=UTC), shop.tenant)
    with pytest.raises(StatementError, match="user_cash : 12 and 0 do not come to 21"):
        make(shop.tenant, date(2026, 4, 1))


def test_a_new_time_zone_leaves_no_gap_between_two_months(db: None) -> None:
    shop = open_shop(timezone="America/New_York")
    between = datetime(2026, 2, 28, 20, tzinfo=UTC)  # February in New York, March in Kiritimati
    credit(shop.user, 5)
    move_to(between - timedelta(days=9), shop.tenant)
    february = make(shop.tenant, date(2026, 2, 1))
    Tenant.objects.filter(pk=shop.tenant.pk).update(timezone="Pacific/Kiritimati")
    shop.tenant.refresh_from_db()
    march = make(shop.tenant, MONTH)
    assert Period.of_statement(march).began == Period.of_statement(february).ended
    assert account(Figures.from_json(march.figures), "user_cash") == (5, {}, 5)


def test_owners_whose_month_is_not_over_wait_and_keep_nobody_else_waiting(shop: Shop) -> None:
    with pytest.raises(ValueError, match="is not over"):
        statements.make_statements(month=timezone.localdate() + timedelta(days=40))
    period = Period.of_month(MONTH, "Asia/Shanghai")
    assert period.is_over
    assert not replace(period, ended=timezone.now()).is_over
    assert not replace(period, ended=timezone.now() - GRACE + timedelta(minutes=1)).is_over


def test_what_answers_accrued_for_a_reseller_is_on_its_statement(shop: Shop) -> None:
    reseller, other = make_reseller(), make_reseller()
    with scope.tenant(shop.tenant.pk), transaction.atomic():
        revenue = ledger.tenant_accounts(tenant_id=shop.tenant.pk).revenue
        accrued = ledger.reseller_account(
            reseller_id=reseller.pk, kind=AccountKind.RESELLER_ACCRUED, tenant_id=shop.tenant.pk
        )
        clearing = ledger.clearing_account(tenant_id=shop.tenant.pk, channel="a test")
        ledger.move(
            tenant_id=shop.tenant.pk,
            kind=Kind.GIFT,
            ref="a test",
            reason="",
            actor="test",
            movements=[
                Movement(account=clearing, amount=-7),
                Movement(account=accrued, amount=4),
                Movement(account=revenue, amount=3),
            ],
        )
    move_to(datetime(2026, 3, 10, tzinfo=UTC), shop.tenant)
    with scope.platform("a test"):
        told, others = (
            statements.figures_of_reseller(reseller=each, period=Period.of_month(MONTH, "Asia/Shanghai"))
            for each in (reseller, other)
        )
    assert account(told, "reseller_accrued") == (0, {"gift": 4}, 4)
    # The tenant is not below the reseller any more: named for its commission, its use is somebody else's business.
    assert told.commission == {}  # a gift is no answer
    assert (others.accounts, others.usage, others.commission) == ([], [], {})
    assert "reseller_accrued" not in {row.kind for row in figures(shop).accounts}


# --- the admin ---


def staff_client(shop: Shop, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(shop.tenant), "accept-language": "en"})
    client.force_login(make_staff(shop.tenant, role=role))
    return client


def kept_statement(shop: Shop) -> Statement:
    credit(shop.user, 12_345_678)
    move_to(datetime(2026, 3, 10, tzinfo=UTC), shop.tenant)
    with scope.platform("a test"):
        return statements.make_statement(month=MONTH, tenant=shop.tenant)


def test_owners_and_finance_print_their_own(shop: Shop) -> None:
    made = kept_statement(shop)
    for role in ("owner", "finance"):
        client = staff_client(shop, role)
        listed = client.get("/admin/billing/statement/")
        assert f"/admin/billing/statement/{made.pk}/page/" in listed.content.decode()
        page = client.get(f"/admin/billing/statement/{made.pk}/page/")
        text = page.content.decode()
        assert (page.status_code, made.number in text, "¥12.345678" in text) == (200, True, True)
        assert "not final" not in text
        so_far = client.get("/admin/billing/statement/so-far/").content.decode()
        assert "not final" in so_far
    for role in ("support", "content"):
        client = staff_client(shop, role)
        answers = [client.get(f"/admin/billing/statement/{page}/") for page in (f"{made.pk}/page", "so-far")]
        assert [answer.status_code for answer in answers] == [404, 404]


def test_a_statement_as_a_file(shop: Shop) -> None:
    made = kept_statement(shop)
    answer = staff_client(shop).get(f"/admin/billing/statement/{made.pk}/page/?format=csv")
    assert answer["Content-Disposition"] == f'attachment; filename="statement-{made.number}.csv"'
    rows = list(csv.reader(StringIO(answer.content.decode("utf-8-sig"))))
    assert rows[0] == ["of", "what", "yuan or count"]
    assert ["user's balance", "manual credit", "12.345678"] in rows
    assert ["clearing with a payment channel · manual", "closing balance", "-1012.345678"] in rows


def test_another_tenants_is_not_there(shop: Shop) -> None:
    made, other = kept_statement(shop), open_shop()
    client = staff_client(other)
    assert client.get(f"/admin/billing/statement/{made.pk}/page/").status_code == 404
    assert made.number not in client.get("/admin/billing/statement/").content.decode()
    so_far = client.get(f"/admin/billing/statement/so-far/?tenant={shop.tenant.slug}").content.decode()
    assert "12.345678" not in so_far


def test_the_operator_sees_all(shop: Shop) -> None:
    made, reseller = kept_statement(shop), make_reseller()
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    base = "/platform/billing/statement"
    pages = [f"{made.pk}/page/", f"so-far/?tenant={shop.tenant.slug}", f"so-far/?reseller={reseller.slug}"]
    assert [client.get(f"{base}/{page}").status_code for page in pages] == [200, 200, 200]
    assert client.get(f"{base}/so-far/?tenant=nobody").status_code == 404
    assert f"?reseller={reseller.slug}" in client.get(f"{base}/").content.decode()


def test_a_page_asks_as_little_for_many_rows_as_for_one(
    shop: Shop, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    made = kept_statement(shop)
    client = staff_client(shop)
    client.get(f"/admin/billing/statement/{made.pk}/page/")
    with scope.platform("a test"):
        for number in range(5):
            statements.make_statement(month=date(2025, 1 + number, 1), tenant=shop.tenant)
    # Session, person, membership, whose session, second factor; then the statement with its tenant.
    with django_assert_num_queries(7):
        client.get(f"/admin/billing/statement/{made.pk}/page/")


# --- the task and the command ---


def test_the_task_makes_the_month_before(shop: Shop) -> None:
    before = statements.month_before(timezone.localdate())
    open_before(datetime(2020, 1, 1, tzinfo=UTC), shop.tenant)
    assert [tasks.make_statements() >= 1 for _ in range(3)] == [True] * 3
    with scope.tenant(shop.tenant.pk):
        assert [row.month for row in Statement.objects.all()] == [before]


def test_the_command(shop: Shop) -> None:
    open_before(datetime(2020, 1, 1, tzinfo=UTC), shop.tenant)
    out = StringIO()
    call_command("make_statements", "--month", "2026-03", stdout=out)
    assert out.getvalue().startswith("2026-03: ")
    with scope.tenant(shop.tenant.pk):
        assert Statement.objects.count() == 1


def test_moved_adds_up_what_it_is_asked_for(shop: Shop) -> None:
    credit(shop.user, 5)
    credit(shop.user, 7, kind="gift")
    told = figures(shop, timezone.localdate())
    assert told.moved(AccountKind.PSP_CLEARING, Kind.CREDIT, Kind.GIFT) == -12
    assert told.moved(AccountKind.PSP_CLEARING, Kind.CREDIT, Kind.GIFT, channel="gift") == -7

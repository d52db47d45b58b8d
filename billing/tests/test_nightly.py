"""The nightly audit is kept, logged and mailed, and a mail server that is away loses nothing of it."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.mail import EmailMessage
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from structlog.testing import capture_logs

from billing import audit, tasks
from billing.models import Account, AuditRun
from billing.tests.conftest import Shop, open_shop
from saas.celery import app
from tenants import scope
from tenants.models import Membership
from tests.doubles.mail import refusing_mail_server
from tests.factories import credit, host_of, make_operator, make_staff


@pytest.fixture
def shop(db: None) -> Shop:
    """A shop whose books a test will break; the sweep has recorded what earlier tests committed and left."""
    shop = open_shop()
    credit(shop.user, 100)
    tasks.sweep_unrecorded()
    return shop


@pytest.fixture
def ops(settings: Settings) -> str:
    settings.ALERT_EMAILS = ["ops@example.com"]
    settings.LANGUAGE_CODE = "en"
    return "ops@example.com"


def break_books(shop: Shop) -> int:
    """Add to a balance what no entry explains; return the account."""
    with scope.tenant(shop.tenant.pk):
        account = Account.objects.get(user=shop.user, kind="user_cash")
        Account.objects.filter(pk=account.pk).update(posted=107)
    return account.pk


def run() -> AuditRun:
    tasks.audit_ledger()
    return AuditRun.objects.latest("pk")


def test_a_sound_ledger_is_noted_and_nobody_is_told(shop: Shop, ops: str, mailoutbox: list[EmailMessage]) -> None:
    rows = {result.check.invariant: result.rows for result in audit.audit()}
    with capture_logs() as logs:
        assert tasks.audit_ledger() == 0
    kept = AuditRun.objects.get()
    assert kept.ended_at is not None
    assert kept.started_at <= kept.ended_at
    assert (kept.breaches, kept.details) == (0, [])
    assert kept.checked == [{"invariant": name, "rows": rows[name], "breaches": 0} for name in rows]
    assert list(rows) == [check.invariant for check in audit.CHECKS]
    assert logs == [
        {"event": "ledger_audited", "log_level": "info", "run": kept.pk, "rows": sum(rows.values())},
    ]
    assert mailoutbox == []


def test_breaches_are_kept_and_logged_as_errors(shop: Shop, ops: str) -> None:
    account = break_books(shop)
    with capture_logs() as logs:
        assert tasks.audit_ledger() == 1
    kept = AuditRun.objects.get()
    row = {
        "invariant": "I2",
        "tenant": shop.tenant.slug,
        "row": f"account {account}",
        "found": "posted 107, entries 100",
    }
    assert (kept.breaches, kept.details) == (1, [row])
    assert [check["invariant"] for check in kept.checked if check["breaches"] == 1] == ["I2"]
    assert logs == [
        {
            "event": "ledger_broken",
            "log_level": "error",
            "run": kept.pk,
            "invariant": "I2",
            "breaches": 1,
            "rows": [row],
        },
    ]


def test_breaches_are_mailed(shop: Shop, ops: str, settings: Settings, mailoutbox: list[EmailMessage]) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    settings.DEFAULT_FROM_EMAIL = "banyan@example.com"
    account = break_books(shop)
    kept = run()
    assert kept.ended_at is not None
    (mail,) = mailoutbox
    assert (mail.to, mail.from_email) == ([ops], "banyan@example.com")
    assert mail.subject == "The ledger's audit found 1 breach"
    assert mail.body == (
        f"Audit {kept.pk} of the ledger, {kept.ended_at.astimezone(ZoneInfo('Asia/Shanghai')):%Y-%m-%d %H:%M} CST:"
        " these rows break what must always be true.\n"
        "\n"
        "I2 · a balance is the sum of its entries\n"
        f"  {shop.tenant.slug}: account {account}: posted 107, entries 100\n"
        "\n"
        "`manage.py audit_ledger` checks again. docs/money.md says what each of these means."
    )


def test_a_mail_names_the_first_breaches_and_counts_the_rest(
    shop: Shop, ops: str, settings: Settings, mailoutbox: list[EmailMessage]
) -> None:
    settings.LANGUAGE_CODE = "zh-hans"
    for _ in range(11):
        credit(shop.open_more(), 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET posted = posted + 1 WHERE tenant_id = %s AND user_id IS NOT NULL",
            [shop.tenant.pk],
        )
    kept = run()
    (mail,) = mailoutbox
    assert (kept.breaches, len(kept.details)) == (24, 20)
    assert mail.subject == "账本审计发现 24 处违反"
    lines = str(mail.body).splitlines()
    assert lines[2] == "I2 · 余额等于其分录之和"
    assert lines[3:23] == [f"  {row['tenant']}: {row['row']}: {row['found']}" for row in kept.details]
    assert lines[23:25] == ["  ……另有 4 条", ""]


def test_without_an_address_nobody_is_mailed(shop: Shop, settings: Settings, mailoutbox: list[EmailMessage]) -> None:
    settings.ALERT_EMAILS = []
    break_books(shop)
    assert (run().breaches, mailoutbox) == (1, [])


@pytest.fixture(params=["nobody listens", "554"])
def no_mail(request: pytest.FixtureRequest, settings: Settings) -> Any:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    if request.param == "554":
        with refusing_mail_server() as port:
            settings.EMAIL_PORT = port
            yield
        return
    with socket.socket() as unheard:  # bound and not listening: refused
        unheard.bind(("127.0.0.1", 0))
        settings.EMAIL_PORT = unheard.getsockname()[1]
        yield


def test_a_mail_that_fails_does_not_lose_the_run(shop: Shop, ops: str, no_mail: None) -> None:
    break_books(shop)
    with capture_logs() as logs:
        assert tasks.audit_ledger() == 1
    kept = AuditRun.objects.get()
    assert (kept.breaches, kept.ended_at is None) == (1, False)
    assert [(line["event"], line["run"]) for line in logs] == [
        ("ledger_broken", kept.pk),
        ("notice_not_mailed", kept.pk),
    ]


def test_the_task_delivered_twice_looks_twice_and_changes_nothing(
    shop: Shop, ops: str, mailoutbox: list[EmailMessage]
) -> None:
    break_books(shop)
    before = audit.audit()
    assert [tasks.audit_ledger() for _ in range(2)] == [1, 1]
    first, second = AuditRun.objects.order_by("pk")
    assert (first.checked, first.details, first.breaches) == (second.checked, second.details, second.breaches)
    assert audit.audit() == before
    assert len(mailoutbox) == 2


def test_beat_starts_it_at_half_past_three_by_the_platform_s_clock(settings: Settings) -> None:
    entry = app.conf.beat_schedule["audit the ledger"]
    assert entry["task"] == tasks.audit_ledger.name
    assert app.conf.timezone == settings.TIME_ZONE
    shanghai = ZoneInfo("Asia/Shanghai")
    schedule = entry["schedule"]
    schedule.app = app
    last = datetime(2026, 3, 1, 3, 30, tzinfo=shanghai).astimezone(UTC)
    start, until, _now = schedule.remaining_delta(last)
    assert (start + until).astimezone(shanghai) == datetime(2026, 3, 2, 3, 30, tzinfo=shanghai)
    assert start + until - last == timedelta(days=1)


def test_the_operator_sees_a_run_and_changes_none(shop: Shop) -> None:
    account = break_books(shop)
    kept = run()
    client = Client(HTTP_HOST="localhost")
    client.force_login(make_operator())
    page = client.get(reverse("admin:billing_auditrun_changelist"))
    assert (page.status_code, page.context["cl"].result_count) == (200, 1)
    change = reverse("admin:billing_auditrun_change", args=[kept.pk])
    shown = client.get(change).content.decode()
    row = ("I2", shop.tenant.slug, f"account {account}", "posted 107, entries 100")
    assert shown.count("".join(f"<td>{cell}</td>" for cell in row)) == 1
    refused = [
        client.get(reverse("admin:billing_auditrun_add")),
        client.post(change, {}),
        client.post(reverse("admin:billing_auditrun_delete", args=[kept.pk]), {"post": "yes"}),
    ]
    assert [response.status_code for response in refused] == [403, 403, 403]
    assert AuditRun.objects.count() == 1


def test_what_a_run_shows_is_escaped(shop: Shop) -> None:
    AuditRun.objects.create(details=[{"invariant": "I1", "tenant": "<b>", "row": "<i>", "found": "<u>"}])
    client = Client(HTTP_HOST="localhost")
    client.force_login(make_operator())
    page = client.get(reverse("admin:billing_auditrun_change", args=[AuditRun.objects.get().pk])).content.decode()
    assert page.count("<td>I1</td><td>&lt;b&gt;</td><td>&lt;i&gt;</td><td>&lt;u&gt;</td>") == 1


def test_a_tenant_s_people_do_not_see_it(shop: Shop) -> None:
    kept = run()
    client = Client(HTTP_HOST=host_of(shop.tenant))
    client.force_login(make_staff(shop.tenant, role=Membership.Role.OWNER))
    assert client.get(f"/admin/billing/auditrun/{kept.pk}/change/").status_code == 404
    assert client.get(reverse("admin:billing_auditrun_change", args=[kept.pk])).status_code == 404


def test_health_does_not_depend_on_it(shop: Shop) -> None:
    before = Client().get("/healthz")
    break_books(shop)
    assert run().breaches == 1
    AuditRun.objects.create()  # and one that died on the way
    after = Client().get("/healthz")
    assert (after.status_code, after.json()) == (before.status_code, before.json())

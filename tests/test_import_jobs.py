"""Long files: a worker looks and writes, a bar moves, and whatever dies half-way, each line is written once."""

import csv
import io
import zipfile
from datetime import datetime
from typing import Any

import openpyxl
import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from billing import audit, ledger
from billing.models import RedeemBatch
from chat.moderation.models import ModerationWord
from tenants import import_jobs, scope
from tenants.imports import SheetError, read_sheet
from tenants.models import EndUser, ImportJob, StaffUser, Tenant
from tenants.tasks import sweep_imports, work_on_import
from tenants.workbooks import BrokenWorkbookError, rows_of
from tests.factories import YUAN, make_tenant, make_user
from tests.test_imports import BATCHES, HEADS, PEOPLE, WORDS, confirm, counts, faults, staff_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _keys(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def people(count: int, *, gift: str = "", begin: int = 0) -> list[list[Any]]:
    return [[f"N{n}", 13_800_000_000 + n, "", gift, "hi" if gift else ""] for n in range(begin, begin + count)]


def as_csv(kind: str, rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([HEADS[kind].split(","), *rows])
    return text.getvalue().encode("utf-8-sig")


def as_workbook(kind: str, rows: list[list[Any]]) -> bytes:
    book, data = openpyxl.Workbook(), io.BytesIO()
    sheet: Any = book.active
    for row in [HEADS[kind].split(","), *rows]:
        sheet.append(row)
    book.save(data)
    return data.getvalue()


def send(client: Client, kind: str, content: bytes, name: str = "x.csv") -> Any:
    return client.post(f"/admin/{kind}/import/", {"file": SimpleUploadedFile(name, content)})


def begun(client: Client, tenant: Tenant, kind: str, content: bytes) -> tuple[str, ImportJob]:
    """Upload a long file; return the address of its page and its job."""
    answer = send(client, kind, content)
    job = job_of(tenant)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/{kind}/import/jobs/{job.pk}/")
    return answer["Location"], job


def planned(client: Client, tenant: Tenant, rows: list[list[Any]]) -> tuple[str, ImportJob]:
    """Have a worker look at users, though they are few; return the address of the job's page and the job."""
    staff = StaffUser.objects.get(pk=client.session["_auth_user_id"])
    with scope.tenant(tenant.pk), transaction.atomic(), translation.override("en"):
        job = import_jobs.begin(tenant=tenant, staff=staff, model=EndUser, name="x.csv", content=as_csv(PEOPLE, rows))
    assert work(job) == "planned"
    return f"/admin/{PEOPLE}/import/jobs/{job.pk}/", job


def job_of(tenant: Tenant) -> ImportJob:
    with scope.tenant(tenant.pk):
        return ImportJob.objects.latest("created_at")


def work(job: ImportJob) -> str:
    return work_on_import(str(job.pk), job.tenant_id)


def standing(client: Client, page: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(page, headers={"accept": "application/json"}).json()
    return found


def nicknames(tenant: Tenant) -> list[str]:
    with scope.tenant(tenant.pk):
        return list(EndUser.objects.order_by("pk").values_list("nickname", flat=True))


def test_a_workbook_is_a_file_like_any_other() -> None:
    tenant = make_tenant()
    client = staff_of(tenant)
    page = send(client, PEOPLE, as_workbook(PEOPLE, [["Li Lei", 13800000001.0, None, 5, "new year"]]), "x.xlsx")
    shown = page.content.decode()
    assert counts(shown) == (1, 0, 0, 0)
    assert confirm(client, PEOPLE, shown).status_code == 302
    with scope.tenant(tenant.pk):
        user = EndUser.objects.get()
        assert (user.nickname, user.phone) == ("Li Lei", "13800000001")
        assert ledger.balances(tenant_id=tenant.pk, user_id=user.pk).gift == 5 * YUAN

    def moment(*when: int) -> datetime:
        return datetime(*when)  # type: ignore[arg-type]  # noqa: DTZ001  # spreadsheets know no zones

    batch = ["Spring", 0.5, 2, "gift", moment(2099, 1, 31), None]
    timed = ["Autumn", 10, 1, "cash", moment(2099, 1, 31, 8, 5), 1]
    assert confirm(client, BATCHES, send(client, BATCHES, as_workbook(BATCHES, [batch, timed])).content.decode())
    with scope.tenant(tenant.pk):
        rows = RedeemBatch.objects.order_by("pk")
        assert [(row.amount, f"{row.expires_at:%m-%d %H:%M}") for row in rows] == [
            (YUAN // 2, "01-31 15:59"),
            (10 * YUAN, "01-31 00:05"),
        ]
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_a_file_that_unpacks_to_a_flood_is_not_unpacked() -> None:
    flood = io.BytesIO()
    with zipfile.ZipFile(flood, "w", zipfile.ZIP_DEFLATED) as bag:
        for number in range(9):
            bag.writestr(f"xl/worksheets/sheet{number}.xml", b"0" * (16 * 1024 * 1024))
    assert len(flood.getvalue()) < 200_000
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as bag:
        for number in range(501):
            bag.writestr(str(number), b"")
    # One that says too little of itself is read no further than it says.
    good = as_workbook(WORDS, [["word", "", ""]])
    laughs = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as from_, zipfile.ZipFile(laughs, "w", zipfile.ZIP_DEFLATED) as to:
        for entry in from_.infolist():
            data = from_.read(entry)
            if entry.filename == "xl/worksheets/sheet1.xml":
                entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
                bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{entities}]>'
                data = bomb.encode() + data.replace(b"<sheetData>", b"<sheetData><!-- &l9; -->&l9;")
            to.writestr(entry.filename, data)
    columns = []  # type: ignore[var-annotated]  # none is wanted
    for content in (flood.getvalue(), many.getvalue(), good[: len(good) // 2], b"PK\x03\x04", laughs.getvalue()):
        with pytest.raises(BrokenWorkbookError):
            list(rows_of(content))
        with pytest.raises(SheetError):
            read_sheet(content, columns)


def test_a_long_file_is_looked_at_shown_and_written_by_a_worker(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    tenant, other = make_tenant(), make_tenant()
    make_user(tenant, nickname="old", phone="13800000007")
    client = staff_of(tenant)
    rows = [*people(2100), ["nobody", "", "", "", ""], ["twice", 13_800_000_001, "", "", ""]]
    page, job = begun(client, tenant, PEOPLE, as_csv(PEOPLE, rows))
    assert standing(client, page) == {"state": "looking", "done": 0, "total": 0, "percent": 0}
    assert "data-progress" in client.get(page).content.decode()
    assert work(job) == "planned"
    assert standing(client, page) == {"state": "planned", "done": 0, "total": 2100, "percent": 0}
    shown = client.get(page).content.decode()
    assert counts(shown) == (2099, 1, 0, 2)
    assert [said.split(":")[0] for said in faults(shown)] == ["Line 2102", "Line 2103"]
    assert len(nicknames(tenant)) == 1
    # Only one at a time, and neither another tenant's staff nor another kind's page shows it.
    stranger = staff_of(other)
    for client_, path in (
        (stranger, page),
        (client, page.replace(PEOPLE, WORDS)),
        (staff_of(tenant, "support"), page),
    ):
        assert (client_.get(path).status_code, client_.post(path, {"confirmed": "yes"}).status_code) == (404, 404)
    with django_capture_on_commit_callbacks() as told:
        assert client.post(page, {"confirmed": "yes"}).status_code == 302
    assert len(told) == 1
    refused = send(client, PEOPLE, as_csv(PEOPLE, people(2100)))
    assert [str(said) for said in get_messages(refused.wsgi_request)] == [
        "An import is under way already. Please wait for it."
    ]
    assert standing(client, page)["state"] == "writing"
    assert work(job) == "done"
    assert standing(client, page) == {"state": "done", "done": 2100, "total": 2100, "percent": 100}
    assert "Imported: 2099 added, 1 changed." in client.get(page).content.decode()
    assert len(nicknames(tenant)) == 2100
    assert "old" not in nicknames(tenant)
    with scope.tenant(tenant.pk):
        entry = LogEntry.objects.get(user__memberships__tenant=tenant)
    assert entry.change_message == "Imported: 2099 added, 1 changed."
    # Its file is gone, and a form that is sent once more finds nothing to do.
    assert (bytes(job_of(tenant).content), job_of(tenant).accepted) == (b"", [])
    assert sorted(job_of(tenant).plan) == ["counts", "faults"]
    client.post(page, {"confirmed": "yes"})
    assert (work(job), len(nicknames(tenant))) == ("done", 2100)
    assert nicknames(other) == []


def test_what_dies_half_way_goes_on_where_it_stopped() -> None:
    tenant = make_tenant()
    client = staff_of(tenant)
    page, job = planned(client, tenant, people(450, gift="0.01"))
    client.post(page, {"confirmed": "yes"})
    lines = {line.number: line for line in read_sheet(bytes(job.content), import_jobs.importer_of(job.model).columns)}
    with scope.tenant(tenant.pk):
        for _time in range(2):  # then the worker dies
            assert import_jobs.write_some(job, import_jobs.importer_of(job.model), lines)
    assert standing(client, page) == {"state": "writing", "done": 400, "total": 450, "percent": 88}
    assert len(nicknames(tenant)) == 400
    assert audit.audit_tenant(tenant_id=tenant.pk) == []
    # Somebody comes by themselves meanwhile: their line is not what was shown any more.
    make_user(tenant, nickname="came", phone="13800000440")
    with scope.tenant(tenant.pk):
        ImportJob.objects.update(beat_at="2026-01-01T00:00Z")
    assert sweep_imports() == 1
    assert work(job) == "done"
    said = "Imported: 449 added, 0 changed. Left out, since they had changed meanwhile: 1."
    assert (job_of(tenant).said, len(nicknames(tenant))) == (said, 450)
    with scope.tenant(tenant.pk):
        assert EndUser.objects.get(phone="13800000440").nickname == "came"
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_what_may_not_go_on_says_what_is_written(settings: Settings) -> None:
    settings.STAFF_CREDIT_YUAN_PER_DAY = 3
    tenant = make_tenant()
    client = staff_of(tenant)
    page, job = planned(client, tenant, people(450, gift="0.01"))
    client.post(page, {"confirmed": "yes"})
    assert work(job) == "failed"
    assert len(nicknames(tenant)) == 200
    assert job_of(tenant).said.endswith("Imported: 200 added, 0 changed.")
    assert "Imported: 200 added" in client.get(page).content.decode()
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_what_is_not_wanted_or_cannot_be_read_is_thrown_away() -> None:
    tenant = make_tenant()
    client = staff_of(tenant, "content")
    words = [[f"word{n}", "", "mask"] for n in range(2001)]
    page, job = begun(client, tenant, WORDS, as_workbook(WORDS, words))
    work(job)
    client.post(page, {"thrown": "yes"})
    assert (standing(client, page)["state"], bytes(job_of(tenant).content)) == ("expired", b"")
    page, job = begun(client, tenant, WORDS, b"nothing\n" + b"x" * 1_100_000)
    assert work(job) == "failed"
    assert (
        "The first line must name the columns; missing: word. Nothing was written." in client.get(page).content.decode()
    )
    # Nobody confirms: the day after it is gone.
    page, job = begun(client, tenant, WORDS, as_csv(WORDS, words))
    work(job)
    with scope.tenant(tenant.pk):
        ImportJob.objects.filter(pk=job.pk).update(created_at="2026-01-01T00:00Z")
    assert sweep_imports() == 1
    assert (standing(client, page)["state"], bytes(job_of(tenant).content)) == ("expired", b"")
    with scope.tenant(tenant.pk):
        assert ModerationWord.objects.count() == 0
    too_long = b"word\n" + b"x\n" * 50_001
    page, job = begun(client, tenant, WORDS, too_long + b" " * 1_100_000)
    assert work(job) == "failed"
    assert job_of(tenant).said == "The file has more than 50000 lines. Please split it up. Nothing was written."
    answer = send(client, WORDS, b"x" * (8 * 1024 * 1024 + 1))
    assert "The file has more than 8 MB." in answer.content.decode()


def test_looking_takes_as_many_queries_for_ten_times_the_lines() -> None:
    tenant = make_tenant()
    importer = import_jobs.importer_of("tenants.EndUser")
    asked = []
    for count in (90, 900):
        lines = read_sheet(as_csv(PEOPLE, people(count)), importer.columns)
        with scope.tenant(tenant.pk), CaptureQueriesContext(connection) as queries:
            importer.plan(lines)
        asked.append(len(queries))
    assert asked == [1, 1]

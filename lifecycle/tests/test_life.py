"""A tenant's states, its move to another reseller, its archive and its end."""

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.db import IntegrityError, connections, transaction
from django.db.models import BinaryField, CharField, TextField
from django.test import Client
from django.utils import timezone, translation
from pytest_django import Settings

from billing import audit, commission, pricing, usage
from billing.models import Account, AccountKind, Commission, Hold, MerchantAccount, Order, UsageRecord
from billing.tests.conftest import Shop, open_shop
from chat.models import Attachment, Conversation, Message
from chat.tests.files import attach, picture
from chat.tests.talk import say
from lifecycle import archive, erasure, life, moving
from lifecycle.models import TenantDeletion, TenantEvent, TenantExport
from tenants import avatars, resolve, scope, second_factor
from tenants.errors import ProductError
from tenants.models import (
    Avatar,
    ChangeEntry,
    Domain,
    EndUser,
    ImportJob,
    Notice,
    Reseller,
    SecondFactor,
    StaffSession,
    StaffUser,
    Tenant,
)
from tenants.scope import TenantOwned
from tenants.secrets import EncryptedTextField
from tests.factories import (
    YUAN,
    credit,
    host_of,
    make_codes,
    make_mini_program,
    make_partner,
    make_plan,
    make_price,
    make_reseller,
    make_staff,
    make_tenant,
    make_terms,
    make_token,
    make_user,
    order_plan,
    pay,
)

Status = Tenant.Status


def events(tenant: Tenant) -> list[tuple[str, str, str, str]]:
    with scope.tenant(tenant.pk):
        return [(row.kind, row.status, row.reason, row.actor) for row in TenantEvent.objects.order_by("pk")]


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(ProductError) as refused:
        act()
    return refused.value.type


# --- states


@pytest.mark.django_db
def test_a_suspended_tenant_turns_users_away_and_lets_its_staff_look() -> None:
    tenant = make_tenant()
    user, staff, host = make_user(tenant), make_staff(tenant), host_of(tenant)
    token = make_token(user)
    life.suspend(tenant_id=tenant.pk, reason="The bill is not paid.", actor="olga")
    resolve.forget()
    client = Client(headers={"host": host})
    said = client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert (said.status_code, said.json()["type"]) == (404, "tenant_suspended")
    assert client.get("/").status_code == 404
    client.force_login(staff)
    page = client.get("/admin/")
    assert (page.status_code, page.content.decode().count("The bill is not paid.")) == (200, 1)
    resumed = life.resume(tenant_id=tenant.pk, reason="paid", actor="olga")
    resolve.forget()
    assert (resumed.status, resumed.status_reason) == (Status.ACTIVE, "")
    assert client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert events(tenant) == [
        ("suspended", "suspended", "The bill is not paid.", "olga"),
        ("resumed", "active", "paid", "olga"),
    ]


@pytest.mark.django_db
def test_what_does_not_fit_the_state_is_refused() -> None:
    tenant = make_tenant()
    today = timezone.localdate()
    assert refusal(lambda: life.suspend(tenant_id=tenant.pk, reason=" ", actor="o")) == "reason_wanted"
    assert refusal(lambda: life.resume(tenant_id=tenant.pk, reason="", actor="o")) == "tenant_state"
    assert refusal(lambda: life.activate(tenant_id=tenant.pk, reason="", actor="o")) == "tenant_state"
    yesterday = today - timedelta(days=1)
    assert refusal(lambda: life.set_trial(tenant_id=tenant.pk, ends_on=yesterday, reason="", actor="o")) == "trial_over"
    assert events(tenant) == []


@pytest.mark.django_db
def test_a_trial_is_told_of_and_ends(settings: Settings) -> None:
    reseller, today = make_reseller(), timezone.localdate()
    tenant = make_tenant(reseller=reseller)
    make_partner(reseller, email="partner@example.com", language="en")
    owner = make_staff(tenant)
    StaffUser.objects.filter(pk=owner.pk).update(email="owner@example.com", language="en")
    life.set_trial(tenant_id=tenant.pk, ends_on=today + timedelta(days=10), reason="", actor="o")
    told = [life.sweep_trials(today=today + timedelta(days=days)) for days in (2, 3, 3, 5, 7, 8, 9, 10)]
    assert told == [0, 1, 0, 0, 1, 0, 1, 0]
    assert sorted(address for letter in mail.outbox for address in letter.to) == (
        ["owner@example.com"] * 3 + ["partner@example.com"] * 3
    )
    mail.outbox.clear()
    assert [life.sweep_trials(today=today + timedelta(days=11)) for _ in range(2)] == [1, 0]
    tenant.refresh_from_db()
    assert (tenant.status, tenant.status_reason) == (Status.SUSPENDED, life.TRIAL_ENDED)
    assert {letter.subject for letter in mail.outbox} == {f"The trial of {tenant.name} has ended"}
    assert life.activate(tenant_id=tenant.pk, reason="bought", actor="o").trial_ends_on is None
    ended = f"The trial of {tenant.name} has ended"
    subjects = [f"The trial of {tenant.name} ends on {today + timedelta(days=10)}", ended]
    assert notices_to(tenant) == notices_to(reseller) == subjects


def notices_to(whose: Tenant | Reseller) -> list[str]:
    """Return what a tenant's staff, or a reseller's people, have in their list."""
    key = "tenant" if isinstance(whose, Tenant) else "reseller"
    with translation.override("en"), scope.platform("a test's look"):
        return [row.subject for row in Notice.objects.filter(**{key: whose, "kind": "expiry"}).order_by("id")]


@pytest.mark.django_db
def test_a_suspension_and_a_deletion_are_told_with_their_reason(django_capture_on_commit_callbacks: Any) -> None:
    reseller = make_reseller()
    tenant = make_tenant(reseller=reseller)
    make_partner(reseller, email="partner@example.com", language="en")
    for act in (
        lambda: life.suspend(tenant_id=tenant.pk, reason="The bill is not paid.", actor="o"),
        lambda: erasure.ask(tenant_id=tenant.pk, reason="It closed its shop.", actor="o"),
    ):
        with django_capture_on_commit_callbacks(execute=True):
            act()
    assert [letter.to for letter in mail.outbox] == [["partner@example.com"]] * 2
    assert ["The bill is not paid." in mail.outbox[0].body, "It closed its shop." in mail.outbox[1].body] == [True] * 2
    subjects = notices_to(tenant)
    assert (subjects[0], len(subjects), notices_to(reseller)) == (f"{tenant.name} is suspended", 2, subjects)
    assert subjects[1].startswith(f"{tenant.name} will be deleted on ")


@pytest.mark.usefixtures("committed_db")
def test_of_eight_who_suspend_at_once_one_does() -> None:
    tenant = make_tenant()

    def go(number: int) -> str:
        try:
            return life.suspend(tenant_id=tenant.pk, reason="late", actor=str(number)).status
        except ProductError as refused:
            return refused.type
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        said = sorted(pool.map(go, range(8)))
    assert said == [Status.SUSPENDED] + ["tenant_state"] * 7
    assert len(events(tenant)) == 1


@pytest.mark.django_db
def test_an_event_stays_as_it_was_written() -> None:
    tenant = make_tenant()
    life.suspend(tenant_id=tenant.pk, reason="late", actor="o")
    with scope.tenant(tenant.pk):
        for change in (lambda: TenantEvent.objects.update(reason="other"), lambda: TenantEvent.objects.all().delete()):
            with pytest.raises(IntegrityError), transaction.atomic():
                change()


# --- another reseller


def shop_of(reseller: Reseller | None) -> Shop:
    return open_shop(reseller=reseller)


@pytest.mark.django_db
def test_a_move_settles_up_to_its_moment_and_no_further() -> None:
    old, new = make_reseller(), make_reseller()
    make_terms(old, own_ppm=100_000)
    make_terms(new, own_ppm=200_000)
    shop = shop_of(old)
    credit(shop.user, 20 * YUAN)
    first = shop.admit()
    shop.settle(first)
    running = shop.admit()
    moved = moving.move(tenant_id=shop.tenant.pk, reseller_id=new.pk, reason="sold", actor="olga")
    with scope.tenant(shop.tenant.pk):
        share = Hold.objects.get(pk=first.pk).own_share
        assert [(row.reseller_id, row.amount) for row in Commission.objects.all()] == [(old.pk, share)]
    assert (moved.tenant.reseller_id, moved.settled) == (new.pk, {old.slug: share})
    shop.settle(running)
    later = shop.admit()
    shop.settle(later)
    with scope.tenant(shop.tenant.pk):
        shares = {row.pk: (row.reseller_id, row.own_share) for row in Hold.objects.all()}
        assert shares[running.pk] == (old.pk, share)
        assert shares[later.pk] == (new.pk, 2 * share)
    with scope.platform("what accrued"):
        accrued = Account.objects.filter(kind=AccountKind.RESELLER_ACCRUED, tenant=shop.tenant, posted__gt=0)
        assert dict(accrued.values_list("reseller_id", "posted")) == {old.pk: share, new.pk: 2 * share}
    commission.fold_day(day=timezone.localdate() + timedelta(days=1))
    with scope.platform("what accrued"):
        assert list(accrued.all()) == []
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    facts = {"old": old.slug, "new": new.slug, "settled": {old.slug: str(share)}}
    with scope.tenant(shop.tenant.pk):
        assert [(row.kind, row.facts) for row in TenantEvent.objects.all()] == [("moved", facts)]


@pytest.mark.django_db
def test_prices_are_judged_by_the_new_resellers(settings: Settings) -> None:
    new = make_reseller()
    shop = shop_of(None)
    make_price("wholesale", sku=shop.sku, rates=(3 * YUAN, YUAN, 9 * YUAN), reseller_id=new.pk)
    assert moving.under_water(tenant_id=shop.tenant.pk, reseller_id=new.pk) == [shop.sku]
    with pytest.raises(ProductError) as refused:
        moving.move(tenant_id=shop.tenant.pk, reseller_id=new.pk, reason="sold", actor="o")
    assert (refused.value.type, refused.value.facts["skus"]) == ("prices_below_floor", [shop.sku])
    shop.tenant.refresh_from_db()
    assert (shop.tenant.reseller_id, events(shop.tenant)) == (None, [])
    make_price("retail", sku=shop.sku, rates=(3 * YUAN, YUAN, 9 * YUAN), tenant_id=shop.tenant.pk)
    moving.move(tenant_id=shop.tenant.pk, reseller_id=new.pk, reason="sold", actor="o")
    assert refusal(lambda: moving.move(tenant_id=shop.tenant.pk, reseller_id=new.pk, reason="again", actor="o")) == (
        "same_reseller"
    )


@pytest.mark.usefixtures("committed_db")
def test_a_price_and_a_move_at_once_leave_no_price_below_its_floor() -> None:
    new = make_reseller()
    shop = shop_of(None)
    make_price("wholesale", sku=shop.sku, rates=(2 * YUAN, YUAN, 6 * YUAN), reseller_id=new.pk)

    def act(number: int) -> str:
        try:
            if number % 2:
                moving.move(
                    tenant_id=shop.tenant.pk, reseller_id=None if number % 4 == 1 else new.pk, reason="r", actor="o"
                )
            else:
                # Fits everybody's wholesale price, and not the new reseller's.
                make_price("retail", sku=shop.sku, rates=(YUAN, YUAN // 2, 3 * YUAN), tenant_id=shop.tenant.pk)
        except ProductError as refused:
            return refused.type
        finally:
            connections.close_all()
        return ""

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(16)))
    assert pricing.below_floor(tenant_id=shop.tenant.pk) == []


# --- the archive


@pytest.fixture
def _exports(settings: Settings, tmp_path: Path) -> None:
    settings.EXPORT_DIR = str(tmp_path / "exports")


def lived_in() -> Shop:
    """A tenant with users, money, an order, codes and what was said."""
    shop = shop_of(make_reseller())
    EndUser._base_manager  # noqa: B018
    credit(shop.user, 20 * YUAN)
    shop.settle(shop.admit())
    with scope.tenant(shop.tenant.pk):
        [hold] = Hold.objects.all()
        file = {"model": "tenants.EndUser", "staff_name": "owner", "content": b"a-file-of-people"}
        ImportJob.objects.create(tenant=shop.tenant, **file)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    say(shop.user, "a question of Alice's")
    attach(shop.user, "a.png", picture())
    with scope.tenant(shop.tenant.pk):
        avatars.keep(user=shop.user, data=picture())
        Avatar.objects.update(token="an-address")
    make_codes(shop.tenant)
    make_mini_program(shop.tenant, secret="an-app-secret")
    make_token(shop.user)
    pay(order_plan(shop.user, make_plan(shop.tenant)))
    with scope.tenant(shop.tenant.pk):
        MerchantAccount.objects.update(api_v3_key="k" * 32, private_key="a-private-key")
        EndUser.objects.filter(pk=shop.user.pk).update(phone="13800000000", nickname="Alice", password="pbkdf2$hash")
        Order.objects.update(payer_openid="oAlice")
    return shop


@pytest.mark.usefixtures("_exports")
@pytest.mark.django_db
def test_the_archive_has_every_row_and_no_secret() -> None:
    shop, other = lived_in(), lived_in()
    with scope.tenant(other.tenant.pk):
        EndUser.objects.filter(pk=other.user.pk).update(nickname="Mallory")
    asked = archive.ask(tenant=shop.tenant, actor="owner")
    assert refusal(lambda: archive.ask(tenant=shop.tenant, actor="owner")) == "export_running"
    assert [archive.make(tenant_id=shop.tenant.pk, export_id=asked.pk) for _ in range(2)] == [True, False]
    with scope.tenant(shop.tenant.pk):
        export = TenantExport.objects.get(pk=asked.pk)
        path = archive.path_of(export)
        assert (export.state, export.percent, export.size) == ("done", 100, path.stat().st_size)
        assert export.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert export.rows_done == export.rows_total - 1
        with zipfile.ZipFile(path) as bag:
            manifest = json.loads(bag.read("manifest.json"))
            files = {row["file"]: row for row in manifest["files"]}
            assert sorted(files) == sorted(f"{m._meta.label_lower}.jsonl" for m in archive.exported_models())
            for name, row in files.items():
                assert hashlib.sha256(bag.read(name)).hexdigest() == row["sha256"]
            for model in (Message, EndUser, UsageRecord, Domain):
                lines = bag.read(f"{model._meta.label_lower}.jsonl").splitlines()
                assert [str(json.loads(line)["id"]) for line in lines] == [
                    str(pk) for pk in model.objects.order_by("pk").values_list("pk", flat=True)
                ]
            [attached] = [json.loads(line) for line in bag.read("chat.attachment.jsonl").splitlines()]
            assert base64.b64decode(attached["data"]) == bytes(Attachment.objects.get().data)
            [avatar] = [json.loads(line) for line in bag.read("tenants.avatar.jsonl").splitlines()]
            assert base64.b64decode(avatar["data"]) == bytes(Avatar.objects.get().data)
            whole = b"".join(bag.read(name) for name in bag.namelist())
    assert (b"a question of Alice's" in whole, b"13800000000" in whole, b"Mallory" in whole) == (True, True, False)
    for secret in (
        b"an-app-secret",
        b"k" * 32,
        b"a-private-key",
        b"an-address",
        b"pbkdf2$hash",
        b'"cost"',
        b'"own_share"',
        b"a-file-of-people",
    ):
        assert (secret, secret in whole) == (secret, False)
    with scope.tenant(shop.tenant.pk):
        TenantExport.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert (archive.forget(), path.exists()) == (1, False)


# Texts that are named like what opens something, and open nothing.
HARMLESS: Final = {
    "billing.Hold.key",  # a client's own word for a message
    "billing.InvitationCode.code",  # shown to whoever is invited
    "billing.MerchantAccount.platform_key_id",
    "billing.MerchantAccount.platform_public_key",
    "chat.Attachment.sha256",  # of a file that was uploaded
    "chat.ModerationWord.key",  # a word as it is compared
    "lifecycle.TenantExport.sha256",  # an archive's own
    "tenants.SmsAccount.access_key_id",
    "tenants.SmsAccount.template_code",
    "tenants.SmsAccount.template_code_en",
}
OPENS: Final = re.compile(
    r"secret|pass|digest|hash|sha|token|nonce|private|key|code|last4|salt|otp|credential|session|cookie|signature|bearer"
)


def test_no_column_that_opens_something_is_taken_along() -> None:
    """A new column is judged by its type and its name: it stays out, or somebody says here that it opens nothing."""
    taken = {
        f"{model._meta.label}.{field.name}": field
        for model in archive.exported_models()
        for field in archive.columns_of(model)
    }
    assert [name for name, field in taken.items() if isinstance(field, EncryptedTextField)] == []
    texts = {name for name, field in taken.items() if isinstance(field, (CharField, TextField, BinaryField))}
    assert {name for name in texts if OPENS.search(name.rpartition(".")[2])} == HARMLESS


# --- the end


@pytest.mark.usefixtures("_exports")
@pytest.mark.django_db
def test_a_tenant_is_deleted_with_proof_and_the_books_stay_right() -> None:
    shop, other = lived_in(), lived_in()
    staff, shared = make_staff(shop.tenant), make_staff(shop.tenant, other.tenant)
    LogEntry.objects.log_actions(staff.pk, [shop.user], action_flag=2, single_object=True)
    second_factor.begin(staff)
    StaffSession.objects.create(staff=staff, host="h", address="203.0.113.9", device="Firefox")
    with scope.platform("a test's log"):
        for tenant in (shop.tenant, other.tenant, None):
            ChangeEntry.objects.create(tenant=tenant, actor="o", action="changed", model="m", row="1", changes={})
    host = host_of(shop.tenant)
    before = shop.books()
    asked = erasure.ask(tenant_id=shop.tenant.pk, reason="closed its shop", actor="olga")
    assert refusal(lambda: life.resume(tenant_id=shop.tenant.pk, reason="", actor="o")) == "deletion_waiting"
    assert refusal(lambda: erasure.erase(tenant_id=shop.tenant.pk, actor="o")) == "deletion_not_due"
    assert erasure.sweep() == 0
    with scope.tenant(shop.tenant.pk):
        TenantDeletion.objects.filter(pk=asked.pk).update(due_at=timezone.now())
    assert [erasure.sweep() for _ in range(2)] == [1, 0]
    with scope.tenant(shop.tenant.pk):
        done = TenantDeletion.objects.get()
        assert (done.state, done.deleted["chat.Message"], done.deleted["tenants.Domain"]) == ("done", 1, 1)
        assert len(done.digest) == 64
        left = {model._meta.label: model.objects.count() for model in erasure.deleted_models()}
        assert {label: count for label, count in left.items() if count} == {}
        person = EndUser.objects.get(pk=shop.user.pk)
        assert (person.username, person.phone, person.nickname, person.password) == (None, None, "", "")
        assert set(MerchantAccount.objects.values_list("is_enabled", flat=True)) == {True}
        assert [row.private_key for row in MerchantAccount.objects.all()] == [""]
        assert set(Order.objects.values_list("payer_openid", flat=True)) == {""}
        with pytest.raises(IntegrityError), transaction.atomic():
            TenantDeletion.objects.update(digest="0" * 64)
    with scope.platform("a test's log"):
        logged = ChangeEntry.objects.filter(actor="o").order_by("tenant_id")
        assert [row.tenant_id for row in logged] == [other.tenant.pk, None]
    assert [model.objects.filter(staff=staff).count() for model in (SecondFactor, StaffSession)] == [0, 0]
    shop.tenant.refresh_from_db()
    assert (shop.tenant.status, shop.books()) == (Status.CLOSED, before)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    assert LogEntry.objects.filter(object_id=str(shop.user.pk)).count() == 0
    staff.refresh_from_db()
    shared.refresh_from_db()
    assert (staff.is_active, staff.username, shared.is_active) == (False, f"deleted-{staff.pk}", True)
    resolve.forget()
    assert Client(headers={"host": host}).get("/admin/").status_code == 404
    with scope.tenant(other.tenant.pk):
        assert (Message.objects.count(), EndUser.objects.get(pk=other.user.pk).nickname) == (1, "Alice")
        assert Conversation.objects.count() == 1


@pytest.mark.django_db
def test_a_deletion_is_called_off_in_its_days_of_grace() -> None:
    tenant = make_tenant()
    erasure.ask(tenant_id=tenant.pk, reason="closed", actor="o")
    assert refusal(lambda: erasure.ask(tenant_id=tenant.pk, reason="again", actor="o")) == "deletion_waiting"
    calls = [erasure.call_off(tenant_id=tenant.pk, reason="back", actor="o") for _ in range(2)]
    assert calls == [True, False]
    assert life.resume(tenant_id=tenant.pk, reason="back", actor="o").status == Status.ACTIVE
    assert [row[0] for row in events(tenant)] == ["deletion_asked", "deletion_cancelled", "resumed"]


@pytest.mark.django_db
def test_what_is_under_way_ends_first() -> None:
    shop = shop_of(None)
    credit(shop.user, 20 * YUAN)
    hold = shop.admit()
    erasure.ask(tenant_id=shop.tenant.pk, reason="closed", actor="o")
    with scope.tenant(shop.tenant.pk):
        TenantDeletion.objects.update(due_at=timezone.now())
    assert refusal(lambda: erasure.erase(tenant_id=shop.tenant.pk, actor="o")) == "money_under_way"
    assert erasure.sweep() == 0
    shop.void(hold)
    assert erasure.sweep() == 1


def test_every_kind_of_row_either_stays_or_goes() -> None:
    owned = {model for model in apps.get_models() if issubclass(model, TenantOwned)}
    kept, gone = set(erasure.kept_models()), set(erasure.deleted_models())
    assert (kept | gone, kept & gone) == (owned, set())
    assert {model._meta.label for model in kept if model._meta.app_label != "billing"} == {
        "tenants.EndUser",
        "lifecycle.TenantEvent",
        "lifecycle.TenantExport",
        "lifecycle.TenantDeletion",
    }


# Columns that are named like a person's, and are nobody's.
NOBODYS: Final = {
    "billing.Order.package_name",
    "billing.Package.name",
    "billing.Plan.name",
    "billing.RedeemBatch.name",
    "billing.RewardRules.per_address",
    "billing.RewardRules.per_device",
    "billing.Subscription.name",
}
PERSONAL: Final = re.compile(r"phone|mail|name|nick|openid|unionid|address|device|agent|password|session|language|^ip$")


def test_nothing_that_tells_who_somebody_is_stays() -> None:
    """A new column of a row that stays is judged by its name: it is stripped, or somebody says here why not."""
    left = {
        f"{model._meta.label}.{field.name}"
        for model in erasure.kept_models()
        for field in model._meta.concrete_fields
        if PERSONAL.search(field.name) and field.name not in erasure.stripped(model)
    }
    assert left == NOBODYS


@pytest.mark.django_db
def test_the_log_of_changes_goes_with_its_tenant_alone() -> None:
    tenant, closed = make_tenant(), make_tenant(status="closed")
    with scope.platform("a test's log"):
        rows = [
            ChangeEntry.objects.create(tenant=whose, actor="o", action="changed", model="m", row="1", changes={})
            for whose in (tenant, closed, None)
        ]
        for row, goes in zip(rows, (False, True, False), strict=True):
            with nullcontext() if goes else pytest.raises(IntegrityError), transaction.atomic():
                ChangeEntry.objects.filter(pk=row.pk).delete()
            with pytest.raises(IntegrityError), transaction.atomic():
                ChangeEntry.objects.filter(pk=row.pk).update(actor="nobody")

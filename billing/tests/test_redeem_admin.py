"""Owners, finance and the operator make, export and revoke codes; nobody else, and nobody another tenant's."""

import csv
import io
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from structlog.testing import capture_logs

from billing import redeem
from billing.models import RedeemBatch, RedeemCode
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.models import StaffUser
from tests.factories import YUAN, host_of, make_codes, make_operator, make_staff

BATCH = {"name": "Spring", "yuan": "10.5", "kind": "cash", "count": "3", "per_user_limit": "2"}
NEVER = {"expires_at_0": "", "expires_at_1": ""}


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def theirs(db: None) -> Shop:
    """Another tenant, with codes."""
    other = open_shop()
    make_codes(other.tenant, 2, name="Not for your eyes")
    return other


def client_of(shop: Shop, role: str) -> Client:
    return browser(host_of(shop.tenant), make_staff(shop.tenant, role=role))


def browser(host: str, staff: StaffUser) -> Client:
    client = Client(HTTP_HOST=host)
    client.force_login(staff)
    return client


def path(site: str, model: type[Any], page: str = "changelist", *args: object) -> str:
    return reverse(f"{site}:billing_{model.__name__.lower()}_{page}", args=args)


def act(client: Client, model: type[Any], action: str, *rows: int, site: str = "tenant_admin") -> Any:
    return client.post(path(site, model), {"action": action, "_selected_action": rows})


def batch_of(shop: Shop) -> RedeemBatch:
    with scope.tenant(shop.tenant.pk):
        return RedeemBatch.objects.latest("pk")


def codes_of(shop: Shop) -> list[RedeemCode]:
    with scope.tenant(shop.tenant.pk):
        return list(RedeemCode.objects.select_related("batch").order_by("pk"))


@pytest.mark.parametrize("role", ["owner", "finance"])
def test_a_batch_is_made_at_the_tenants_site(shop: Shop, theirs: Shop, role: str) -> None:
    client = client_of(shop, role)
    form = client.get(path("tenant_admin", RedeemBatch, "add")).content.decode()
    assert ('name="yuan"' in form, 'name="tenant"' in form, theirs.tenant.slug in form) == (True, False, False)
    with capture_logs() as logs:
        # A tenant that is named all the same is not listened to.
        answer = client.post(path("tenant_admin", RedeemBatch, "add"), {**BATCH, **NEVER, "tenant": theirs.tenant.pk})
    assert answer.status_code == 302
    batch, staff = batch_of(shop), StaffUser.objects.get(pk=client.session["_auth_user_id"])
    assert (batch.name, batch.amount, batch.kind, batch.count) == ("Spring", 10_500_000, "cash", 3)
    assert (batch.per_user_limit, batch.expires_at, batch.created_by) == (2, None, staff.username)
    assert (len(codes_of(shop)), len(codes_of(theirs))) == (3, 2)
    made = {"staff": staff.pk, "tenant_id": shop.tenant.pk, "row": batch.pk, "event": "redeem_codes_made"}
    assert made.items() <= next(log for log in logs if log["event"] == "redeem_codes_made").items()
    assert client.get(path("tenant_admin", RedeemBatch, "change", batch.pk)).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"yuan": "0"},
        {"yuan": "-1"},
        {"yuan": "1e3"},
        {"yuan": "100000.01"},
        {"count": "0"},
        {"count": "10001"},
        {"per_user_limit": "0"},
        {"name": ""},
        {"kind": "points"},
        {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"},
    ],
)
def test_a_form_that_makes_no_sense_makes_nothing(shop: Shop, wrong: dict[str, str]) -> None:
    answer = client_of(shop, "owner").post(path("tenant_admin", RedeemBatch, "add"), {**BATCH, **NEVER, **wrong})
    assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    assert codes_of(shop) == []


def test_the_operator_makes_a_batch_for_a_tenant(shop: Shop) -> None:
    client = browser("localhost", make_operator())
    answer = client.post(path("admin", RedeemBatch, "add"), {**BATCH, **NEVER, "tenant": shop.tenant.pk})
    assert (answer.status_code, len(codes_of(shop))) == (302, 3)
    assert client.get(path("admin", RedeemBatch, "change", batch_of(shop).pk)).status_code == 200


def test_an_export_has_every_code_and_is_written_down(shop: Shop, theirs: Shop) -> None:
    used, revoked, late = make_codes(shop.tenant, 3)
    redeem.redeem(tenant_id=shop.tenant.pk, user_id=shop.user.pk, code=used)
    redeem.revoke_code(tenant_id=shop.tenant.pk, code_id=codes_of(shop)[1].pk)
    client, batch = client_of(shop, "finance"), batch_of(shop)
    with capture_logs() as logs:
        answer = act(client, RedeemBatch, "export_codes", batch.pk, batch_of(theirs).pk)
    assert (answer["Content-Type"], "no-store" in answer["Cache-Control"]) == ("text/csv; charset=utf-8", True)
    assert answer["Content-Disposition"] == f'attachment; filename="redeem-codes-{batch.pk}.csv"'
    lines = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    link = f"http://{host_of(shop.tenant)}/r/"
    assert lines == [
        ["batch", "code", "link", "yuan", "state"],
        [str(batch.pk), used, link + used, "10.00", "redeemed"],
        [str(batch.pk), revoked, link + revoked, "10.00", "withdrawn"],
        [str(batch.pk), late, link + late, "10.00", "open"],
    ]
    staff = int(client.session["_auth_user_id"])
    assert [(log["staff"], log["row"]) for log in logs if log["event"] == "redeem_codes_exported"] == [
        (staff, batch.pk)
    ]
    entry = LogEntry.objects.get(user_id=staff)
    assert (entry.object_id, entry.change_message) == (str(batch.pk), "The codes were exported.")
    assert [code for code in (used, revoked, late) if code in str(logs)] == []


def test_the_operators_export_names_each_tenants_own_address(shop: Shop, theirs: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    rows = [batch_of(shop).pk, batch_of(theirs).pk]
    answer = act(browser("localhost", make_operator()), RedeemBatch, "export_codes", *rows, site="admin")
    links = [line[2] for line in csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))][1:]
    other = [f"http://{host_of(theirs.tenant)}/r/{row.written}" for row in codes_of(theirs)]
    assert sorted(links) == sorted([f"http://{host_of(shop.tenant)}/r/{code}", *other])


def test_bulk_export_is_for_the_roles_that_may_make_codes(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    batch = batch_of(shop)
    seen = {}
    for role in ("owner", "finance", "support", "content"):
        answer = act(client_of(shop, role), RedeemBatch, "export_codes", batch.pk)
        seen[role] = (answer.status_code, code in answer.content.decode())
    assert seen == {"owner": (200, True), "finance": (200, True), "support": (403, False), "content": (403, False)}
    assert LogEntry.objects.filter(object_id=batch.pk).count() == 2


@pytest.mark.parametrize("role", ["support", "content"])
def test_other_roles_make_and_revoke_nothing(shop: Shop, role: str) -> None:
    make_codes(shop.tenant)
    client, (code,) = client_of(shop, role), codes_of(shop)
    add = path("tenant_admin", RedeemBatch, "add")
    assert [client.get(add).status_code, client.post(add, {**BATCH, **NEVER}).status_code] == [403, 403]
    act(client, RedeemBatch, "revoke", code.batch_id)
    act(client, RedeemCode, "revoke", code.pk)
    assert [row.revoked_at for row in codes_of(shop)] == [None]


def test_a_batch_is_never_changed_or_deleted(shop: Shop) -> None:
    make_codes(shop.tenant)
    batch = batch_of(shop)
    for client, site in ((client_of(shop, "owner"), "tenant_admin"), (browser("localhost", make_operator()), "admin")):
        change, delete = (path(site, RedeemBatch, page, batch.pk) for page in ("change", "delete"))
        refused = [client.post(change, {**BATCH, **NEVER}), client.post(delete, {"post": "yes"})]
        assert [answer.status_code for answer in refused] == [403, 403]
    assert batch_of(shop).amount == 10 * YUAN


def test_another_tenants_rows_are_out_of_reach(shop: Shop, theirs: Shop) -> None:
    make_codes(shop.tenant)
    client, other = client_of(shop, "owner"), codes_of(theirs)
    for model, row in ((RedeemBatch, other[0].batch_id), (RedeemCode, other[0].pk)):
        page = client.get(path("tenant_admin", model))
        assert page.context["cl"].result_count == 1
        assert client.get(path("tenant_admin", model, "change", row)).status_code == 404
        act(client, model, "revoke", row)
    exported = act(client, RedeemBatch, "export_codes", other[0].batch_id)
    assert [code for code in other if code.written in exported.content.decode()] == []
    assert [code.revoked_at for code in codes_of(theirs)] == [None, None]
    assert batch_of(theirs).revoked_at is None
    stranger = browser(host_of(shop.tenant), make_staff(theirs.tenant))
    assert stranger.get(path("tenant_admin", RedeemBatch)).status_code == 302


def test_revoking_a_batch_and_a_code(shop: Shop) -> None:
    used, *_rest = make_codes(shop.tenant, 3)
    redeem.redeem(tenant_id=shop.tenant.pk, user_id=shop.user.pk, code=used)
    client, rows = client_of(shop, "finance"), codes_of(shop)
    act(client, RedeemCode, "revoke", rows[0].pk, rows[1].pk)
    assert [row.revoked_at is not None for row in codes_of(shop)] == [False, True, False]
    act(client, RedeemBatch, "revoke", rows[0].batch_id)
    assert [row.revoked_at is not None for row in codes_of(shop)] == [False, True, True]
    assert batch_of(shop).revoked_at is not None
    said = sorted(LogEntry.objects.filter(user_id=client.session["_auth_user_id"]).values_list("change_message"))
    assert said == [("The batch was revoked.",), ("The code was revoked.",)]


@pytest.mark.parametrize("role", ["owner", "finance", "support"])
def test_codes_are_shown_by_their_ends_only(shop: Shop, role: str) -> None:
    (code,) = make_codes(shop.tenant)
    client, (row,) = client_of(shop, role), codes_of(shop)
    pages = [
        client.get(path("tenant_admin", RedeemCode)),
        client.get(path("tenant_admin", RedeemCode, "change", row.pk)),
    ]
    for page in pages:
        shown = page.content.decode()
        secrets = (code, row.code, code[:9], row.digest)
        assert (f"…{code[-4:]}" in shown, [text for text in secrets if text in shown]) == (True, [])


def test_a_code_is_found_by_the_whole_of_it(shop: Shop, theirs: Shop) -> None:
    wanted, _other = make_codes(shop.tenant, 2)
    client = client_of(shop, "support")

    def found(query: str) -> list[int]:
        return [row.pk for row in client.get(path("tenant_admin", RedeemCode), {"q": query}).context["cl"].result_list]

    mine = [row.pk for row in codes_of(shop)]
    assert found(wanted.lower()) == [mine[0]]
    assert found(wanted[-4:]) == []
    assert found(codes_of(theirs)[0].written) == []
    assert found(batch_of(shop).name) == mine[::-1]

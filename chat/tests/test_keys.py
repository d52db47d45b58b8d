"""API keys: one's own, shown once, ended at once; what they spend, whatever dies meanwhile; what staff see of them."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing import holds
from billing.pricing import Quantities
from chat import keys, spool
from chat.models import ApiKey, Message
from chat.tasks import close_orphans
from chat.turn import Ask, Call, Checkpoint, Outcome, Turn, checkpoint_turns, close_turn, dispatch_turn, open_turn
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Membership, Tenant
from tests.factories import host_of, make_operator, make_staff, make_tenant, make_token, make_user
from tests.programs import expect_right_books, make_key
from tests.shop import YUAN, Shop, open_shop

PATH = "/api/keys"


def client_of(tenant: Tenant, user: EndUser) -> Client:
    return Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(user)}"})


def post(client: Client, path: str, **values: Any) -> Any:
    return client.post(path, values, content_type="application/json")


@pytest.mark.django_db
def test_a_key_is_made_shown_once_changed_and_revoked() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    client = client_of(tenant, user)
    made = post(client, PATH, name=" mine ", spend_limit=5 * YUAN, models=["a"]).json()["data"]
    secret, key = made["secret"], made["key"]
    assert re.fullmatch(r"sk-bny-[A-Za-z0-9_-]{43}", secret)
    assert key == {
        "id": key["id"],
        "name": "mine",
        "hint": f"sk-bny-…{secret[-4:]}",
        "models": ["a"],
        "spend_limit": str(5 * YUAN),
        "spent": "0",
        "created_at": key["created_at"],
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    listed = client.get(PATH)
    assert (listed.json()["data"], secret in listed.content.decode()) == ([key], False)
    changed = post(client, f"{PATH}/{key['id']}", name="yours", spend_limit=None, models=[]).json()["data"]
    assert changed == {**key, "name": "yours", "spend_limit": None, "models": []}
    assert post(client, f"{PATH}/{key['id']}", name=None).status_code == 400
    with scope.tenant(tenant.pk):
        assert keys.key_of(tenant_id=tenant.pk, secret=secret).pk == key["id"]
    assert [post(client, f"{PATH}/{key['id']}/revoke").json()["data"]["revoked"] for _ in range(2)] == [True, False]
    with scope.tenant(tenant.pk), pytest.raises(ProductError) as refused:
        keys.key_of(tenant_id=tenant.pk, secret=secret)
    assert (refused.value.code, refused.value.type) == (ErrorCode.LOGIN, "api_key_invalid")


@pytest.mark.django_db
def test_nobody_elses_key_is_there() -> None:
    tenant, other = make_tenant(), make_tenant()
    owner, neighbour, stranger = make_user(tenant), make_user(tenant), make_user(other)
    with scope.tenant(tenant.pk):
        key, secret = keys.make_key(user=owner, name="a private name")
    for client in (client_of(tenant, neighbour), client_of(other, stranger)):
        assert client.get(PATH).json()["data"] == []
        for path in (f"{PATH}/{key.pk}", f"{PATH}/{key.pk}/revoke"):
            answer = post(client, path, name="taken")
            assert (answer.status_code, answer.json()["type"]) == (404, "api_key_not_found")
    with scope.tenant(other.pk), pytest.raises(ProductError) as refused:
        keys.key_of(tenant_id=other.pk, secret=secret)
    assert refused.value.type == "api_key_invalid"
    with scope.tenant(tenant.pk):
        assert ApiKey.objects.get().name == "a private name"
        assert ApiKey.objects.get().revoked_at is None
    # A log-in is no key, and a key is no log-in.
    assert Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {secret}"}).get(PATH).status_code == 401


@pytest.mark.django_db
def test_who_may_not_have_one(settings: Any) -> None:
    tenant = make_tenant()
    guest, user = make_user(tenant, is_guest=True), make_user(tenant)
    assert post(client_of(tenant, guest), PATH, name="x").json()["type"] == "guest_without_keys"
    settings.API_KEYS_PER_USER = 1
    client = client_of(tenant, user)
    past = (timezone.now() - timedelta(seconds=1)).isoformat()
    assert post(client, PATH, name="x", expires_at=past).json()["type"] == "api_key_invalid_expiry"
    for wrong in ({"name": ""}, {"name": "x", "spend_limit": -1}, {"name": "x", "expires_at": "2030-01-01T00:00:00"}):
        assert post(client, PATH, **wrong).json()["type"] == "invalid_request"
    key = post(client, PATH, name="x").json()["data"]["key"]
    refused = post(client, PATH, name="y").json()
    assert (refused["code"], refused["type"], refused["limit"]) == (102, "too_many_keys", 1)
    post(client, f"{PATH}/{key['id']}/revoke")
    assert post(client, PATH, name="y").status_code == 200


@pytest.mark.django_db
def test_use_is_noted_at_most_once_a_minute() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        key, secret = keys.make_key(user=make_user(tenant), name="x")
        keys.key_of(tenant_id=tenant.pk, secret=secret)
        first = ApiKey.objects.get(pk=key.pk).last_used_at
        keys.key_of(tenant_id=tenant.pk, secret=secret)
        assert ApiKey.objects.get(pk=key.pk).last_used_at == first is not None
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=first - timedelta(seconds=61))
        keys.key_of(tenant_id=tenant.pk, secret=secret)
        assert (ApiKey.objects.get(pk=key.pk).last_used_at or first - timedelta(days=1)) >= first


@pytest.mark.django_db
def test_staff_look_at_keys_without_secrets_and_revoke_them() -> None:
    tenant, other = make_tenant(), make_tenant()
    with scope.tenant(tenant.pk):
        key, secret = keys.make_key(user=make_user(tenant), name="a private name")
    listed = reverse("tenant_admin:chat_apikey_changelist")
    revoke = {"action": "revoke", "_selected_action": [str(key.pk)]}
    finance, foreign = Client(headers={"host": host_of(tenant)}), Client(headers={"host": host_of(other)})
    finance.force_login(make_staff(tenant, role=Membership.Role.FINANCE))
    foreign.force_login(make_staff(other))
    assert finance.get(listed).status_code == 403
    assert "a private name" not in foreign.get(listed).content.decode()
    foreign.post(listed, revoke)
    with scope.tenant(tenant.pk):
        assert ApiKey.objects.get().revoked_at is None
    support = Client(headers={"host": host_of(tenant)})
    support.force_login(make_staff(tenant, role=Membership.Role.SUPPORT))
    operator = Client(headers={"host": "localhost"})
    operator.force_login(make_operator())
    pages = [
        support.get(listed),
        support.get(reverse("tenant_admin:chat_apikey_change", args=[key.pk])),
        operator.get(reverse("admin:chat_apikey_changelist")),
        operator.get(reverse("admin:chat_apikey_change", args=[key.pk])),
    ]
    for page in pages:
        text = page.content.decode()
        assert ("a private name" in text, secret in text, key.digest in text) == (True, False, False)
    assert support.post(listed, revoke).status_code == 302
    with scope.tenant(tenant.pk):
        assert ApiKey.objects.get().revoked_at is not None


# --- what dies meanwhile ---


@pytest.fixture
def shop(committed_db: None, upstream_url: str) -> Shop:
    shop = open_shop(upstream_url)
    shop.offer("m")
    return shop


def call(shop: Shop, key: ApiKey, **fields: Any) -> Turn:
    asked = Call(key_id=key.pk, messages=[{"role": "user", "content": "a private question"}], digest="0" * 64)
    ask = Ask(model="m", call=asked, **fields)
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=ask, language="en")
    assert dispatch_turn(turn)
    return turn


def ended(text: str = "a private answer") -> Outcome:
    usage = holds.Usage(prompt=10, completion=100, source="upstream")
    return Outcome(text=text, had_output=True, finish_reason="stop", usage=usage)


def leave_to_the_sweep(shop: Shop) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_hold SET expires_at = now() - interval '1 second' WHERE tenant_id = %s AND state = 'held'",
            [shop.tenant.pk],
        )
    holds.expire_holds()


def spent(shop: Shop, key: ApiKey) -> int:
    with scope.tenant(shop.tenant.pk):
        return ApiKey.objects.get(pk=key.pk).spent


def test_a_call_whose_process_died_is_charged_to_its_key_at_the_checkpoint_and_put_right_later(
    shop: Shop, tmp_path: Path, settings: Any
) -> None:
    settings.VAR_DIR = tmp_path
    key, _secret = make_key(shop.alice)
    turn = call(shop, key)
    quantities = Quantities(prompt=20, completion=5)
    checkpoint = Checkpoint(turn=turn, outcome=Outcome(text="1 2 3", had_output=True), quantities=quantities)
    assert checkpoint_turns([checkpoint]) == {}
    leave_to_the_sweep(shop)
    close_orphans()
    [hold], [message] = shop.holds(), shop.messages()
    assert (hold.state, hold.reason, message.state, message.answer) == ("posted", "interrupted", "cut", "")
    assert spent(shop, key) == hold.charge > 0
    spool.keep(turn, ended())
    [file] = (tmp_path / "spool").iterdir()
    assert b"private" not in file.read_bytes()
    again = file.read_bytes()
    assert spool.settle() == 1
    file.write_bytes(again)
    assert spool.settle() == 1
    [message] = shop.messages()
    assert message.receipt is not None
    assert (message.state, message.answer, message.question) == ("done", "", "")
    assert spent(shop, key) == int(message.receipt["charge"]) == 20 * YUAN - shop.balance(shop.alice).cash
    expect_right_books(shop)


def test_a_limit_counts_what_is_under_way_and_frees_what_was_not_spent(shop: Shop) -> None:
    key, _secret = make_key(shop.alice, spend_limit=8100)
    turn = call(shop, key)
    [hold] = shop.holds()
    assert 8000 < hold.amount <= 8100
    with pytest.raises(ProductError) as refused:
        call(shop, key)
    assert (refused.value.type, refused.value.facts["used"]) == ("api_key_limit_reached", str(hold.amount))
    assert len(shop.messages()) == 1
    close_turn(turn, ended())
    assert spent(shop, key) == 820
    turn = call(shop, key)
    # Of what is left the second may take all, and its answer is cut to that.
    assert 0 < shop.holds()[1].amount <= 8100 - 820
    assert turn.cut_to_balance
    close_turn(turn, Outcome(text="", had_output=False))
    assert spent(shop, key) == 820
    expect_right_books(shop)


def test_the_database_keeps_no_text_of_a_call(shop: Shop) -> None:
    key, _secret = make_key(shop.alice)
    turn = call(shop, key)
    with scope.tenant(shop.tenant.pk):
        for column in ("question", "answer"):
            with pytest.raises(IntegrityError), transaction.atomic():
                Message.objects.filter(pk=turn.message_id).update(**{column: "text"})
    close_turn(turn, ended())
    expect_right_books(shop)


def test_a_call_is_a_receipt_and_no_message_of_the_history(shop: Shop) -> None:
    key, _secret = make_key(shop.alice)
    turn = call(shop, key)
    close_turn(turn, ended())
    client = Client(headers={"Host": shop.host, "Authorization": f"Bearer {shop.alice.token}"})
    [receipt] = client.get("/api/billing/receipts").json()["data"]
    assert (receipt["message_id"], receipt["conversation_id"], receipt["api_key_id"]) == (
        *(str(turn.message_id), None, key.pk),
    )
    assert receipt["receipt"]["charge"] == "820"
    assert client.get("/api/chat/conversations").json()["data"] == []
    assert client.get(f"/api/chat/messages/{turn.message_id}").status_code == 404

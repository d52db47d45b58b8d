"""A dump of the database, and the logs of everything that handles them, show no secret in clear text.

What is encrypted is found by its field: whoever adds an `EncryptedTextField` to a model without a row here is told.
"""

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings as configured
from django.db.models import Model

from billing import codes, recharge
from billing.models import MerchantAccount, RedeemCode, Withdrawal
from chat.models import UpstreamAccount
from chat.moderation.models import ModerationHit
from lifecycle.models import Opening
from saas.local.postgres import find_programs
from tenants import scope
from tenants.models import MiniProgram, SecondFactor, SignInSettings, SmsAccount, StaffUser, WeChatIdentity
from tenants.secrets import EncryptedTextField
from tests.clients.raw import ask
from tests.factories import make_codes, make_mini_program, make_reseller, make_staff, make_token, make_user, unique
from tests.programs import make_key
from tests.servers import database_url_of_this_test, web_server
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


def make_code(shop: Shop) -> RedeemCode:
    """Return the only code of a new batch."""
    [written] = make_codes(shop.tenant)
    return RedeemCode.objects.get(digest__in=codes.digests_of(codes.normal(written) or ""))


# A row of each model that has encrypted fields, with which values in the others does not matter.
# A withdrawal of so much is written here alone.
PAST_THE_BOOKS = 123_457
ROWS: Final[dict[type[Model], Callable[[Shop], Model]]] = {
    MiniProgram: lambda shop: make_mini_program(shop.tenant),
    UpstreamAccount: lambda shop: shop.account,
    MerchantAccount: lambda shop: MerchantAccount.objects.create(
        tenant=shop.tenant,
        channel="wechat",
        merchant_id="1900000001",
        app_id=unique("wx")[:20],
        certificate_serial="5157",
    ),
    RedeemCode: make_code,
    ModerationHit: lambda shop: ModerationHit.objects.create(
        tenant=shop.tenant, user=shop.alice.user, direction="question", source="tenant", action="block", text="1"
    ),
    SecondFactor: lambda _shop: SecondFactor.objects.create(staff=make_staff(), key="1"),
    WeChatIdentity: lambda shop: WeChatIdentity.objects.create(
        tenant=shop.tenant, user=shop.alice.user, app_id=unique("wx")[:20], openid="1"
    ),
    SignInSettings: lambda shop: SignInSettings.objects.create(tenant=shop.tenant),
    SmsAccount: lambda shop: SmsAccount.objects.create(tenant=shop.tenant),
    Opening: lambda _shop: Opening.objects.create(key=unique("key")),
    Withdrawal: lambda _shop: Withdrawal.objects.create(
        reseller=make_reseller(),
        amount=PAST_THE_BOOKS,
        fee=0,
        payee="1",
        bank="1",
        bank_account="1",
        maker=make_staff(),
    ),
}


def encrypted_fields() -> dict[type[Model], list[str]]:
    """Return every encrypted field of every model."""
    found = {
        model: [field.name for field in model._meta.concrete_fields if isinstance(field, EncryptedTextField)]
        for model in apps.get_models()
    }
    return {model: names for model, names in found.items() if names}


def forms(secret: str) -> set[bytes]:
    """Return what a secret would look like in a dump or a log, written down or thinly veiled."""
    plain = secret.encode()
    return {plain, base64.b64encode(plain).rstrip(b"="), plain.hex().encode(), quote(secret).encode()}


def shown(data: bytes, kept: dict[str, str]) -> list[str]:
    """Return the names of the secrets that `data` shows."""
    return [name for name, secret in kept.items() if any(form in data for form in forms(secret))]


@pytest.fixture
def key(settings: Any) -> Iterator[str]:
    key = Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [key]
    yield key
    # It has no transfer, which an audit of the whole ledger would find.
    Withdrawal.objects.filter(amount=PAST_THE_BOOKS).delete()


def store_everything(shop: Shop) -> dict[str, str]:
    """Store a secret in every place that there is for one; return them by name."""
    kept: dict[str, str] = {}
    for model, names in encrypted_fields().items():
        with scope.platform("secrets of every kind") if model is UpstreamAccount else scope.tenant(shop.tenant.pk):
            row = ROWS[model](shop)
            values = {name: secrets.token_urlsafe(24) for name in names}
            assert model._base_manager.filter(pk=row.pk).update(**values) == 1
            stored = model._base_manager.get(pk=row.pk)
        assert {name: getattr(stored, name) for name in names} == values
        kept |= {f"{model.__name__}.{name}": value for name, value in values.items()}
    written = make_codes(shop.tenant)[0]
    kept |= {"a code": written.replace("-", ""), "a code as written": written}
    password = f"pw-{secrets.token_urlsafe(24)}"
    user = make_user(shop.tenant, password=password)
    kept |= {"a user's password": password, "a user's token": make_token(user), "an API key": make_key(shop.alice)[1]}
    staff = make_staff(shop.tenant)
    staff.set_password(password[::-1])
    StaffUser.objects.filter(pk=staff.pk).update(password=staff.password)
    return kept | {"a staff user's password": password[::-1], "the secret key": configured.SECRET_KEY}


def test_every_encrypted_field_has_a_row_here() -> None:
    assert set(ROWS) == set(encrypted_fields())


def test_a_dump_shows_no_secret(key: str) -> None:
    shop = open_shop("http://127.0.0.1:1/v1")
    kept = store_everything(shop) | {"the key of the secrets": key}
    dump = subprocess.run(
        [find_programs() / "pg_dump", "--inserts", database_url_of_this_test()], check=True, capture_output=True
    ).stdout
    assert shop.tenant.slug.encode() in dump
    assert dump.count(b"INSERT INTO public.billing_merchantaccount") > 0
    assert shown(dump, kept) == []


def test_no_log_shows_a_secret(key: str, upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    kept = store_everything(shop)
    with scope.platform("the upstream's key"):
        UpstreamAccount.objects.filter(pk=shop.account.pk).update(api_key=kept["UpstreamAccount.api_key"])
    shop.offer("plain", is_default=True)
    shop.offer("http-401")  # repeats the key in its refusal
    user = make_user(shop.tenant, username="alice", password=kept["a user's password"])
    kept["another token"] = token = make_token(user)
    shop.credit(shop.alice, 1)
    with scope.tenant(shop.tenant.pk):
        account = MerchantAccount.objects.get()
    log = tmp_path / "web.log"
    environment = {"ENCRYPTION_KEYS": key, "LOG_LEVEL": "DEBUG", "BANYAN_VAR": str(tmp_path)}
    with web_server("uvicorn", log=log, **environment) as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"host": shop.host}) as client:
            answers = [
                client.post("/api/auth/login", json={"identifier": "alice", "password": kept["a user's password"]}),
                client.post(
                    "/api/auth/login", json={"identifier": "alice", "password": kept["a staff user's password"]}
                ),
                client.get("/api/auth/me", params={"token": token}),
                client.post("/api/billing/redeem", json={"code": kept["a code as written"]}, headers={"token": token}),
                client.post("/api/billing/redeem", json={"code": kept["a code as written"]}, headers={"token": token}),
                client.get(f"/r/{kept['a code as written']}"),
                client.post("/admin/login/", data={"username": "x", "password": kept["a staff user's password"]}),
                client.post(recharge.notify_path(tenant=shop.tenant, account=account), content=json.dumps(kept)),
            ]
            called = client.post(
                "/v1/chat/completions",
                json={"model": "plain", "messages": [{"role": "user", "content": "x"}]},
                headers={"authorization": f"Bearer {kept['an API key']}"},
            )
        ask(port, shop.host, {"message": "x", "token": token}, method="GET")
        ask(port, shop.host, {"message": "x", "model": "http-401"}, token=shop.alice.token)
    assert [answer.status_code for answer in answers[:5]] == [200, 400, 200, 200, 400]
    assert called.status_code == 200
    said = log.read_bytes()
    assert said.count(b'"event": "request"') >= len(answers)
    assert b"upstream_failed" in said
    assert shown(said, kept) == []
    assert os.environ.get("LOG_LEVEL") != "DEBUG"

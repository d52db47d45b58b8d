"""The checklist, looked at live: a real server, WeChat's and WeChat Pay's doubles, a real question."""

import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.management import CommandError, call_command
from pytest_django import Settings

from billing import audit, ledger
from billing.models import MerchantAccount, Order, Package, Refund
from chat.models import ModelOffer
from lifecycle import checks, opening, trial_payment
from lifecycle.addresses import look_up
from lifecycle.models import Check
from lifecycle.tests.conftest import make_template
from tenants import scope
from tenants.models import AccessToken, Domain, EndUser, MiniProgram, StaffInvitation, Tenant
from tests.doubles import wechatpay
from tests.doubles.wechat import running_wechat
from tests.doubles.xpay import running_xpay
from tests.factories import YUAN, make_staff, unique
from tests.servers import web_server

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def server(settings: Settings) -> Iterator[int]:
    settings.TENANT_DOMAIN = "localhost"
    key = configured.ENCRYPTION_KEYS[0]
    with web_server("uvicorn", ENCRYPTION_KEYS=key, SECRET_KEY=configured.SECRET_KEY) as port:
        settings.TENANT_URL = f"http://{{host}}:{port}"
        yield port


def open_one(**fields: Any) -> Tenant:
    return opening.open_for(
        application=opening.Application(**{"name": "Bamboo", **fields}), reseller=None, actor="test"
    ).tenant


def found(steps: list[checks.Step]) -> dict[str, str]:
    return {step.kind: step.state for step in steps}


def row(tenant: Tenant, kind: str) -> tuple[str, str, dict[str, Any]]:
    with scope.tenant(tenant.pk):
        check = Check.objects.get(kind=kind)
    return check.state, check.word, check.facts


def look(tenant: Tenant, kind: str) -> tuple[str, str, dict[str, Any]]:
    checks.run(tenant=tenant, actor="test", kind=kind)
    return row(tenant, kind)


def test_a_new_tenant_chats_at_once_and_its_list_turns_green(server: int, upstream_url: str) -> None:
    tenant = open_one(template=make_template(upstream_url=upstream_url).slug)
    assert set(found(checks.steps(tenant=tenant)).values()) == {"waiting"}
    steps = checks.run(tenant=tenant, actor="test")
    assert found(steps) == {
        "models": "green",
        "wallet": "green",
        "domain": "green",
        "certificate": "green",
        "chat": "green",
        "staff": "red",
        "mini_program": "later",
        "merchant": "later",
        "payment": "later",
    }
    assert not checks.is_done(steps)
    make_staff(tenant)
    assert checks.is_done(checks.run(tenant=tenant, actor="test"))
    with scope.tenant(tenant.pk):
        tester = EndUser.objects.get(username="checklist")
        assert AccessToken.objects.filter(user=tester, revoked_at=None).count() == 0
    assert audit.audit_tenant(tenant_id=tenant.pk) == []
    call_command("check_tenant", tenant=tenant.slug)


def test_what_is_wrong_is_said_by_its_own_step(server: int) -> None:
    tenant = open_one(template=make_template().slug)  # its upstream is nobody
    host = f"{tenant.slug}.localhost"
    assert look(tenant, "chat")[:2] == ("red", "chat_refused")
    with scope.tenant(tenant.pk):
        ModelOffer.objects.update(is_default=False)
    assert look(tenant, "models") == ("red", "no_default_model", {})
    with scope.tenant(tenant.pk):
        ModelOffer.objects.update(is_default=True, sku=unique("sku"))
    assert look(tenant, "models") == ("red", "model_without_price", {"model": "Model 0"})
    with scope.tenant(tenant.pk):
        StaffInvitation.objects.update(revoked_at="2026-01-01T00:00Z")
    assert look(tenant, "staff") == ("red", "staff_missing", {})
    assert look(tenant, "domain") == ("green", "address_ours", {"host": host})
    with pytest.raises(CommandError):
        call_command("check_tenant", tenant=tenant.slug)


def test_addresses_that_lead_elsewhere(server: int, settings: Settings) -> None:
    tenant = open_one(template=make_template().slug)
    other = open_one(template=make_template().slug)
    # Another tenant's proof is no proof: the name leads to this service, and to somebody else there.
    assert checks.proof(tenant=tenant, nonce="n" * 8) != checks.proof(tenant=other, nonce="n" * 8)
    with scope.tenant(tenant.pk):
        Domain.objects.create(tenant=tenant, host=f"{unique('nowhere')}.invalid")
    assert look(tenant, "domain")[:2] == ("red", "address_unknown")
    with scope.tenant(tenant.pk):
        Domain.objects.filter(host__endswith=".invalid").update(host=f"10.{tenant.pk % 250}.{tenant.pk // 250 % 250}.7")
    assert look(tenant, "domain")[:2] == ("red", "address_private")
    assert look(tenant, "certificate")[:2] == ("red", "address_private")
    with scope.tenant(tenant.pk):
        Domain.objects.exclude(host__endswith=".localhost").delete()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings.TENANT_URL = f"http://{{host}}:{probe.getsockname()[1]}"
        assert look(tenant, "domain")[:2] == ("red", "address_silent")
        assert look(tenant, "chat")[:2] == ("red", "chat_silent")
        settings.TENANT_URL = f"https://{{host}}:{probe.getsockname()[1]}"
        assert look(tenant, "certificate")[:2] == ("red", "address_silent")
    with running_wechat() as somebody:
        settings.TENANT_URL = f"http://{{host}}:{somebody.url.rpartition(':')[2]}"
        assert look(tenant, "domain")[:2] == ("red", "address_foreign")
    settings.TENANT_URL = f"http://{{host}}:{server}"
    settings.TENANT_DOMAIN = "example.com"
    with pytest.raises(OSError, match="not an address"):
        look_up("169.254.169.254")


def test_wechat_is_asked_about_app_id_and_secret(settings: Settings) -> None:
    app_id = f"wx{uuid.uuid4().hex[:16]}"
    tenant = open_one(template=make_template().slug, app_id=app_id, app_secret="right")
    with running_xpay() as wechat:
        settings.WECHAT_API_URL = wechat.url
        assert look(tenant, "mini_program") == ("red", "mini_program_app_id", {"app_id": app_id, "code": 40013})
        wechat.secrets[app_id] = "another"
        assert look(tenant, "mini_program")[:2] == ("red", "mini_program_secret")
        wechat.secrets[app_id] = "right"
        assert look(tenant, "mini_program") == ("green", "mini_program_good", {"app_id": app_id})
        with scope.tenant(tenant.pk):
            MiniProgram.objects.update(secret="")
        assert look(tenant, "mini_program")[0] == "red"
    settings.WECHAT_API_URL = "http://127.0.0.1:1"
    assert look(tenant, "mini_program")[:2] == ("red", "mini_program_away")


def test_a_fen_is_paid_and_paid_back(settings: Settings) -> None:
    tenant = open_one(template=make_template().slug)
    assert look(tenant, "payment") == ("later", "payment_missing", {})
    merchant = wechatpay.Merchant(merchant_id=str(1_900_000_000 + tenant.pk), app_id="wx0123456789abcdef")
    with wechatpay.running_wechatpay() as provider:
        settings.WECHAT_PAY_API_URL = provider.url
        provider.refunds_end = "SUCCESS"
        with scope.tenant(tenant.pk):
            MerchantAccount.objects.create(
                tenant=tenant,
                channel="wechat",
                merchant_id=merchant.merchant_id,
                app_id=merchant.app_id,
                certificate_serial=merchant.serial,
                private_key=wechatpay.pem(merchant.key),
                api_v3_key=merchant.api_v3_key,
                platform_key_id=merchant.platform_key_id,
                platform_public_key=wechatpay.public_pem(merchant.platform_key),
            )
        assert look(tenant, "merchant")[0] == "red"
        provider.merchants[merchant.merchant_id] = merchant
        account = f"wechat {merchant.merchant_id}"
        assert look(tenant, "merchant") == ("green", "merchant_good", {"account": account})
        assert look(tenant, "payment") == ("red", "payment_start", {})
        standing = checks.start_payment(tenant=tenant, actor="test", address="127.0.0.1")
        assert (standing.state, standing.link.startswith("weixin://")) == ("open", True)
        assert look(tenant, "payment") == ("red", "payment_open", {})
        with scope.tenant(tenant.pk):
            order = Order.objects.get()
            assert (order.price, Package.objects.get().is_enabled) == (10_000, False)
        provider.pay(order.out_trade_no)
        states = [look(tenant, "payment")[1] for _ in range(2)]
        assert states in (["payment_paid", "payment_returned"], ["payment_returned", "payment_returned"])
        with scope.tenant(tenant.pk):
            assert [(refund.amount, refund.state) for refund in Refund.objects.all()] == [(10_000, "done")]
            balance = ledger.balances(tenant_id=tenant.pk, user_id=order.user_id)
        assert (balance.cash, balance.gift) == (0, 0)
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_the_checklists_user_is_given_no_more_than_its_purse() -> None:
    tenant = open_one(template=make_template().slug)
    with scope.tenant(tenant.pk):
        for _ in range(3):
            trial_payment.afford(tenant=tenant, amount=YUAN)
        user = trial_payment.tester(tenant)
        assert ledger.balances(tenant_id=tenant.pk, user_id=user.pk).available == YUAN
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_every_word_has_its_text_and_its_gaps() -> None:
    filled = dict.fromkeys(
        (
            "count",
            "model",
            "sku",
            "yuan",
            "host",
            "why",
            "days",
            "name",
            "until",
            "app_id",
            "code",
            "account",
            "target",
            "text",
            "found",
        ),
        "x",
    )
    assert {word: checks.say(Check(word=word, facts=filled)) == "" for word in checks.WORDS if word} == dict.fromkeys(
        set(checks.WORDS) - {""}, False
    )

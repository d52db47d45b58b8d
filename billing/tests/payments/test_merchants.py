"""Setting a merchant account up: what each channel wants, what the provider says of it, and who sees what."""

from typing import Any

import pytest
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import translation

from billing.models import MerchantAccount
from billing.tests.payments.conftest import Counter
from tenants import scope
from tenants.models import Membership
from tests.factories import host_of, make_operator, make_staff

FIELDS = (
    "merchant_id",
    "app_id",
    "certificate_serial",
    "private_key",
    "api_v3_key",
    "platform_key_id",
    "platform_public_key",
    "platform_certificates",
    "secret_key",
    "webhook_secret",
    "environment",
)
NAMES = {"wechat": "WeChat Pay", "alipay": "Alipay", "stripe": "Stripe"}
SECRETS = ("private_key", "api_v3_key", "secret_key", "webhook_secret")


def operator() -> Client:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    return client


def page(name: str, *args: object) -> str:
    return reverse(f"admin:billing_merchantaccount_{name}", args=args)


def form(counter: Counter, **changes: str) -> dict[str, str]:
    """Return what a browser sends that opens the counter's account anew."""
    account = counter.account
    values = {name: getattr(account, name) for name in FIELDS}
    return {"tenant": str(account.tenant_id), "channel": account.channel, "is_enabled": "on", **values, **changes}


def stored(counter: Counter) -> MerchantAccount:
    with scope.tenant(counter.tenant.pk):
        return MerchantAccount.objects.get(pk=counter.account.pk)


def complaints(answer: Any) -> dict[str, list[str]]:
    with translation.override("en"):
        return {name: list(map(str, said)) for name, said in answer.context["adminform"].form.errors.items()}


WANTED = {
    "wechat": {
        "merchant_id": "The merchant id of WeChat Pay is digits only, such as 1900000001.",
        "app_id": "An app id such as wx1234567890abcdef is wanted.",
        "certificate_serial": "The serial number of the certificate is wanted, in hex.",
        "private_key": "This is needed for this channel.",
        "api_v3_key": "The API v3 key has 32 characters.",
        "platform_public_key": "The platform's public key or its certificates are needed.",
    },
    "alipay": {
        "merchant_id": "The merchant id of Alipay is 16 digits that begin with 2088.",
        "app_id": "The app id of Alipay is 16 digits.",
        "private_key": "This is needed for this channel.",
        "platform_public_key": "Alipay's public key is needed, which is not the app's.",
    },
    "stripe": {
        "merchant_id": "The account id of Stripe begins with acct_.",
        "app_id": "Stripe has no app id: leave this empty.",
        "secret_key": "The secret key of Stripe begins with sk_ or rk_.",
        "webhook_secret": "The signing secret of Stripe's webhook begins with whsec_.",
    },
}


def test_what_a_channel_wants_is_said_at_each_field(counter: Counter) -> None:
    empty = form(counter, **{**dict.fromkeys(FIELDS[:-1], ""), "merchant_id": "1 9", "app_id": "another"})
    wanted = WANTED[counter.desk.channel]
    assert complaints(operator().post(page("add"), empty)) == {name: [said] for name, said in wanted.items()}


def test_a_new_account_is_taken_with_what_its_channel_wants(counter: Counter) -> None:
    with scope.tenant(counter.tenant.pk):
        MerchantAccount.objects.all().delete()
    assert operator().post(page("add"), form(counter)).status_code == 302
    with scope.tenant(counter.tenant.pk):
        made = MerchantAccount.objects.get()
        counter.account = made
    number = counter.paid()
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken


def test_a_known_account_shows_its_channel_s_fields_and_no_secret(counter: Counter) -> None:
    answer = operator().get(page("change", counter.account.pk))
    shown = answer.content.decode()
    asked = flatten_fieldsets(answer.context["adminform"].fieldsets)
    assert (
        set(asked) & set(FIELDS)
        == {
            "wechat": set(FIELDS) - {"secret_key", "webhook_secret", "environment"},
            "alipay": {"merchant_id", "app_id", "private_key", "platform_public_key"},
            "stripe": {"merchant_id", "app_id", "secret_key", "webhook_secret"},
        }[counter.desk.channel]
    )
    path = f"/api/payments/{counter.tenant.slug}/{counter.desk.channel}/{counter.account.pk}/notify"
    assert f"https://{host_of(counter.tenant)}{path}" in shown
    secrets = [getattr(counter.account, name) for name in SECRETS if getattr(counter.account, name)]
    parts = [line for secret in secrets for line in secret.splitlines()[:2] if "BEGIN" not in line]
    assert parts
    assert [part for part in [*parts, "gAAAA"] if part in shown] == []


def test_secrets_that_are_not_typed_stay_and_the_channel_stays_too(counter: Counter) -> None:
    kept = {name: getattr(counter.account, name) for name in SECRETS}
    another = "wechat" if counter.desk.channel == "stripe" else "stripe"
    body = form(counter, **dict.fromkeys(SECRETS, ""), channel=another)
    del body["is_enabled"]
    assert operator().post(page("change", counter.account.pk), body).status_code == 302
    now = stored(counter)
    assert {name: getattr(now, name) for name in SECRETS} == kept
    assert (now.channel, now.is_enabled) == (counter.desk.channel, False)


def tried(client: Client, counter: Counter, where: str = "admin") -> list[str]:
    """Try the settings by the admin's action; return what it says."""
    body = {"action": "try_settings", "_selected_action": [str(counter.account.pk)]}
    answer = client.post(reverse(f"{where}:billing_merchantaccount_changelist"), body)
    return [str(message) for message in get_messages(answer.wsgi_request)]


def test_the_settings_can_be_tried(counter: Counter) -> None:
    name = f"{NAMES[counter.desk.channel]} {counter.account.merchant_id}"
    assert tried(operator(), counter) == [f"{name}: the provider answers, and takes these keys."]
    counter.desk.double.trouble.append("down")
    away = "the provider does not answer, or its public key here is not the one that it signs with"
    assert tried(operator(), counter) == [f"{name}: {away}."]
    assert counter.states() == []


WRONG = {
    "wechat": [
        ({"private_key": "nonsense"}, "the private key cannot be read"),
        (
            {"certificate_serial": "00"},
            "the private key or the serial number of the certificate is another merchant's",
        ),
    ],
    "alipay": [
        ({"private_key": "nonsense"}, "the private key cannot be read"),
        ({"app_id": "2021999999999999"}, "the private key is not the app's"),
    ],
    "stripe": [
        ({"secret_key": ""}, "the secret key is missing"),
        ({"secret_key": "sk_live_of_nobody"}, "the secret key is not accepted"),
        ({"merchant_id": "acct_other"}, "the secret key is another account's"),
    ],
}


def test_what_is_wrong_is_said_in_words(counter: Counter) -> None:
    for fields, said in WRONG[counter.desk.channel]:
        right = {name: getattr(counter.account, name) for name in fields}
        with scope.tenant(counter.tenant.pk):
            MerchantAccount.objects.update(**fields)
        merchant = fields.get("merchant_id", counter.account.merchant_id)
        assert tried(operator(), counter) == [f"{NAMES[counter.desk.channel]} {merchant}: {said}."]
        with scope.tenant(counter.tenant.pk):
            MerchantAccount.objects.update(**right)


@pytest.mark.parametrize("role", [Membership.Role.OWNER, Membership.Role.FINANCE])
def test_a_member_looks_and_tries_and_sees_no_secret(counter: Counter, other_counter: Counter, role: str) -> None:
    client = Client(headers={"host": host_of(counter.tenant), "accept-language": "en"})
    client.force_login(make_staff(counter.tenant, role=role))
    change = reverse("tenant_admin:billing_merchantaccount_change", args=[counter.account.pk])
    answer = client.get(change)
    shown = answer.content.decode()
    assert (answer.status_code, counter.account.merchant_id in shown) == (200, True)
    secrets = [getattr(counter.account, name) for name in SECRETS if getattr(counter.account, name)]
    parts = [line for secret in secrets for line in secret.splitlines()[:2] if "BEGIN" not in line]
    assert [part for part in [*parts, "gAAAA"] if part in shown] == []
    # Another tenant's account is not there to be tried.
    assert [said for said in tried(client, other_counter, "tenant_admin") if "provider" in said] == []
    assert counter.desk.double.requests == []
    assert [said.split(": ")[-1] for said in tried(client, counter, "tenant_admin")][-1:] == [
        "the provider answers, and takes these keys."
    ]


def test_support_sees_no_merchant_account(counter: Counter) -> None:
    client = Client(headers={"host": host_of(counter.tenant)})
    client.force_login(make_staff(counter.tenant, role=Membership.Role.SUPPORT))
    assert client.get(reverse("tenant_admin:billing_merchantaccount_changelist")).status_code == 403

"""How users come in, as staff set it up: owners and the operator, each their own rows, and no secret is shown."""

import pytest
from django.test import Client
from pytest_django import Settings

from tenants import scope
from tenants.models import SignInSettings, SmsAccount, StaffUser
from tenants.tests.conftest import House
from tests.factories import make_operator, make_staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_encryption")]

APP = "wxabcdef1234567890"
SETTINGS = "/admin/tenants/signinsettings/"
SMS = "/admin/tenants/smsaccount/"
FORM = {"by_phone": "on", "by_password": "on", "wechat_app_id": APP, "wechat_secret": "the-app-secret"}
ACCOUNT = {
    "provider": "aliyun",
    "access_key_id": "LTAI5t",
    "access_key_secret": "the-access-key-secret",
    "sign_name": "极光",
    "template_code": "SMS_1",
    "is_enabled": "on",
}


def browser(host: str, staff: StaffUser) -> Client:
    client = Client(headers={"host": host})
    client.force_login(staff)
    return client


def test_an_owner_sets_up_the_ways_in_once_and_the_secret_is_not_shown(aurora: House, lotus: House) -> None:
    owner = browser(aurora.host, make_staff(aurora.tenant))
    assert owner.post(f"{SETTINGS}add/", FORM).status_code == 302
    with scope.tenant(aurora.tenant.pk):
        row = SignInSettings.objects.get()
    assert (row.by_email, row.wechat_app_id, row.wechat_secret) == (False, APP, "the-app-secret")
    assert owner.get(f"{SETTINGS}add/").status_code == 403
    page = owner.get(f"{SETTINGS}{row.pk}/change/").content.decode()
    assert (APP in page, "the-app-secret" in page) == (True, False)
    assert owner.post(f"{SETTINGS}{row.pk}/change/", {**FORM, "wechat_secret": ""}).status_code == 302
    with scope.tenant(aurora.tenant.pk):
        assert SignInSettings.objects.get().wechat_secret == "the-app-secret"  # kept
    stranger = browser(lotus.host, make_staff(lotus.tenant))
    assert stranger.get(f"{SETTINGS}{row.pk}/change/").status_code in {302, 404}
    assert APP not in stranger.get(SETTINGS).content.decode()
    with scope.tenant(lotus.tenant.pk):
        assert SignInSettings.objects.count() == 0


@pytest.mark.parametrize("role", ["finance", "support", "content"])
def test_other_roles_see_nothing_of_it(role: str, aurora: House) -> None:
    client = browser(aurora.host, make_staff(aurora.tenant, role=role))
    assert [client.get(page).status_code for page in (SETTINGS, f"{SETTINGS}add/", SMS, f"{SMS}add/")] == [403] * 4


def test_accounts_for_text_messages_are_a_tenants_or_the_platforms(aurora: House, settings: Settings) -> None:
    operator = browser("localhost", make_operator())
    assert operator.post("/platform/tenants/smsaccount/add/", ACCOUNT).status_code == 302
    with scope.platform("the platform's account"):
        platforms = SmsAccount.objects.get()
    assert (platforms.tenant_id, platforms.access_key_secret) == (None, "the-access-key-secret")
    owner = browser(aurora.host, make_staff(aurora.tenant))
    assert "LTAI5t" not in owner.get(SMS).content.decode()
    assert owner.get(f"{SMS}{platforms.pk}/change/").status_code in {302, 404}
    refused = owner.post(f"{SMS}add/", {**ACCOUNT, "template_code": ""})
    assert (refused.status_code, "Alibaba Cloud wants this." in refused.content.decode()) == (200, True)
    assert owner.post(f"{SMS}add/", ACCOUNT).status_code == 302
    with scope.tenant(aurora.tenant.pk):
        assert SmsAccount.objects.get().tenant_id == aurora.tenant.pk

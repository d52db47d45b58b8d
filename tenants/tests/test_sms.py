"""Text messages: the signature against the documentation's own example, and the provider against its double."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tenants import scope, sms
from tenants.models import SmsAccount
from tenants.sms_aliyun import AliyunSms, authorization, canonical_query
from tenants.sms_failure import SmsFailedError, SmsFailure
from tests.doubles.aliyun import AliyunDouble, running_aliyun
from tests.doubles.serving import Said
from tests.factories import make_tenant


@pytest.fixture
def aliyun() -> Iterator[AliyunDouble]:
    with running_aliyun() as double:
        yield double


def client_of(double: AliyunDouble, **changed: str) -> AliyunSms:
    account = {"access_key_id": double.key_id, "access_key_secret": double.secret, "sign_name": double.sign_name}
    return AliyunSms(url=double.url, templates={"": "SMS_100001", "en": "SMS_100002"}, **{**account, **changed})


def test_the_signature_is_the_documentations() -> None:
    """The worked example of "V3 request body and signature", with its fixed nonce, date and keys."""
    query = canonical_query(
        {"ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", "RegionId": "cn-shanghai"}
    )
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "x-acs-action": "RunInstances",
        "x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-acs-date": "2023-10-26T10:22:32Z",
        "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
        "x-acs-version": "2014-05-26",
    }
    signed = authorization(
        key_id="YourAccessKeyId",
        secret="YourAccessKeySecret",
        method="POST",
        path="/",
        query=query,
        headers=headers,
    )
    assert signed == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,"
        "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


def test_a_code_goes_out_in_the_language(aliyun: AliyunDouble) -> None:
    client = client_of(aliyun)
    client.send(phone="13800138000", code="012345", language="zh-hans")
    client.send(phone="+85261234567", code="000001", language="en")
    assert aliyun.sent == [
        {"phone": "13800138000", "template": "SMS_100001", "code": "012345"},
        {"phone": "85261234567", "template": "SMS_100002", "code": "000001"},
    ]


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("isv.MOBILE_NUMBER_ILLEGAL", SmsFailure.NUMBER),
        ("isv.BUSINESS_LIMIT_CONTROL", SmsFailure.TOO_OFTEN),
        ("isp.SYSTEM_" + "ERROR", SmsFailure.AWAY),
        ("isv.AMOUNT_NOT_ENOUGH", SmsFailure.SETUP),
    ],
)
def test_what_the_provider_refuses(said: str, failure: SmsFailure, aliyun: AliyunDouble) -> None:
    aliyun.failures.append(said)
    with pytest.raises(SmsFailedError) as caught:
        client_of(aliyun).send(phone="13800138000", code="1", language="")
    assert (caught.value.failure, caught.value.said, aliyun.sent) == (failure, said, [])


def test_a_wrong_secret_is_a_matter_of_the_set_up(aliyun: AliyunDouble) -> None:
    with pytest.raises(SmsFailedError) as caught:
        client_of(aliyun, access_key_secret="wrong").send(phone="13800138000", code="1", language="")
    assert (caught.value.failure, caught.value.said) == (SmsFailure.SETUP, "SignatureDoesNotMatch")


@pytest.mark.parametrize("said", [Said(status=502, body=b"<html>"), Said(body=b"[]")])
def test_an_answer_that_is_none(said: Said, aliyun: AliyunDouble) -> None:
    aliyun.raw.append(said)
    with pytest.raises(SmsFailedError) as caught:
        client_of(aliyun).send(phone="13800138000", code="654321", language="")
    assert caught.value.failure == SmsFailure.AWAY
    assert [word for word in ("13800138000", "654321") if word in str(caught.value)] == []


def test_nobody_there_and_nothing_of_the_message_in_what_is_said() -> None:
    client = AliyunSms(
        url="http://127.0.0.1:1", access_key_id="k", access_key_secret="s", sign_name="n", templates={"": "t"}
    )
    with pytest.raises(SmsFailedError) as caught:
        client.send(phone="13800138000", code="654321", language="")
    assert (str(caught.value), caught.value.__cause__) == ("away: ConnectError", None)


@pytest.mark.django_db
@pytest.mark.usefixtures("_encryption")
def test_whose_account_a_tenant_sends_by(settings: Settings) -> None:
    one, other = make_tenant(), make_tenant()

    def provider_of(tenant_id: int) -> str:
        with scope.tenant(tenant_id):
            return type(sms.provider_of(tenant_id)).__name__

    assert (provider_of(one.pk), provider_of(other.pk)) == ("NoneType", "NoneType")
    with scope.tenant(one.pk):
        own = SmsAccount.objects.create(tenant=one, provider="aliyun", access_key_id="k", access_key_secret="s")
    assert (provider_of(one.pk), provider_of(other.pk)) == ("AliyunSms", "NoneType")
    with scope.platform("the platform's account"):
        SmsAccount.objects.create(provider="console")
    assert (provider_of(one.pk), provider_of(other.pk)) == ("AliyunSms", "ConsoleSms")
    with scope.tenant(one.pk):  # a tenant that switches its own off wants none
        SmsAccount.objects.filter(pk=own.pk).update(is_enabled=False)
    assert (provider_of(one.pk), provider_of(other.pk)) == ("NoneType", "ConsoleSms")

"""WeChat's log-in, against a double that speaks its protocol."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection

from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import log_in_with_wechat
from tenants.models import EndUser, MiniProgram, Tenant, WeChatIdentity
from tenants.wechat import WeChatClient
from tests.doubles.wechat import WeChatDouble
from tests.factories import make_mini_program, make_tenant

pytestmark = pytest.mark.usefixtures("_encryption")

SECRET = "secret-of-the-mini-program"


@pytest.fixture
def tenant(db: None) -> Tenant:
    return make_tenant()


@pytest.fixture
def program(tenant: Tenant, wechat: WeChatDouble) -> MiniProgram:
    program = make_mini_program(tenant, secret=SECRET)
    wechat.secrets[program.app_id] = SECRET
    return program


def log_in(tenant: Tenant, wechat: WeChatDouble, code: str, app_id: str | None = None) -> EndUser:
    client = WeChatClient(wechat.url)
    try:
        with scope.tenant(tenant.pk):
            return log_in_with_wechat(tenant=tenant, app_id=app_id, code=code, client=client)
    finally:
        client.close()


def refused(tenant: Tenant, wechat: WeChatDouble, code: str, app_id: str | None = None) -> tuple[ErrorCode, str]:
    with pytest.raises(ProductError) as caught:
        log_in(tenant, wechat, code, app_id)
    assert SECRET not in str(caught.value.body("id"))
    return caught.value.code, caught.value.type


def test_the_first_log_in_makes_a_user_and_the_next_finds_them(
    tenant: Tenant, program: MiniProgram, wechat: WeChatDouble
) -> None:
    first = log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"), program.app_id)
    again = log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"), program.app_id)
    other = log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o2"), program.app_id)
    assert (again, other == first) == (first, False)
    with scope.tenant(tenant.pk):
        assert set(WeChatIdentity.objects.values_list("user", "app_id", "openid", "unionid")) == {
            (first.pk, program.app_id, "o1", ""),
            (other.pk, program.app_id, "o2", ""),
        }
    assert wechat.asked[0] == {
        "appid": program.app_id,
        "secret": SECRET,
        "js_code": f"0{0:031d}",
        "grant_type": "authorization_code",
    }


def test_the_session_key_is_the_last_log_in_s(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    kept = []
    for _ in range(2):
        log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"))
        with scope.tenant(tenant.pk):
            kept.append(WeChatIdentity.objects.get().session_key)
        assert kept[-1] == wechat.session_keys[program.app_id, "o1"]
    assert kept[0] != kept[1]


def test_a_union_id_joins_the_tenants_mini_programs(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    second = make_mini_program(tenant, secret=SECRET)
    wechat.secrets[second.app_id] = SECRET
    code = wechat.wx_login(app_id=program.app_id, openid="o1", unionid="u1")
    user = log_in(tenant, wechat, code, program.app_id)
    code = wechat.wx_login(app_id=second.app_id, openid="o9", unionid="u1")
    assert log_in(tenant, wechat, code, second.app_id) == user
    code = wechat.wx_login(app_id=second.app_id, openid="o8")
    assert log_in(tenant, wechat, code, second.app_id) != user


def test_a_union_id_learned_later_is_kept(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    user = log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"))
    code = wechat.wx_login(app_id=program.app_id, openid="o1", unionid="u1")
    assert log_in(tenant, wechat, code) == user
    with scope.tenant(tenant.pk):
        assert WeChatIdentity.objects.get().unionid == "u1"


def test_a_union_id_of_another_tenant_joins_nothing(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    theirs = make_tenant()
    their_program = make_mini_program(theirs, secret=SECRET)
    wechat.secrets[their_program.app_id] = SECRET
    code = wechat.wx_login(app_id=program.app_id, openid="o1", unionid="u1")
    ours = log_in(tenant, wechat, code, program.app_id)
    code = wechat.wx_login(app_id=their_program.app_id, openid="o1", unionid="u1")
    assert log_in(theirs, wechat, code, their_program.app_id) != ours


@pytest.mark.parametrize(
    ("errcode", "wanted"),
    [
        (40029, (ErrorCode.INVALID, "wechat_code_invalid")),
        (40163, (ErrorCode.INVALID, "wechat_code_invalid")),
        (45011, (ErrorCode.QUOTA, "wechat_too_often")),
        (40226, (ErrorCode.INVALID, "wechat_account_refused")),
        (40013, (ErrorCode.OTHER, "wechat_misconfigured")),
        (40125, (ErrorCode.OTHER, "wechat_misconfigured")),
    ],
)
def test_wechats_refusals(
    errcode: int, wanted: tuple[ErrorCode, str], tenant: Tenant, program: MiniProgram, wechat: WeChatDouble
) -> None:
    wechat.failures.append(errcode)
    assert refused(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1")) == wanted
    assert len(wechat.asked) == 1
    with scope.tenant(tenant.pk):
        assert EndUser.objects.count() == 0


def test_a_busy_wechat_is_asked_once_more(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    wechat.failures.append(-1)
    user = log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"))
    assert (user.tenant, len(wechat.asked)) == (tenant, 2)


def test_a_wechat_that_stays_busy(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    wechat.failures.extend([-1, -1])
    code = wechat.wx_login(app_id=program.app_id, openid="o1")
    assert refused(tenant, wechat, code) == (ErrorCode.UPSTREAM, "wechat_unavailable")
    assert len(wechat.asked) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"{}"), (502, b"<html>"), (200, b""), (200, b"[]"), (200, b"{}"), (200, b'{"openid": 7}'), (200, b"\xff")],
)
def test_answers_that_are_none(
    status: int, body: bytes, tenant: Tenant, program: MiniProgram, wechat: WeChatDouble
) -> None:
    wechat.raw.append((status, body))
    assert refused(tenant, wechat, "code") == (ErrorCode.UPSTREAM, "wechat_unavailable")


def test_a_wechat_that_cannot_be_reached(
    tenant: Tenant, program: MiniProgram, wechat: WeChatDouble, caplog: pytest.LogCaptureFixture
) -> None:
    wechat.url = "http://127.0.0.1:9"
    assert refused(tenant, wechat, "code") == (ErrorCode.UPSTREAM, "wechat_unavailable")
    assert SECRET not in caplog.text


def test_a_code_is_good_once(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    code = wechat.wx_login(app_id=program.app_id, openid="o1")
    log_in(tenant, wechat, code)
    assert refused(tenant, wechat, code) == (ErrorCode.INVALID, "wechat_code_invalid")


def test_a_blocked_user_cannot_come_back_through_wechat(
    tenant: Tenant, program: MiniProgram, wechat: WeChatDouble
) -> None:
    log_in(tenant, wechat, wechat.wx_login(app_id=program.app_id, openid="o1"))
    with scope.tenant(tenant.pk):
        EndUser.objects.update(is_active=False)
    code = wechat.wx_login(app_id=program.app_id, openid="o1")
    assert refused(tenant, wechat, code) == (ErrorCode.INVALID, "user_blocked")


def test_which_mini_program_is_meant(tenant: Tenant, program: MiniProgram, wechat: WeChatDouble) -> None:
    unknown = (ErrorCode.NOT_FOUND, "mini_program_not_found")
    theirs = make_mini_program(make_tenant(), secret=SECRET)
    assert refused(tenant, wechat, "code", theirs.app_id) == unknown
    assert refused(tenant, wechat, "code", "wx0000000000000000") == unknown
    make_mini_program(tenant, secret=SECRET)
    assert refused(tenant, wechat, "code", None) == unknown
    assert wechat.asked == []


def test_first_log_ins_at_the_same_time_make_one_user(committed_db: None, wechat: WeChatDouble) -> None:
    tenant = make_tenant()
    program = make_mini_program(tenant, secret=SECRET)
    wechat.secrets[program.app_id] = SECRET
    codes = [wechat.wx_login(app_id=program.app_id, openid="o1") for _ in range(4)]
    together = Barrier(len(codes))

    def first_log_in(code: str) -> int:
        try:
            together.wait()
            return log_in(tenant, wechat, code).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(len(codes)) as phones:
        users = set(phones.map(first_log_in, codes))
    with scope.tenant(tenant.pk):
        assert set(EndUser.objects.values_list("pk", flat=True)) == users
        assert [identity.user_id for identity in WeChatIdentity.objects.all()] == list(users)


def test_the_double_answers_as_wechat_does(wechat: WeChatDouble) -> None:
    wechat.secrets["wx1"] = "s"
    code = wechat.wx_login(app_id="wx1", openid="o1", unionid="u1")
    good = {"appid": "wx1", "secret": "s", "js_code": code, "grant_type": "authorization_code"}
    answers = [
        json.loads(wechat.answer("/sns/jscode2session", query)[1]).get("errcode")
        for query in ({**good, "appid": "wx2"}, {**good, "secret": "t"}, {**good, "js_code": "x"}, good, good)
    ]
    assert answers == [40013, 40125, 40029, None, 40163]

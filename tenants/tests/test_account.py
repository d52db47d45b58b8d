"""One's own account: identities, proofs, password, sessions; each within its tenant and its user."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from tenants import identities, scope
from tenants.errors import ProductError
from tenants.models import AccessToken, EndUser, Tenant, WeChatIdentity
from tenants.tests.conftest import House
from tenants.tests.visitor import Visitor, age_codes, kind
from tests.doubles.aliyun import AliyunDouble
from tests.doubles.wechat import WeChatDouble
from tests.factories import PASSWORD, make_mini_program, make_tenant, make_token, make_user

PHONE, OTHER = "13800138000", "13900139000"
db = pytest.mark.django_db


def age_log_ins(tenant: Tenant) -> None:
    """Let an hour pass since everybody's log-in."""
    with scope.tenant(tenant.pk):
        AccessToken.objects.update(created_at=timezone.now() - timedelta(hours=1))


def make_visitor(tenant: Tenant, user: EndUser | None = None, **fields: str) -> Visitor:
    return Visitor(tenant, token=make_token(user or make_user(tenant, **fields)))


def bind(visitor: Visitor, aliyun: AliyunDouble, phone: str = PHONE, **proof: str) -> str:
    asked = visitor.post("identities/code", channel="phone", purpose="bind", to=phone)
    assert kind(asked) == "ok", asked.content
    code = aliyun.code_to(phone)
    return kind(visitor.post("identities/bind", channel="phone", to=phone, code=code, **proof))


@db
def test_a_phone_is_bound_by_its_code_and_shown_veiled(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = make_visitor(tenant, username="alice", password=PASSWORD)
    assert bind(visitor, texting) == "ok"
    told = visitor.get("identities").json()["data"]
    assert [(each["kind"], each["shown"]) for each in told["identities"]] == [
        ("phone", "138****8000"),
        ("username", "alice"),
    ]
    assert (told["ways_in"], told["has_password"]) == (2, True)
    assert visitor.get("me").json()["data"]["phone"] == PHONE


@db
def test_a_code_to_bind_is_of_use_to_whoever_asked_for_it(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    alice, mallory = make_visitor(tenant), make_visitor(tenant)
    alice.post("identities/code", channel="phone", purpose="bind", to=PHONE)
    body = {"channel": "phone", "to": PHONE, "code": texting.code_to(PHONE)}
    assert kind(mallory.post("identities/bind", **body)) == "code_wrong"
    assert kind(Visitor(tenant).post("code/login", **body)) == "code_wrong"
    assert kind(alice.post("identities/bind", **body)) == "ok"


@db
def test_another_accounts_phone_is_refused_and_nothing_merged(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    bob = make_user(tenant, phone=PHONE)
    alice = make_visitor(tenant)
    assert bind(alice, texting) == "identity_taken"
    with scope.tenant(tenant.pk):
        assert EndUser.objects.get(phone=PHONE) == bob
    # in another tenant the phone is another user's, or nobody's
    assert bind(make_visitor(make_tenant()), texting) == "ok"


@db
def test_another_phone_in_the_place_of_the_first_wants_a_proof(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = make_visitor(tenant, phone=PHONE, password=PASSWORD)
    age_log_ins(tenant)
    assert bind(visitor, texting, OTHER) == "proof_needed"
    age_codes(tenant, 61)
    assert bind(visitor, texting, OTHER, password="wrong") == "wrong_password"
    age_codes(tenant, 61)
    assert bind(visitor, texting, OTHER, password=PASSWORD) == "ok"
    assert visitor.get("me").json()["data"]["phone"] == OTHER


@db
def test_what_proves_who_somebody_is(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = make_visitor(tenant, username="alice", phone=PHONE, email="alice@example.com", password=PASSWORD)
    assert kind(visitor.post("identities/email/unbind")) == "ok"  # a log-in of a moment ago
    age_log_ins(tenant)
    refused = visitor.post("identities/phone/unbind").json()
    assert (refused["type"], refused["action"], refused["ways"]) == (
        "proof_needed",
        "prove",
        ["phone", "password", "login"],
    )
    visitor.post("identities/code", channel="phone", purpose="confirm")
    code = texting.code_to(PHONE)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert kind(visitor.post("identities/phone/unbind", proof_channel="phone", proof_code=wrong)) == "code_wrong"
    assert kind(visitor.post("identities/phone/unbind", proof_channel="phone", proof_code=code)) == "ok"
    told = visitor.get("identities").json()["data"]["identities"]
    assert [each["kind"] for each in told] == ["username"]


@db
def test_a_guest_is_proved_by_nothing() -> None:
    tenant = make_tenant()
    guest = make_user(tenant, is_guest=True)
    assert kind(make_visitor(tenant, guest).post("identities/username/unbind")) == "proof_needed"


@db
@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({"phone": PHONE, "username": "alice"}, "phone"),  # a user name without a password opens nothing
        ({"username": "alice", "password": PASSWORD}, "username"),
    ],
)
def test_the_last_way_in_stays(fields: dict[str, str], identity: str) -> None:
    tenant = make_tenant()
    visitor = make_visitor(tenant, make_user(tenant, **fields))
    assert kind(visitor.post(f"identities/{identity}/unbind")) == "identity_last"
    assert kind(visitor.post("identities/nothing/unbind")) == "identity_not_found"


def test_two_unbound_at_once_leave_one(committed_db: None) -> None:
    tenant = make_tenant()
    user = make_user(tenant, phone=PHONE, email="alice@example.com")
    with scope.tenant(tenant.pk):
        EndUser.objects.filter(pk=user.pk).update(username=None)
    start = Barrier(2)

    def unbind(identity: str) -> str:
        start.wait()
        try:
            with scope.tenant(tenant.pk):
                identities.unbind(user=user, identity_id=identity)
        except ProductError as refusal:
            return refusal.type
        finally:
            connection.close()
        return "ok"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(unbind, ["phone", "email"])) == ["identity_last", "ok"]


@db
@pytest.mark.usefixtures("_encryption")
def test_wechat_is_bound_and_unbound(wechat: WeChatDouble, aurora: House, lotus: House) -> None:
    program = make_mini_program(aurora.tenant, secret="s")
    wechat.secrets[program.app_id] = "s"

    def code(openid: str, unionid: str = "") -> str:
        return wechat.wx_login(app_id=program.app_id, openid=openid, unionid=unionid)

    bob = Visitor(aurora.tenant)
    bob.enter("wechat", code=code("bob", "union"))
    alice = Visitor(aurora.tenant, token=aurora.token)
    assert kind(alice.post("identities/bind/wechat", code=code("bob"))) == "identity_taken"
    # another open id, but the same person as somebody else's account
    assert kind(alice.post("identities/bind/wechat", code=code("bob2", "union"))) == "identity_taken"
    assert kind(alice.post("identities/bind/wechat", code=code("alice"))) == "ok"
    assert kind(alice.post("identities/bind/wechat", code=code("alice"))) == "ok"  # again changes nothing
    again = Visitor(aurora.tenant)
    assert again.enter("wechat", code=code("alice"))["id"] == aurora.alice.pk
    # another tenant's user cannot use the code, nor unbind the row
    stranger = Visitor(lotus.tenant, token=lotus.token)
    assert kind(stranger.post("identities/bind/wechat", code=code("x"))) == "mini_program_not_found"
    with scope.tenant(aurora.tenant.pk):
        row = WeChatIdentity.objects.get(user=aurora.alice)
    assert kind(stranger.post(f"identities/wechat-{row.pk}/unbind")) == "identity_not_found"
    assert kind(bob.post(f"identities/wechat-{row.pk}/unbind")) == "identity_not_found"
    with scope.tenant(aurora.tenant.pk):
        EndUser.objects.filter(pk=aurora.alice.pk).update(phone=PHONE)
    assert kind(alice.post(f"identities/wechat-{row.pk}/unbind")) == "ok"


@db
def test_a_guest_who_binds_becomes_a_person_and_others_with_the_token_are_out(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    guest = make_user(tenant, is_guest=True)
    visitor, other = make_visitor(tenant, guest), make_visitor(tenant, guest)
    assert bind(visitor, texting) == "ok"
    me = visitor.get("me").json()["data"]
    assert (me["id"], me["is_guest"]) == (guest.pk, False)
    assert kind(other.get("me")) == "login_required"


@db
def test_a_password_is_changed_by_proof_and_ends_other_log_ins() -> None:
    tenant = make_tenant()
    user = make_user(tenant, username="alice", password=PASSWORD)
    visitor, other = make_visitor(tenant, user), make_visitor(tenant, user)
    age_log_ins(tenant)
    assert kind(visitor.post("password", new_password="a-new-password-9")) == "proof_needed"
    assert kind(visitor.post("password", new_password="short", password=PASSWORD)) == "weak_password"
    assert kind(visitor.post("password", new_password="a-new-password-9", password=PASSWORD)) == "ok"
    assert (kind(visitor.get("me")), kind(other.get("me"))) == ("ok", "login_required")
    assert kind(Visitor(tenant).post("login", identifier="alice", password="a-new-password-9")) == "ok"


@db
def test_sessions_are_ones_own(aurora: House, lotus: House) -> None:
    alice = Visitor(aurora.tenant, token=aurora.token)
    second = make_visitor(aurora.tenant, aurora.alice)
    bob = make_visitor(aurora.tenant)
    rows = alice.get("sessions").json()["data"]
    assert [(row["label"], row["is_current"]) for row in rows] == [("test", False), ("test", True)]
    for stranger in (bob, Visitor(lotus.tenant, token=lotus.token)):
        assert len(stranger.get("sessions").json()["data"]) == 1
        assert kind(stranger.post(f"sessions/{rows[0]['id']}/revoke")) == "session_not_found"
    assert alice.post(f"sessions/{rows[0]['id']}/revoke").json()["data"] == {"ended": 1}
    assert (kind(second.get("me")), kind(alice.get("me"))) == ("login_required", "ok")
    make_visitor(aurora.tenant, aurora.alice)
    assert alice.post("sessions/revoke-others").json()["data"] == {"ended": 1}
    assert (kind(alice.get("me")), kind(bob.get("me"))) == ("ok", "ok")


@db
def test_mail_binds_an_address() -> None:
    tenant = make_tenant()
    visitor = make_visitor(tenant, username="alice", password=PASSWORD)
    visitor.post("identities/code", channel="email", purpose="bind", to="a@example.com")
    code = re.findall(r"\b[0-9]{6}\b", str(mail.outbox[-1].subject))[0]
    assert kind(visitor.post("identities/bind", channel="email", to="a@example.com", code=code)) == "ok"
    shown = [each["shown"] for each in visitor.get("identities").json()["data"]["identities"]]
    assert shown == ["a***@example.com", "alice"]

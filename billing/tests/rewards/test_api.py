"""Rewards as apps ask for them."""

import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db.models.functions import Now
from django.test import Client
from PIL import Image
from pytest_django import Settings

from billing.models import AdTicket, Invitation, RewardOrigin, RewardRules
from billing.tests.rewards.conftest import Farm, open_farm
from tenants import resolve, scope, wechat
from tenants.models import EndUser
from tests.doubles.xpay import XPayDouble, running_xpay
from tests.factories import YUAN, host_of, make_mini_program, make_token, make_user

JSON = "application/json"


def client_of(farm: Farm, user: EndUser | None = None, address: str = "198.51.100.1") -> Client:
    headers = {"Host": host_of(farm.tenant), "Authorization": f"Bearer {make_token(user or farm.user)}"}
    return Client(headers=headers, REMOTE_ADDR=address)


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(f"/api/billing/{path}", {} if body is None else body, content_type=JSON)


def test_signing_in(farm: Farm) -> None:
    client = client_of(farm)
    before = client.get("/api/billing/sign-in").json()["data"]
    answer = post(client, "sign-in", {"device_id": "phone"})
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "code": 1,
            "msg": "ok",
            "data": {
                "done": True,
                "streak": 1,
                "amount": "100000",
                "coming": ["200000", "700000", "100000", "200000", "700000", "100000"],
                "reset_at": before["reset_at"],
            },
        },
    )
    again = post(client, "sign-in")
    assert (again.status_code, again.json()["type"], again.json()["limit"]) == (429, "signed_in_today", 1)
    with scope.tenant(farm.tenant.pk):
        assert RewardOrigin.objects.filter(user=farm.user).count() == 1


def test_a_whole_invitation(farm: Farm) -> None:
    inviter, invitee = client_of(farm), farm.person(nickname="Bob")
    mine = inviter.get("/api/billing/invitation", {"device_id": "mine"}).json()["data"]
    code = mine["code"]
    assert mine == {
        "code": code,
        "link": f"http://{host_of(farm.tenant)}/i/{code}",
        "inviter_amount": "3000000",
        "invitee_amount": "2000000",
        "invited": 0,
        "waiting": 0,
        "rewarded": 0,
        "earned": "0",
        "owed": "0",
        "people": [],
    }
    guest = client_of(farm, invitee, "198.51.100.2")
    answer = post(guest, "invitation/accept", {"code": mine["link"], "device_id": "theirs"})
    assert (answer.status_code, answer.json()["data"]) == (200, {"inviter": "Ann"})
    farm.pay(invitee)
    farm.sweep()
    mine = inviter.get("/api/billing/invitation").json()["data"]
    assert [(person["nickname"], person["standing"]) for person in mine["people"]] == [("Bob", "rewarded")]
    assert (mine["invited"], mine["rewarded"], mine["earned"], mine["code"]) == (1, 1, "3000000", code)


def test_the_inviters_own_phone_is_told_nothing_and_rewarded_nothing(farm: Farm) -> None:
    code = client_of(farm).get("/api/billing/invitation", {"device_id": "mine"}).json()["data"]["code"]
    second = farm.person()
    answer = post(client_of(farm, second, "198.51.100.2"), "invitation/accept", {"code": code, "device_id": "mine"})
    assert (answer.status_code, answer.json()["data"]) == (200, {"inviter": "Ann"})
    with scope.tenant(farm.tenant.pk):
        row = Invitation.objects.get()
    assert (row.state, row.refusal) == ("refused", "inviter_device")


def test_only_digests_are_kept(farm: Farm) -> None:
    client = client_of(farm, address="203.0.113.77")
    code = client.get("/api/billing/invitation", {"device_id": "a-device-in-clear"}).json()["data"]["code"]
    post(client_of(farm, farm.person(), "203.0.113.78"), "invitation/accept", {"code": code, "device_id": "b-device"})
    with scope.tenant(farm.tenant.pk):
        dump = str([*RewardOrigin.objects.values_list(), *Invitation.objects.values_list()])
    assert [clear for clear in ("a-device", "b-device", "203.0.113") if clear in dump] == []


def test_an_advertisement(farm: Farm) -> None:
    client = client_of(farm)
    got = post(client, "ads/ticket").json()["data"]
    assert (got["amount"], sorted(got)) == ("1000000", ["amount", "expires_at", "ready_at", "ticket"])
    early = post(client, "ads/redeem", {"ticket": got["ticket"]})
    assert (early.status_code, early.json()["type"]) == (400, "ad_ticket_early")
    ready, told = (datetime.fromisoformat(at) for at in (got["ready_at"], early.json()["reset_at"]))
    assert abs(ready - told) < timedelta(milliseconds=1)  # one of them is cut to milliseconds
    with scope.tenant(farm.tenant.pk):
        AdTicket.objects.update(ready_at=Now() - timedelta(seconds=1))
    answer = post(client, "ads/redeem", {"ticket": got["ticket"]})
    assert (answer.status_code, answer.json()["data"]) == (200, {"credited": "1000000"})
    again = post(client, "ads/redeem", {"ticket": got["ticket"]})
    assert (again.status_code, again.json()["code"], again.json()["type"]) == (400, 10001, "ad_ticket_used")
    assert farm.gift() == YUAN


def test_guessing_codes_and_tickets_ends(farm: Farm) -> None:
    client = client_of(farm, farm.person())
    got = [post(client, "invitation/accept", {"code": "22222222"}).json()["type"] for _ in range(11)]
    assert got == ["invitation_code_unknown"] * 10 + ["too_many_tries"]
    got = [post(client, "ads/redeem", {"ticket": "x"}).json()["type"] for _ in range(61)]
    assert got == ["ad_ticket_unknown"] * 60 + ["too_many_tries"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "sign-in"),
        ("post", "sign-in"),
        ("get", "invitation"),
        ("post", "invitation/accept"),
        ("post", "ads/ticket"),
        ("post", "ads/redeem"),
    ],
)
def test_without_this_tenants_log_in_there_is_nothing(farm: Farm, method: str, path: str) -> None:
    stranger = open_farm()
    host = host_of(farm.tenant)
    foreign = Client(headers={"Host": host, "Authorization": f"Bearer {make_token(stranger.user)}"})
    body = {"code": farm.code(), "ticket": "x"}
    for client in (Client(headers={"Host": host}), foreign):
        answer = getattr(client, method)(f"/api/billing/{path}", body, content_type=JSON)
        assert answer.status_code == 401


@pytest.fixture
def xpay(settings: Settings) -> Iterator[XPayDouble]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    resolve.forget()
    with running_xpay() as double:
        settings.WECHAT_API_URL = double.url
        yield double
        wechat.close_client(double.url)


def test_the_mini_programs_code_carries_ones_own_invitation(farm: Farm, xpay: XPayDouble) -> None:
    client, path = client_of(farm), "/api/billing/invitation/mini-program-code"
    none = client.get(path)
    assert (none.status_code, none.json()["type"]) == (404, "mini_program_not_found")
    other = open_farm()
    programs = [make_mini_program(each.tenant, secret="s") for each in (farm, farm, other)]
    xpay.secrets |= {program.app_id: "s" for program in programs}
    mine = client.get("/api/billing/invitation").json()["data"]["code"]
    for program in programs[:2]:
        told = client.get(path, {"appid": program.app_id})
        assert (told.status_code, told["Content-Type"], told["Cache-Control"]) == (
            200,
            "image/jpeg",
            "private, no-store",
        )
        with Image.open(io.BytesIO(told.content)) as picture:
            assert bytes(picture.info["comment"]).decode() == f"{program.app_id} pages/chat/index {mine}"
    # Of several none can be guessed, and another tenant's is not this one's.
    for appid in ("", programs[2].app_id):
        refused = client.get(path, {"appid": appid})
        assert refused.status_code in {401, 404}, refused.content
    assert [app_id for app_id, _asked in xpay.drawn] == [program.app_id for program in programs[:2]]
    xpay.raw.extend([(200, b'{"errcode": 45009, "errmsg": "limit"}')])
    bob = client_of(farm, farm.person()).get(path, {"appid": programs[0].app_id})
    assert (bob.status_code, bob.json()["type"]) == (502, "wechat_unavailable")


def test_it_is_for_people_where_invitations_are_offered(farm: Farm, xpay: XPayDouble) -> None:
    path = "/api/billing/invitation/mini-program-code"
    make_mini_program(farm.tenant, secret="s")
    nobody = Client(headers={"Host": host_of(farm.tenant)}).get(path)
    assert (nobody.status_code, nobody.json()["code"]) == (401, -1)
    with scope.tenant(farm.tenant.pk):
        guest = make_user(farm.tenant, is_guest=True)
        assert client_of(farm, guest).get(path).json()["type"] == "guest_not_rewarded"
        RewardRules.objects.update(inviter_amount=0, invitee_amount=0)
    off = client_of(farm).get(path)
    assert (off.status_code, off.json()["type"], xpay.drawn) == (404, "reward_not_offered", [])


def test_another_tenants_code_link_and_people_stay_there(farm: Farm) -> None:
    other = open_farm()
    theirs = other.person(nickname="Not for your eyes")
    other.accept(theirs)
    mine = client_of(farm).get("/api/billing/invitation")
    assert (mine.json()["data"]["invited"], "Not for your eyes" in mine.content.decode()) == (0, False)
    answer = post(client_of(farm, farm.person()), "invitation/accept", {"code": other.code()})
    assert (answer.status_code, answer.json()["type"]) == (400, "invitation_code_unknown")


def test_a_link_says_what_to_do(farm: Farm) -> None:
    code = farm.code()
    page = Client(headers={"Host": host_of(farm.tenant)}).get(f"/i/{code}")
    assert (page.status_code, f"<code>{code}</code>" in page.content.decode()) == (200, True)
    assert "no-store" in page["Cache-Control"]
    wrong = [(host_of(farm.tenant), "/i/nothing"), (host_of(farm.tenant), "/i/<b>"), ("localhost", f"/i/{code}")]
    assert [Client(headers={"Host": host}).get(path).status_code for host, path in wrong] == [404] * 3

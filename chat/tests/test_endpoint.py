"""The chat endpoint over real HTTP, under uvicorn and daphne, on a real database and a scripted upstream."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from billing.models import Hold
from chat.models import Message
from tenants import scope
from tenants.models import Embedding
from tests.clients.raw import RawConnection, Reply, ask, request_bytes
from tests.factories import make_mini_program
from tests.recordings import recording
from tests.shop import COST, RETAIL, WHOLESALE, YUAN, Shop, entries_sum_to_zero, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

OpenShop = Callable[..., Shop]


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


def frames(reply: Reply) -> list[bytes]:
    return [chunk.data for chunk in reply.chunks]


def text_of(reply: Reply) -> str:
    found = [json.loads(frame.removeprefix(b"success: ")) for frame in frames(reply) if frame.startswith(b"success: ")]
    return "".join(frame["content"] for frame in found)


def receipt_of(reply: Reply) -> dict[str, Any]:
    body = reply.body
    if b"event: receipt\ndata: " in body:
        return dict(json.loads(body.split(b"event: receipt\ndata: ")[1].split(b"\n\n")[0]))
    return dict(json.loads(frames(reply)[-2].removeprefix(b"success: "))["receipt"])


def failure_of(reply: Reply) -> dict[str, Any]:
    return dict(json.loads(reply.body.split(b"event: error\ndata: ")[1]))


def price(rates: tuple[int, int, int], usage: dict[str, Any]) -> int:
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    rated = (usage["prompt_tokens"] - cached) * rates[0] + cached * rates[1] + usage["completion_tokens"] * rates[2]
    return int(-(-rated // 1_000_000))


def ended(shop: Shop, count: int = 1) -> list[Message]:
    """Return the shop's messages once `count` of them have ended."""
    for _ in range(600):
        messages = [message for message in shop.messages() if message.state != Message.State.RUNNING]
        if len(messages) >= count:
            return messages
        time.sleep(0.05)
    pytest.fail(f"the turns did not end: {[(m.pk, m.state) for m in shop.messages()]}")


@pytest.mark.parametrize("name", ["zh", "emoji", "words", "plain", "tools", "reasoning"])
def test_both_framings_give_the_same_text_usage_and_charge(shop: Shop, chat_port: int, name: str) -> None:
    said = recording(name)
    shop.offer(name)
    h5 = ask(chat_port, shop.host, {"message": "问", "model": name}, token=shop.alice.token)
    mini = ask(chat_port, shop.host, {"message": "问", "model": name, "is_wxapp": "1"}, token=shop.alice.token)

    assert h5.body.startswith(said.shown + b"event: receipt\ndata: ")
    assert h5.body.endswith(b"data: [DONE]\n\n")
    assert text_of(mini) == said.text
    charge = price(RETAIL, said.usage)
    for reply in (h5, mini):
        receipt = receipt_of(reply)
        assert receipt["charge"] == str(charge)
        assert receipt["usage_source"] == "upstream"
        assert receipt["completion_tokens"] == said.usage["completion_tokens"]
        assert receipt["unit_prices"] == {
            "prompt": "2000000",
            "cached": "1000000",
            "completion": "8000000",
            "per_call": "0",
            "multiplier_ppm": "1000000",
        }
    assert [message.answer for message in shop.messages()] == [said.text, said.text]
    assert [(hold.state, hold.charge, hold.wholesale_charge, hold.cost) for hold in shop.holds()] == [
        ("posted", charge, price(WHOLESALE, said.usage), price(COST, said.usage))
    ] * 2
    assert shop.balance(shop.alice).cash == 20 * YUAN - 2 * charge
    assert shop.balance(shop.alice).pending == 0
    assert entries_sum_to_zero(shop)


def test_every_frame_is_a_chunk_of_its_own_and_keeps_the_rules(shop: Shop, chat_port: int) -> None:
    shop.offer("words")
    reply = ask(chat_port, shop.host, {"message": "x", "model": "words", "is_wxapp": 1}, token=shop.alice.token)
    message_id, conversation_id = reply.headers["x-message-id"], reply.headers["x-conversation-id"]
    parts = frames(reply)
    assert parts[0] == (
        b'success: {"content":"","message_id":"%b","conversation_id":"%b"}\r\n'
        % (message_id.encode(), conversation_id.encode())
    )
    assert parts[-1] == b"0\r\n\r\n"
    for frame in parts[:-1]:
        assert re.fullmatch(rb"success: \{[\x20-\x7e]*\}\r\n", frame)
        assert not re.search(rb"error|success", frame.removeprefix(b"success: "))
    assert "error" in text_of(reply)


def test_the_headers_of_both_framings(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    for is_wxapp in (0, 1):
        reply = ask(
            chat_port,
            shop.host,
            {"message": "x", "is_wxapp": is_wxapp},
            token=shop.alice.token,
            headers={"X-Request-Id": "my-request-1", "Accept-Encoding": "gzip, br"},
        )
        assert reply.status == 200
        wanted = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            "access-control-allow-origin": "*",
            "access-control-expose-headers": "X-Message-Id, X-Conversation-Id, X-Request-Id",
            "x-request-id": "my-request-1",
            "transfer-encoding": "chunked",
        }
        assert {name: reply.headers.get(name) for name in wanted} == wanted
        assert "content-encoding" not in reply.headers
        assert "access-control-allow-credentials" not in reply.headers


def test_a_preflight_is_answered(shop: Shop, chat_port: int) -> None:
    reply = ask(chat_port, shop.host, {}, method="OPTIONS", headers={"Origin": "https://elsewhere.example"})
    assert reply.status == 204
    assert reply.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"


PAGE, OTHER = "https://shop.example.com", "https://other.example.com"


def test_a_tenant_that_names_pages_is_read_by_those_only(upstream_url: str, chat_port: int) -> None:
    """Answers, refusals and preflights alike; another tenant's page is nobody's."""
    shop, other = open_shop(upstream_url), open_shop(upstream_url)
    for its, page in ((shop, PAGE), (other, OTHER)):
        its.offer("plain")
        with scope.tenant(its.tenant.pk):
            Embedding.objects.create(tenant=its.tenant, origins=[page])
    for its, page, foreign in ((shop, PAGE, OTHER), (other, OTHER, PAGE)):
        for origin, allowed in ((page, page), (foreign, None), (f"https://{its.host}", f"https://{its.host}")):
            headers = {"Origin": origin}
            replies = [
                ask(chat_port, its.host, {"message": "x"}, token=its.alice.token, headers=headers),
                ask(chat_port, its.host, {"message": "x"}, headers=headers),
                ask(chat_port, its.host, {}, method="OPTIONS", headers=headers),
            ]
            seen = [(r.headers.get("access-control-allow-origin"), r.headers.get("vary")) for r in replies]
            assert seen == [(allowed, "Origin")] * 3
    # One that names none is read by all.
    third = open_shop(upstream_url)
    reply = ask(chat_port, third.host, {"message": "x"}, headers={"Origin": OTHER})
    assert (reply.headers["access-control-allow-origin"], "vary" in reply.headers) == ("*", False)


@pytest.mark.parametrize(("method", "as_json"), [("GET", False), ("POST", False), ("POST", True)])
@pytest.mark.parametrize("place", ["bearer", "header", "parameter"])
def test_every_way_to_ask_and_to_show_the_token(
    shop: Shop, chat_port: int, method: str, place: str, *, as_json: bool
) -> None:
    shop.offer("plain")
    params: dict[str, Any] = {"message": "你好 a+b&c=d"}
    headers = {}
    if place == "bearer":
        headers["Authorization"] = f"Bearer {shop.alice.token}"
    elif place == "header":
        headers["token"] = shop.alice.token
    else:
        params["token"] = shop.alice.token
    reply = ask(chat_port, shop.host, params, method=method, as_json=as_json, headers=headers)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert [message.question for message in shop.messages()] == ["你好 a+b&c=d"]


def test_the_tenant_comes_from_the_app_id_too(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    program = make_mini_program(shop.tenant)
    referer = f"https://servicewechat.com/{program.app_id}/12/page-frame.html"
    by_parameter = ask(chat_port, "127.0.0.1", {"message": "x", "appid": program.app_id}, token=shop.alice.token)
    by_referer = ask(chat_port, "127.0.0.1", {"message": "x"}, token=shop.alice.token, headers={"Referer": referer})
    assert by_parameter.body.endswith(b"data: [DONE]\n\n")
    assert by_referer.body.endswith(b"data: [DONE]\n\n")


# --- refusals ---


def assert_nothing_happened(shop: Shop) -> None:
    assert (shop.messages(), shop.holds(), shop.answers()) == ([], [], [])


@pytest.mark.parametrize("is_wxapp", [0, 1])
def test_a_refusal_is_one_failure_in_the_readers_framing(shop: Shop, chat_port: int, is_wxapp: int) -> None:
    shop.offer("plain")
    reply = ask(chat_port, shop.host, {"message": "x", "is_wxapp": is_wxapp}, headers={"Accept-Language": "en"})
    assert reply.status == 200
    assert len(reply.chunks) == 1
    assert reply.body.startswith(b"event: error\ndata: {")
    assert reply.body.endswith(b"}\r\n" if is_wxapp else b"}\n\n")
    told = failure_of(reply)
    assert told.pop("request_id") == reply.headers["x-request-id"]
    assert told == {
        "code": -1,
        "msg": "Please log in first.",
        "type": "login_required",
        "scope": "",
        "action": "login",
        "reset_at": None,
    }
    assert_nothing_happened(shop)


@pytest.mark.parametrize(
    ("params", "code", "kind", "scope"),
    [
        ({}, 10001, "message_missing", "message"),
        ({"message": " "}, 10001, "message_missing", "message"),
        ({"message": ["x"]}, 10001, "invalid_parameter", "message"),
        ({"message": "a\x00b"}, 10001, "invalid_parameter", "message"),
        ({"message": "half \ud83d"}, 10001, "body", "body"),
        ({"message": "x" * 100_001}, 10001, "invalid_parameter", "message"),
        ({"message": "字" * 400_000}, 10001, "invalid_parameter", "body"),
        ({"message": "word " * 19_000}, 10001, "message_too_long", "message"),
        ({"message": "x", "model": "nope"}, 404, "model_not_found", "model"),
        ({"message": "x", "model": "' OR 1=1 --"}, 404, "model_not_found", "model"),
        ({"message": "x", "model": 7}, 10001, "invalid_parameter", "model"),
        ({"message": "x", "role": "nope"}, 404, "role_not_found", "role"),
        ({"message": "x", "conversation": "nope"}, 404, "conversation_not_found", "conversation"),
        (
            {"message": "x", "conversation": "00000000-0000-7000-8000-000000000000"},
            404,
            "conversation_not_found",
            "conversation",
        ),
        ({"message": "x", "client_msg_id": "k" * 65}, 10001, "invalid_parameter", "client_msg_id"),
        ({"message": "x", "is_wxapp": "2"}, 10001, "invalid_parameter", "is_wxapp"),
        ({"message_id": "nope"}, 404, "message_not_found", "message_id"),
        ({"message_id": "00000000-0000-7000-8000-000000000000"}, 404, "message_not_found", "message_id"),
        ({"message_id": "x", "offset": "-1"}, 10001, "invalid_parameter", "offset"),
    ],
)
def test_bad_input_has_its_code_and_leaves_nothing(
    shop: Shop, chat_port: int, params: dict[str, Any], code: int, kind: str, scope: str
) -> None:
    shop.offer("plain")
    reply = ask(chat_port, shop.host, params, token=shop.alice.token)
    told = failure_of(reply)
    expected_kind = "invalid_parameter" if kind == "body" else kind
    assert (reply.status, told["code"], told["type"], told["scope"]) == (200, code, expected_kind, scope)
    assert told["msg"]
    assert "Traceback" not in reply.body.decode()
    assert_nothing_happened(shop)
    assert shop.balance(shop.alice).pending == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_refused(shop: Shop, chat_port: int, method: str) -> None:
    reply = ask(chat_port, shop.host, {"message": "x"}, method=method, token=shop.alice.token)
    assert (failure_of(reply)["code"], failure_of(reply)["scope"]) == (10001, "method")


@pytest.mark.parametrize("token", ["", "x", "bny_" + "a" * 43, "bny_\u00e9", "Bearer", "null", "undefined"])
def test_a_bad_token_is_login(shop: Shop, chat_port: int, token: str) -> None:
    shop.offer("plain")
    reply = ask(chat_port, shop.host, {"message": "x", "token": token})
    assert (failure_of(reply)["code"], failure_of(reply)["action"]) == (-1, "login")
    assert_nothing_happened(shop)


def test_an_unknown_host_is_no_tenant(shop: Shop, chat_port: int) -> None:
    reply = ask(chat_port, "nobody.example.com", {"message": "x"}, token=shop.alice.token)
    assert (failure_of(reply)["code"], failure_of(reply)["type"]) == (404, "tenant_not_found")


def test_the_message_is_in_the_persons_language(shop: Shop, chat_port: int) -> None:
    told = {
        language: failure_of(ask(chat_port, shop.host, {"message": "x"}, headers={"Accept-Language": language}))["msg"]
        for language in ("zh-CN,zh;q=0.9,en;q=0.8", "en-US,en;q=0.5")
    }
    assert told == {"zh-CN,zh;q=0.9,en;q=0.8": "请先登录。", "en-US,en;q=0.5": "Please log in first."}


# --- other tenants ---


def test_no_object_of_another_tenant_is_reached(upstream_url: str, chat_port: int) -> None:
    ours, theirs = open_shop(upstream_url, name="ours"), open_shop(upstream_url, name="theirs")
    for shop in (ours, theirs):
        shop.offer("plain")
    theirs.offer("zh", slug="their-model")
    ask(chat_port, theirs.host, {"message": "a secret of theirs", "client_msg_id": "k1"}, token=theirs.alice.token)
    [secret] = theirs.messages()
    program = make_mini_program(theirs.tenant)

    def code(host: str, token: str, **params: str) -> tuple[int, str]:
        reply = ask(chat_port, host, {"message": "x", **params}, token=token, headers={"Accept-Language": "en"})
        assert b"secret of theirs" not in reply.body
        assert theirs.tenant.name.encode() not in reply.body
        return failure_of(reply)["code"], failure_of(reply)["type"]

    mine = ours.alice.token
    assert code(theirs.host, mine) == (-1, "login_required")
    assert code(ours.host, theirs.alice.token) == (-1, "login_required")
    assert code("127.0.0.1", mine, appid=program.app_id) == (-1, "login_required")
    assert code(ours.host, mine, appid=program.app_id) == (404, "tenant_not_found")
    assert code(ours.host, mine, model="their-model") == (404, "model_not_found")
    assert code(ours.host, mine, conversation=str(secret.conversation_id)) == (404, "conversation_not_found")
    assert code(ours.host, mine, message_id=str(secret.pk)) == (404, "message_not_found")
    assert code(theirs.host, mine, message_id=str(secret.pk)) == (-1, "login_required")
    assert_nothing_happened(ours)
    assert len(theirs.messages()) == 1


def test_no_object_of_another_user_is_reached(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    mallory = shop.person(cash=YUAN)
    ask(chat_port, shop.host, {"message": "private", "client_msg_id": "k"}, token=shop.alice.token)
    [private] = shop.messages()
    for params in ({"conversation": str(private.conversation_id)}, {"message_id": str(private.pk)}):
        reply = ask(chat_port, shop.host, {"message": "x", **params}, token=mallory.token)
        assert failure_of(reply)["code"] == 404
    # A key is a user's own: the same one of another user is another message.
    reply = ask(chat_port, shop.host, {"message": "other", "client_msg_id": "k"}, token=mallory.token)
    assert reply.headers["x-message-id"] != str(private.pk)


# --- money ---


def test_money_for_one_of_fifty(upstream_url: str, chat_port: int) -> None:
    """Whoever asks after the first answer's end is refused as well: less than a hold is left by then."""
    shop = open_shop(upstream_url)
    shop.offer("pace:20:20", max_output_tokens=100, min_output_tokens=100)
    ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    [first] = shop.holds()
    assert 0 < first.charge < first.amount
    bob = shop.person(cash=first.amount)
    replies: list[Reply] = []

    def chat() -> None:
        replies.append(ask(chat_port, shop.host, {"message": "x"}, token=bob.token))

    threads = [threading.Thread(target=chat) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = [reply for reply in replies if reply.body.endswith(b"data: [DONE]\n\n")]
    refused = [failure_of(reply) for reply in replies if reply not in answered]
    assert len(answered) == 1
    assert {(told["code"], told["action"]) for told in refused} == {(101, "recharge")}
    assert len(refused) == 49
    balance = shop.balance(bob)
    assert balance.cash == first.amount - int(receipt_of(answered[0])["charge"])
    assert balance.cash >= 0
    assert balance.pending == 0
    assert [hold.state for hold in shop.holds()] == ["posted"] * 2
    assert entries_sum_to_zero(shop)


def test_free_quota_then_101(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url, cash=0)
    shop.offer("plain", free_per_day=1)
    first = ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    assert receipt_of(first)["charge"] == "0"
    assert receipt_of(first)["funding"]["free"] is True
    second = ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    assert (failure_of(second)["code"], failure_of(second)["action"]) == (101, "recharge")


def test_free_quota_then_102_where_paying_does_not_help(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url)
    shop.offer("plain", free_per_day=1, paid_way=False)
    ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    told = failure_of(ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token))
    assert (told["code"], told["type"], told["scope"], told["used"], told["limit"]) == (
        102,
        "quota_used_up",
        "user",
        1,
        1,
    )
    assert told["reset_at"]


def test_an_empty_wallet_of_the_tenant_is_102(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url, wallet=0)
    shop.offer("plain")
    told = failure_of(ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token))
    assert (told["code"], told["type"], told["scope"]) == (102, "tenant_wallet_empty", "tenant")
    assert_nothing_happened(shop)
    assert shop.balance(shop.alice).pending == 0


def test_the_answer_is_cut_to_the_balance(
    upstream_url: str, chat_port: int, upstream_requests: Callable[[], Any]
) -> None:
    shop = open_shop(upstream_url, cash=1_000)
    shop.offer("length", min_output_tokens=10)
    question = f"cut {shop.host}"
    ask(chat_port, shop.host, {"message": question}, token=shop.alice.token)
    [hold] = shop.holds()
    assert hold.amount <= 1_000
    assert 10 <= hold.max_completion_tokens < 1000
    [sent] = [body for body in upstream_requests() if body["messages"][-1]["content"] == question]
    assert sent["max_tokens"] == hold.max_completion_tokens
    assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("http-500", 500),
        ("http-401", 500),
        ("http-429", 500),
        ("html", 500),
        ("error-event-first", 500),
        ("empty", 500),
        ("content-filter", 11000),
    ],
)
@pytest.mark.parametrize("is_wxapp", [0, 1])
def test_a_failure_before_any_output_costs_nothing(
    shop: Shop, chat_port: int, model: str, code: int, is_wxapp: int
) -> None:
    shop.offer(model)
    reply = ask(chat_port, shop.host, {"message": "x", "is_wxapp": is_wxapp}, token=shop.alice.token)
    assert failure_of(reply)["code"] == code
    assert b"[DONE]" not in reply.body
    assert [hold.state for hold in shop.holds()] == ["voided"]
    assert shop.balance(shop.alice).cash == 20 * YUAN
    assert shop.balance(shop.alice).pending == 0
    assert [message.state for message in shop.messages()] == ["failed"]
    assert shop.answers() == []


@pytest.mark.parametrize("model", ["broken-off", "error-event"])
@pytest.mark.parametrize("is_wxapp", [0, 1])
def test_an_answer_that_breaks_off_is_kept_and_charged_for_what_came(
    shop: Shop, chat_port: int, model: str, is_wxapp: int
) -> None:
    shop.offer(model)
    reply = ask(chat_port, shop.host, {"message": "x", "is_wxapp": is_wxapp}, token=shop.alice.token)
    told = failure_of(reply)
    assert (told["code"], told["type"]) == (0, "answer_cut_short")
    [message] = shop.messages()
    assert message.state == "cut"
    assert message.answer
    assert message.receipt is not None
    assert message.receipt["reason"] == "upstream_broken"
    [hold] = shop.holds()
    assert (hold.state, str(hold.charge)) == ("posted", message.receipt["charge"])
    assert 0 < hold.charge == 20 * YUAN - shop.balance(shop.alice).cash
    assert entries_sum_to_zero(shop)


@pytest.mark.parametrize("model", ["ignores-max-tokens", "ignores-max-tokens:200"])
def test_an_upstream_that_ignores_the_limit_is_stopped_at_the_hold(shop: Shop, chat_port: int, model: str) -> None:
    """Also one whose answer is read at once, with the figures that it wants to be paid for."""
    offer = shop.offer(model, max_output_tokens=50)
    reply = ask(chat_port, shop.host, {"message": "x", "is_wxapp": 1}, token=shop.alice.token)
    assert reply.body.endswith(b"0\r\n\r\n")
    [hold] = shop.holds()
    assert hold.posted_completion == offer.max_output_tokens
    assert hold.charge <= hold.amount
    assert (hold.shortfall, receipt_of(reply)["reason"]) == (0, "length")
    assert entries_sum_to_zero(shop)


@pytest.mark.parametrize("size", [512, 513, 600, 1024])
def test_an_answer_ends_though_a_checkpoint_falls_due_with_its_last_word(shop: Shop, chat_port: int, size: int) -> None:
    shop.offer(f"burst:{size}", max_output_tokens=2000)
    for _ in range(5):
        reply = ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
        assert reply.body.endswith(b"data: [DONE]\n\n")
    assert {(message.state, len(message.answer.split())) for message in shop.messages()} == {("done", size)}


def test_usage_that_is_not_reported_is_counted_offline(shop: Shop, chat_port: int) -> None:
    shop.offer("no-usage")
    receipt = receipt_of(ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token))
    assert receipt["usage_source"] == "estimate"
    assert receipt["completion_tokens"] > 0
    assert int(receipt["charge"]) > 0


# --- leaving, and coming again ---


@pytest.mark.parametrize("is_wxapp", [0, 1])
@pytest.mark.parametrize("leave_after", [0, 1, 50, 200, 700])
def test_a_client_that_hangs_up_gets_charged_what_was_reported_and_finds_it_whole(
    shop: Shop, chat_port: int, is_wxapp: int, leave_after: int
) -> None:
    shop.offer("pace:40:10")
    target, headers, body = request_bytes("POST", {"message": "x", "is_wxapp": is_wxapp}, as_json=True)
    headers["Authorization"] = f"Bearer {shop.alice.token}"
    with RawConnection(chat_port, shop.host) as connection:
        connection.send("POST", target, headers=headers, body=body)
        connection.read_head()
        got = 0
        chunks = connection.chunks()
        while got < leave_after:
            got += len(next(chunks).data)
    [message] = ended(shop)
    whole = ask(chat_port, shop.host, {"message_id": str(message.pk), "is_wxapp": 1}, token=shop.alice.token)
    assert message.state == "done"
    assert text_of(whole) == message.answer
    [hold] = shop.holds()
    assert (hold.state, hold.usage_source) == ("posted", "upstream")
    assert hold.charge == 20 * YUAN - shop.balance(shop.alice).cash > 0


def test_the_same_key_is_one_answer_and_one_charge(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("pace:30:10")
    question = f"once {shop.host}"
    params = {"message": question, "client_msg_id": "key-1", "is_wxapp": 1}
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(ask(chat_port, shop.host, params, token=shop.alice.token)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replies.append(ask(chat_port, shop.host, params, token=shop.alice.token))
    [message] = shop.messages()
    assert {reply.headers["x-message-id"] for reply in replies} == {str(message.pk)}
    assert {text_of(reply) for reply in replies} == {message.answer}
    assert {receipt_of(reply)["charge"] for reply in replies} == {str(shop.holds()[0].charge)}
    assert len(shop.holds()) == len(shop.answers()) == 1
    assert len([body for body in upstream_requests() if body["messages"][-1]["content"] == question]) == 1


def test_the_same_key_with_another_text_is_refused(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    ask(chat_port, shop.host, {"message": "one", "client_msg_id": "k"}, token=shop.alice.token)
    told = failure_of(ask(chat_port, shop.host, {"message": "two", "client_msg_id": "k"}, token=shop.alice.token))
    assert (told["code"], told["type"]) == (10001, "client_msg_id_reused")
    assert len(shop.messages()) == len(shop.holds()) == 1


def test_the_key_of_a_refused_message_may_be_used_again(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url, cash=0)
    shop.offer("plain")
    params = {"message": "x", "client_msg_id": "k"}
    assert failure_of(ask(chat_port, shop.host, params, token=shop.alice.token))["code"] == 101
    shop.credit(shop.alice, YUAN)
    assert ask(chat_port, shop.host, params, token=shop.alice.token).body.endswith(b"data: [DONE]\n\n")


def test_a_failed_message_is_told_again_and_not_tried_again(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("http-500")
    params = {"message": f"fails {shop.host}", "client_msg_id": "k"}
    told = [failure_of(ask(chat_port, shop.host, params, token=shop.alice.token)) for _ in range(2)]
    assert {one["code"] for one in told} == {500}
    assert len([b for b in upstream_requests() if b["messages"][-1]["content"] == params["message"]]) == 1


def test_a_finished_answer_is_replayed_from_an_offset_in_both_framings(shop: Shop, chat_port: int) -> None:
    shop.offer("zh")
    first = ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    [message] = shop.messages()
    for offset in (0, 1, 5, len(message.answer), len(message.answer) + 10):
        params = {"message_id": first.headers["x-message-id"], "offset": offset}
        mini = ask(chat_port, shop.host, params | {"is_wxapp": 1}, token=shop.alice.token)
        h5 = ask(chat_port, shop.host, params, token=shop.alice.token)
        assert text_of(mini) == message.answer[offset:]
        lines = [line for line in h5.body.decode().split("\n\n") if line.startswith("data: {")]
        deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
        assert "".join(delta.get("content", "") for delta in deltas) == message.answer[offset:]
        assert receipt_of(h5) == receipt_of(mini) == message.receipt
    assert len(shop.holds()) == 1


def test_a_conversation_goes_on_with_its_context(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("plain")
    first = ask(chat_port, shop.host, {"message": f"first {shop.host}"}, token=shop.alice.token)
    conversation = first.headers["x-conversation-id"]
    second = ask(
        chat_port, shop.host, {"message": f"second {shop.host}", "conversation": conversation}, token=shop.alice.token
    )
    assert second.headers["x-conversation-id"] == conversation
    [sent] = [body for body in upstream_requests() if body["messages"][-1]["content"] == f"second {shop.host}"]
    assert sent["messages"] == [
        {"role": "user", "content": f"first {shop.host}"},
        {"role": "assistant", "content": recording("plain").text},
        {"role": "user", "content": f"second {shop.host}"},
    ]


def test_the_context_keeps_within_the_models_window(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("echo", context_window=400, max_output_tokens=200, min_output_tokens=20)
    conversation = ""
    for number in range(6):
        params = {"message": f"{shop.host} {number} " + "word " * 60, "conversation": conversation}
        reply = ask(chat_port, shop.host, params, token=shop.alice.token)
        conversation = reply.headers["x-conversation-id"]
    asked = f"{shop.host} 5 "
    [last] = [b for b in upstream_requests() if str(b["messages"][-1]["content"]).startswith(asked)]
    assert 1 <= len(last["messages"]) < 11
    words = sum(message["content"].count("word") for message in last["messages"])
    assert words + last["max_tokens"] <= 400
    assert last["messages"][0]["role"] == "user"


def test_holds_pin_what_they_need(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    ask(chat_port, shop.host, {"message": "x"}, token=shop.alice.token)
    [hold] = shop.holds()
    [message] = shop.messages()
    assert hold.pk == message.pk
    assert hold.dispatched_at is not None
    assert hold.created_at <= hold.dispatched_at <= (hold.ended_at or hold.created_at)
    assert hold.expires_at > hold.created_at
    assert hold.state == Hold.State.POSTED

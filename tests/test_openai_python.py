"""OpenAI's own Python library, unmodified, against the real server: the API is what it understands."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from django.utils import timezone

from chat import keys
from chat.models import ApiKey, Message
from chat.moderation.models import ModerationWord
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.programs import clients_at, expect_right_books, make_key, say, wait_for
from tests.recordings import recording
from tests.servers import web_process, web_server
from tests.shop import RETAIL, YUAN, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

Client = Callable[..., openai.OpenAI]


@pytest.fixture
def shop(upstream_url: str) -> Iterator[Shop]:
    shop = open_shop(upstream_url)
    yield shop
    expect_right_books(shop)


@pytest.fixture
def client(shop: Shop, chat_port: int) -> Iterator[Client]:
    """Make clients of the shop's; they do not ask again by themselves unless told to."""
    with clients_at(shop, chat_port) as make:
        yield make


def charge_of(usage: Any) -> int:
    cached = usage.prompt_tokens_details.cached_tokens or 0
    rated = (usage.prompt_tokens - cached) * RETAIL[0] + cached * RETAIL[1] + usage.completion_tokens * RETAIL[2]
    return int(-(-rated // 1_000_000))


def spent(shop: Shop) -> int:
    return 20 * YUAN - shop.balance(shop.alice).cash


def test_a_whole_answer_is_charged_as_its_usage_says(client: Client, shop: Shop) -> None:
    shop.offer("zh", slug="sold-name")
    answer = client().chat.completions.create(model="sold-name", messages=say("问"))
    said = recording("zh")
    [message] = shop.messages()
    assert (answer.id, answer.model, answer.object) == (str(message.pk), "sold-name", "chat.completion")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", said.text, "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == said.usage["prompt_tokens"]
    assert answer.usage.completion_tokens == said.usage["completion_tokens"]
    assert answer.usage.total_tokens == said.usage["prompt_tokens"] + said.usage["completion_tokens"]
    assert spent(shop) == charge_of(answer.usage)


def test_a_stream_has_the_same_text_and_ends_with_its_usage_where_that_is_asked_for(client: Client, shop: Shop) -> None:
    shop.offer("emoji")
    said, program = recording("emoji"), client()
    for asked in (True, False):
        options: Any = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = list(program.chat.completions.create(model="emoji", messages=say("x"), stream=True, **options))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == said.text
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert {(c.id, c.model) for c in chunks} == {(str(shop.messages()[-1].pk), "emoji")}
        counted = [c for c in chunks if c.usage]
        assert [c.usage.completion_tokens for c in counted if c.usage] == (
            [said.usage["completion_tokens"]] if asked else []
        )
        assert all(c.choices == [] for c in counted)
    assert [hold.state for hold in shop.holds()] == ["posted", "posted"]


def test_tools_go_up_and_their_calls_come_back(
    client: Client, shop: Shop, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("tools")
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": f"weather {shop.host}"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    program = client()
    given: Any = {
        "model": "tools",
        "messages": messages,
        "tools": [tool],
        "tool_choice": "auto",
        "temperature": 0.3,
        "seed": 7,
        "stop": ["END"],
        "response_format": {"type": "json_object"},
        "user": "somebody",
        "max_completion_tokens": 321,
    }
    whole = program.chat.completions.create(**given)
    chunks = list(program.chat.completions.create(**given, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in recording("tools").chunks if chunk.get("choices")]
    parts = [call for delta in deltas for call in delta.get("tool_calls") or []]
    wanted = {
        index: (
            next(p["id"] for p in parts if p["index"] == index and p.get("id")),
            next(p["function"]["name"] for p in parts if p["index"] == index and p["function"].get("name")),
            "".join(p["function"].get("arguments") or "" for p in parts if p["index"] == index),
        )
        for index in sorted({p["index"] for p in parts})
    }
    calls: Any = whole.choices[0].message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == list(wanted.values())
    assert whole.choices[0].finish_reason == "tool_calls"
    streamed = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or []]
    assert "".join((call.function and call.function.arguments) or "" for call in streamed) == "".join(
        arguments for _id, _name, arguments in wanted.values()
    )
    sent = [body for body in upstream_requests() if f"weather {shop.host}" in str(body["messages"])]
    assert len(sent) == 2
    for body in sent:
        assert body["messages"] == [{"role": "system", "content": "be brief"}, *messages[1:]]
        passed = {name: body[name] for name in ("tools", "tool_choice", "temperature", "seed", "stop")}
        assert passed == {name: given[name] for name in passed}
        assert body["response_format"] == {"type": "json_object"}
        assert (body["max_tokens"], body["stream"]) == (321, True)
        assert "user" not in body


def test_images_go_up_as_they_are_and_are_frozen_by_their_bound(
    client: Client, shop: Shop, upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("plain", image_tokens=1500)
    shop.offer("words", image_tokens=0)
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000, "detail": "low"}}
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": shop.host}, image, image]}]
    program = client()
    program.chat.completions.create(model="plain", messages=messages)
    [sent] = [body for body in upstream_requests() if shop.host in str(body["messages"])]
    assert sent["messages"] == messages
    [hold] = shop.holds()
    assert 3000 < hold.prompt_tokens < 3100
    with pytest.raises(openai.BadRequestError) as refused:
        program.chat.completions.create(model="words", messages=messages)
    assert refused.value.body["reason"] == "images_not_taken"  # type: ignore[index]


def test_reasoning_is_passed_on_beside_the_text(client: Client, shop: Shop) -> None:
    shop.offer("reasoning")
    program = client()
    whole: Any = program.chat.completions.create(model="reasoning", messages=say("x")).choices[0].message
    chunks: Any = list(program.chat.completions.create(model="reasoning", messages=say("x"), stream=True))
    deltas = [c["choices"][0]["delta"] for c in recording("reasoning").chunks if c.get("choices")]
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert thought != ""
    assert whole.reasoning_content == thought
    streamed = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks if c.choices]
    assert "".join(streamed) == thought


def test_models_are_the_tenants_and_the_keys(client: Client, shop: Shop) -> None:
    shop.offer("plain", slug="b")
    shop.offer("plain", slug="a")
    shop.offer("plain", slug="off", is_enabled=False)
    everything, some = client(), client(make_key(shop.alice, allowed_models=["b"])[1])
    assert [(m.id, m.owned_by) for m in everything.models.list()] == [("a", shop.tenant.slug), ("b", shop.tenant.slug)]
    assert everything.models.retrieve("a").id == "a"
    assert [m.id for m in some.models.list()] == ["b"]
    for ask in (
        lambda: some.models.retrieve("a"),
        lambda: some.chat.completions.create(model="a", messages=say("x")),
        lambda: everything.chat.completions.create(model="off", messages=say("x")),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            ask()
        assert (missing.value.type, missing.value.code) == ("model_not_found", "404")


def test_nothing_of_what_was_said_is_kept(client: Client, shop: Shop) -> None:
    shop.offer("plain")
    client().chat.completions.create(model="plain", messages=say("a secret question"))
    [message] = shop.messages()
    assert (message.question, message.answer, message.conversation_id) == ("", "", None)
    assert (message.state, message.finish_reason) == (Message.State.DONE, "stop")
    assert message.receipt is not None
    assert message.api_key_id is not None


def refusal(ask: Callable[[], Any], kind: type[openai.APIStatusError]) -> tuple[int, str | None, Any, Any]:
    with pytest.raises(kind) as refused:
        ask()
    body: Any = refused.value.body
    return refused.value.status_code, refused.value.type, body["code"], body["reason"]


def test_refusals_raise_what_the_library_has_for_them(client: Client, shop: Shop) -> None:
    shop.offer("plain")
    shop.offer("http-500")
    shop.offer("http-400")
    poor, blocked = shop.person(), shop.person(cash=YUAN)
    key, secret = make_key(shop.alice)
    past, past_secret = make_key(shop.alice)
    blocked_secret, limited = make_key(blocked)[1], make_key(shop.alice, spend_limit=3)[1]
    with scope.tenant(shop.tenant.pk):
        ApiKey.objects.filter(pk=past.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        EndUser.objects.filter(pk=blocked.user.pk).update(is_active=False)
        keys.revoke_key(key)

    def ask(secret: str, model: str = "plain", **more: Any) -> Callable[[], Any]:
        return lambda: client(secret).chat.completions.create(model=model, messages=say("x"), **more)

    good = make_key(shop.alice)[1]
    unknown = "sk-bny-" + "x" * 43
    bad_key = (401, "invalid_api_key", -1, "api_key_invalid")
    for wrong in (secret, blocked_secret, unknown, "sk-nonsense", shop.alice.token):
        assert refusal(ask(wrong), openai.AuthenticationError) == bad_key
    assert refusal(ask(past_secret), openai.AuthenticationError) == (401, "invalid_api_key", -1, "api_key_expired")
    assert refusal(ask(make_key(poor)[1]), openai.RateLimitError) == (429, "insufficient_quota", 101, "balance_short")
    assert refusal(ask(limited), openai.RateLimitError) == (429, "insufficient_quota", 102, "api_key_limit_reached")
    wrong_request = (400, "invalid_request_error", 10001, "invalid_parameter")
    for more in ({"n": 2}, {"temperature": 3}, {"extra_body": {"unheard_of": 1}}, {"max_tokens": 0}):
        assert refusal(ask(good, **more), openai.BadRequestError) == wrong_request
    assert refusal(ask(good, "http-500"), openai.InternalServerError) == (502, "server_error", 500, "upstream_failed")
    assert refusal(ask(good, "http-400"), openai.BadRequestError) == (
        *(400, "invalid_request_error", 10001, "request_refused"),
    )
    assert refusal(ask(good, "http-500", stream=True), openai.InternalServerError)[3] == "upstream_failed"
    assert spent(shop) == 0


# --- asking again ---


@pytest.fixture(scope="module")
def port(django_db_setup: None, django_db_blocker: Any) -> Iterator[int]:
    with django_db_blocker.unblock(), web_server("uvicorn") as port:
        yield port


def test_words_that_a_tenant_forbids_are_refused_and_masked_here_too(
    client: Client, shop: Shop, upstream_requests: Callable[[], list[dict[str, Any]]]
) -> None:
    shop.offer("plain")
    with scope.tenant(shop.tenant.pk):
        ModerationWord.objects.create(tenant=shop.tenant, word="forbiddenword")
        ModerationWord.objects.create(tenant=shop.tenant, word="mildword", action="mask")
    asked, program = f"mildword {shop.host}", client()
    answer = program.chat.completions.create(model="plain", messages=say(asked))
    assert answer.choices[0].message.content
    [sent] = [body for body in upstream_requests() if shop.host in str(body["messages"])]
    assert sent["messages"] == say(f"******** {shop.host}")
    with pytest.raises(openai.APIStatusError) as refused:
        program.chat.completions.create(model="plain", messages=say("a forbiddenword"))
    assert refused.value.body is not None
    assert refused.value.body["reason"] == "question_refused"  # type: ignore[index]  # OpenAI says object
    assert len(shop.messages()) == 1


def test_a_library_that_loses_patience_asks_again_and_is_charged_once(shop: Shop, port: int) -> None:
    shop.offer("slow:2500")
    with clients_at(shop, port) as make:
        program = make(timeout=1.0, max_retries=3)
        answer = program.chat.completions.create(model="slow-2500", messages=say("x"))
    assert answer.choices[0].message.content == "1 2 3 "
    assert [(hold.state, hold.charge) for hold in shop.holds()] == [("posted", spent(shop))]
    [message] = shop.messages()
    assert answer.id == str(message.pk)


def test_an_answer_that_its_program_left_is_there_when_it_asks_again_and_only_then(shop: Shop, port: int) -> None:
    shop.offer("slow:1200")
    secret = make_key(shop.alice)[1]
    with clients_at(shop, port) as make:
        impatient = make(secret, timeout=0.6)
        with pytest.raises(openai.APITimeoutError):
            impatient.chat.completions.create(model="slow-1200", messages=say("x"))
        wait_for(lambda: [hold for hold in shop.holds() if hold.state == "posted"])
        again: Any = {"extra_headers": {"x-stainless-retry-count": "1"}}
        kept = make(secret).chat.completions.create(model="slow-1200", messages=say("x"), **again)
        assert (kept.id, kept.choices[0].message.content) == (str(shop.messages()[0].pk), "1 2 3 ")
        assert len(shop.holds()) == 1
        # Another request, another key's, and one that is no second try are questions of their own.
        other_secret = make_key(shop.alice)[1]
        for secret_, text, more in ((secret, "y", again), (other_secret, "x", again), (secret, "x", {})):
            make(secret_).chat.completions.create(model="slow-1200", messages=say(text), **more)
    assert len(shop.holds()) == 4


def test_a_second_try_of_what_was_read_to_its_end_is_a_new_question(shop: Shop, port: int) -> None:
    shop.offer("plain")
    with clients_at(shop, port) as make:
        program = make()
        first = program.chat.completions.create(model="plain", messages=say("x"))
        again: Any = {"extra_headers": {"x-stainless-retry-count": "1"}}
        second = program.chat.completions.create(model="plain", messages=say("x"), **again)
    assert first.id != second.id
    assert len(shop.holds()) == 2


def test_what_failed_upstream_is_tried_anew_and_costs_nothing(shop: Shop, port: int) -> None:
    shop.offer("http-500")
    key: Any = {"extra_headers": {"Idempotency-Key": "a"}}
    with clients_at(shop, port) as make, pytest.raises(openai.InternalServerError):
        make(max_retries=1).chat.completions.create(model="http-500", messages=say("x"), **key)
    assert [hold.state for hold in shop.holds()] == ["voided", "voided"]
    assert spent(shop) == 0


def test_an_idempotency_key_is_one_answer(shop: Shop, port: int) -> None:
    shop.offer("slow:500")
    secret, others = make_key(shop.alice)[1], make_key(shop.person(cash=YUAN))[1]
    key: Any = {"extra_headers": {"Idempotency-Key": "order-17"}}
    answers: list[Any] = []
    with clients_at(shop, port) as make:
        program = make(secret)

        def ask() -> None:
            answers.append(program.chat.completions.create(model="slow-500", messages=say("x"), **key))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ask()
        assert refusal(
            lambda: program.chat.completions.create(model="slow-500", messages=say("y"), **key), openai.BadRequestError
        ) == (400, "invalid_request_error", 10001, "client_msg_id_reused")
        assert len(shop.holds()) == 1
        make(others).chat.completions.create(model="slow-500", messages=say("x"), **key)
    assert [answer.choices[0].message.content for answer in answers] == ["1 2 3 "] * 5
    assert {answer.id for answer in answers} == {str(shop.messages()[0].pk)}
    assert len(shop.holds()) == 2


def test_a_second_try_at_another_process_gets_the_first_ones_answer(shop: Shop, port: int) -> None:
    shop.offer("slow:2000")
    secret = make_key(shop.alice)[1]
    again: Any = {"extra_headers": {"x-stainless-retry-count": "1"}}
    with web_process("uvicorn") as (other, _process), clients_at(shop, port) as here, clients_at(shop, other) as there:
        with pytest.raises(openai.APITimeoutError):
            here(secret, timeout=0.7).chat.completions.create(model="slow-2000", messages=say("x"))
        answer = there(secret).chat.completions.create(model="slow-2000", messages=say("x"), **again)
    assert answer.choices[0].message.content == "1 2 3 "
    assert [hold.state for hold in shop.holds()] == ["posted"]


# --- limits and isolation ---


def test_a_keys_limit_holds_against_many_at_once(shop: Shop, port: int) -> None:
    """No answer ends before its program leaves, so what each may cost is still frozen when the last one asks."""
    Tenant.objects.filter(pk=shop.tenant.pk).update(on_disconnect="stop")
    shop.offer("plain", max_output_tokens=1000)
    shop.offer("stalls:3", max_output_tokens=1000, min_output_tokens=1000)
    key, secret = make_key(shop.alice)
    codes, streams = list[int](), list[Any]()
    with clients_at(shop, port) as make:
        program = make(secret)
        program.chat.completions.create(model="plain", messages=say("x"), max_tokens=1000)
        [first] = shop.holds()
        with scope.tenant(shop.tenant.pk):
            keys.change_key(ApiKey.objects.get(pk=key.pk), spend_limit=first.charge + 3 * first.amount)

        def ask() -> None:
            try:
                stream = program.chat.completions.create(
                    model="stalls-3", messages=say("x"), max_tokens=1000, stream=True
                )
            except openai.RateLimitError as refused:
                codes.append(int(refused.code or 0))
            else:
                next(stream)
                streams.append(stream)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for stream in streams:
            stream.close()
        wait_for(lambda: [hold.state for hold in shop.holds()] == ["posted"] * 4)
    assert (len(streams), codes) == (3, [102] * 5)
    assert [hold.amount for hold in shop.holds()] == [first.amount] * 4
    with scope.tenant(shop.tenant.pk):
        assert ApiKey.objects.get(pk=key.pk).spent == spent(shop) == sum(hold.charge for hold in shop.holds())


def test_a_limit_that_is_used_up_refuses_until_it_is_raised(shop: Shop, port: int) -> None:
    shop.offer("plain")
    key, secret = make_key(shop.alice, spend_limit=YUAN)
    with clients_at(shop, port) as make:
        program = make(secret)
        program.chat.completions.create(model="plain", messages=say("x"))
        with scope.tenant(shop.tenant.pk):
            key = ApiKey.objects.get(pk=key.pk)
            assert key.spent == spent(shop) > 0
            assert key.last_used_at is not None
            keys.change_key(key, spend_limit=key.spent)
        with pytest.raises(openai.RateLimitError) as refused:
            program.chat.completions.create(model="plain", messages=say("x"))
        body: Any = refused.value.body
        assert (body["reason"], body["used"], body["limit"]) == ("api_key_limit_reached", *[str(key.spent)] * 2)
        assert refused.value.response.headers["x-should-retry"] == "false"
        with scope.tenant(shop.tenant.pk):
            keys.change_key(key, spend_limit=None)
        program.chat.completions.create(model="plain", messages=say("x"))
    with scope.tenant(shop.tenant.pk):
        assert ApiKey.objects.get(pk=key.pk).spent == spent(shop)


def test_a_key_is_good_at_its_own_tenant_only_and_ends_at_once(shop: Shop, port: int, upstream_url: str) -> None:
    shop.offer("plain")
    theirs = open_shop(upstream_url)
    theirs.offer("plain")
    key, secret = make_key(shop.alice)
    bad_key = (401, "invalid_api_key", -1, "api_key_invalid")
    with clients_at(shop, port) as make:
        for program in (make(secret, host=theirs.host), make(make_key(theirs.alice)[1])):
            assert refusal(lambda p=program: p.models.list(), openai.AuthenticationError) == bad_key  # type: ignore[misc]
            assert (
                refusal(
                    lambda p=program: p.chat.completions.create(model="plain", messages=say("x")),  # type: ignore[misc]
                    openai.AuthenticationError,
                )
                == bad_key
            )
        assert refusal(make(secret, host="nobody.example.com").models.list, openai.NotFoundError) == (
            *(404, "invalid_request_error", 404, "tenant_not_found"),
        )
        program = make(secret)
        assert [model.id for model in program.models.list()] == ["plain"]
        with scope.tenant(shop.tenant.pk):
            assert keys.revoke_key(key)
            assert not keys.revoke_key(key)
        assert refusal(program.models.list, openai.AuthenticationError) == bad_key
    assert shop.holds() == theirs.holds() == []


def test_every_answer_says_how_many_calls_are_left_and_one_too_many_when_to_come_again(shop: Shop) -> None:
    shop.offer("plain")
    with web_server("uvicorn", API_CALLS_PER_MINUTE="2") as port, clients_at(shop, port) as make:
        program = make()
        raw = program.chat.completions.with_raw_response.create(model="plain", messages=say("x"))
        assert (raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
        assert raw.request_id == raw.headers["x-request-id"] != ""
        stream = program.chat.completions.with_raw_response.create(model="plain", messages=say("x"), stream=True)
        assert stream.headers["x-ratelimit-remaining-requests"] == "0"
        list(stream.parse())
        with pytest.raises(openai.RateLimitError) as refused:
            program.chat.completions.create(model="plain", messages=say("x"))
    told = refused.value.response.headers
    assert (refused.value.type, refused.value.code) == ("rate_limit_exceeded", "102")
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert 0 <= int(told["retry-after"]) <= 60
    assert told["x-ratelimit-reset-requests"] == f"{told['retry-after']}s"
    assert "x-should-retry" not in told
    assert len(shop.holds()) == 2


# --- what goes wrong upstream, and who leaves ---


def test_an_answer_that_breaks_off_is_given_as_far_as_it_was_charged(shop: Shop, port: int) -> None:
    shop.offer("reset:3")
    with clients_at(shop, port) as make:
        program = make(max_retries=2)
        whole = program.chat.completions.create(model="reset-3", messages=say("x"))
        stream = program.chat.completions.create(model="reset-3", messages=say("x"), stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIError) as broken:
            texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("1 2 3 ", "length")
    assert "".join(texts) == "1 2 3 "
    body: Any = broken.value.body
    assert (body["code"], body["reason"]) == (0, "answer_cut_short")
    assert [(hold.state, hold.reason) for hold in shop.holds()] == [("posted", "upstream_broken")] * 2


def test_an_answer_is_as_long_as_asked_for_whatever_the_model_does(shop: Shop, port: int) -> None:
    shop.offer("ignores-max-tokens")
    with clients_at(shop, port) as make:
        answer = make().chat.completions.create(model="ignores-max-tokens", messages=say("x"), max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    [hold] = shop.holds()
    assert hold.max_completion_tokens == 5
    assert hold.shortfall == 0


@pytest.mark.parametrize(("policy", "reason"), [("finish", "stop"), ("stop", "client_left")])
def test_a_program_that_leaves_is_charged_what_the_tenants_policy_says(
    upstream_url: str, port: int, policy: str, reason: str
) -> None:
    shop = open_shop(upstream_url)
    shop.tenant.on_disconnect = policy
    shop.tenant.save(update_fields=["on_disconnect"])
    shop.offer("pace:30:100")
    with clients_at(shop, port) as make:
        stream = make().chat.completions.create(model="pace-30-100", messages=say("x"), stream=True)
        next(stream)
        next(stream)
        stream.close()
        wait_for(lambda: [hold for hold in shop.holds() if hold.state == "posted"])
    [hold] = shop.holds()
    assert hold.reason == reason
    assert hold.posted_completion == 30 if policy == "finish" else 0 < hold.posted_completion < 30
    expect_right_books(shop)


# --- beside the libraries ---


def raw(port: int, shop: Shop, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Host": shop.host, "Accept-Language": "en", **more.pop("headers", {})}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        return client.request(method, path, headers=headers, **more)


def test_other_addresses_and_a_body_that_is_too_large_are_refused_in_openais_form(shop: Shop) -> None:
    secret = make_key(shop.alice)[1]
    bearer = {"Authorization": f"Bearer {secret}"}
    with web_server("uvicorn", API_BODY_BYTES="1000") as port:
        lost = [
            raw(port, shop, method, path, headers=bearer)
            for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/v1/"))
        ]
        large = raw(port, shop, "POST", "/v1/chat/completions", headers=bearer, content=b" " * 1001)
        # Without a key nothing of the body is read.
        unknown = raw(port, shop, "POST", "/v1/chat/completions", content=b" " * 1001)
    assert [(answer.status_code, answer.json()["error"]["reason"]) for answer in lost] == [(404, "no_such_path")] * 3
    assert (large.status_code, large.json()["error"]["param"]) == (400, "body")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (401, "invalid_api_key")
    assert large.json() == {
        "error": {
            "message": "The request is too large. Please shorten the message.",
            "type": "invalid_request_error",
            "param": "body",
            "code": 10001,
            "reason": "invalid_parameter",
            "action": "correct",
            "reset_at": None,
            "request_id": large.headers["x-request-id"],
        }
    }


def test_a_browser_is_allowed_the_libraries_headers(shop: Shop, port: int) -> None:
    asked = {"Access-Control-Request-Headers": "authorization,x-stainless-lang", "Origin": "https://page.example"}
    answer = raw(port, shop, "OPTIONS", "/v1/chat/completions", headers=asked)
    names = ("access-control-allow-origin", "access-control-allow-headers", "access-control-allow-methods")
    assert (answer.status_code, [answer.headers[name] for name in names]) == (
        204,
        ["*", "authorization,x-stainless-lang", "GET, POST, OPTIONS"],
    )


def test_a_stream_is_events_and_nothing_else(shop: Shop, port: int) -> None:
    shop.offer("plain")
    bearer = {"Authorization": f"Bearer {make_key(shop.alice)[1]}"}
    asked = {"model": "plain", "messages": say("x"), "stream": True, "stream_options": {"include_usage": True}}
    answer = raw(port, shop, "POST", "/v1/chat/completions", headers=bearer, json=asked)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, last, rest = answer.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {key for chunk in chunks for key in chunk} == {"id", "object", "created", "model", "choices", "usage"}
    assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "chatcmpl" not in answer.text

"""OpenAI's own Python library, unmodified, against the real server: the API is what it understands."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import openai
import pytest
from django.utils import timezone

from billing import audit
from chat import keys
from chat.models import ApiKey, Message
from tenants import scope
from tenants.models import EndUser
from tests.recordings import recording
from tests.servers import web_server
from tests.shop import RETAIL, YUAN, Person, Shop, entries_sum_to_zero, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

Client = Callable[..., openai.OpenAI]


def make_key(person: Person, **fields: Any) -> tuple[ApiKey, str]:
    with scope.tenant(person.user.tenant_id):
        return keys.make_key(user=person.user, name="test", **fields)


@pytest.fixture
def shop(upstream_url: str) -> Iterator[Shop]:
    """Whatever was asked for, the books are right at the end, and nothing stays frozen."""
    shop = open_shop(upstream_url)
    yield shop
    for _ in range(200):
        if all(hold.state != "held" for hold in shop.holds()):
            break
        time.sleep(0.05)
    assert [hold.state for hold in shop.holds() if hold.state == "held"] == []
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    assert entries_sum_to_zero(shop)


@pytest.fixture
def client(shop: Shop, chat_port: int) -> Iterator[Client]:
    """Make clients of the shop's; they do not ask again by themselves unless told to."""
    yield from clients_at(shop, chat_port)


def clients_at(shop: Shop, port: int) -> Iterator[Client]:
    made: list[openai.OpenAI] = []

    def make(secret: str = "", *, host: str = shop.host, **options: Any) -> openai.OpenAI:
        settings = {"max_retries": 0, "timeout": 30.0, **options}
        headers = {"Host": host, "Accept-Language": "en"}
        client = openai.OpenAI(
            api_key=secret or make_key(shop.alice)[1],
            base_url=f"http://127.0.0.1:{port}/v1",
            default_headers=headers,
            **settings,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def charge_of(usage: Any) -> int:
    cached = usage.prompt_tokens_details.cached_tokens or 0
    rated = (usage.prompt_tokens - cached) * RETAIL[0] + cached * RETAIL[1] + usage.completion_tokens * RETAIL[2]
    return -(-rated // 1_000_000)


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

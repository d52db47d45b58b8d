"""What a model thinks before it answers is kept for whoever asked, and goes nowhere else."""

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from billing.pricing import Quantities
from chat.models import Message
from chat.turn import (
    MAX_REASONING_CHARACTERS,
    Ask,
    Checkpoint,
    Outcome,
    Turn,
    checkpoint_turns,
    close_turn,
    dispatch_turn,
    open_turn,
)
from tenants import scope
from tests.clients.raw import ask
from tests.recordings import recording
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    shop = open_shop(upstream_url)
    shop.offer("reasoning", is_default=True)
    return shop


def thought_of(name: str) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in recording(name).chunks if chunk.get("choices")]
    return "".join(delta.get("reasoning_content") or "" for delta in deltas)


def begun(shop: Shop, conversation: str = "") -> Turn:
    with scope.tenant(shop.tenant.pk):
        question = Ask(message="hi", conversation=conversation)
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=question, language="en")
    assert dispatch_turn(turn)
    return turn


def outcome(reasoning: str, text: str = "yes") -> Outcome:
    return Outcome(text=text, reasoning=reasoning, had_output=True, hidden=reasoning, finish_reason="stop")


def api(shop: Shop, path: str) -> Any:
    headers = {"host": shop.host, "authorization": f"Bearer {shop.alice.token}"}
    return Client().get(path, headers=headers)


def test_it_is_in_the_history_the_files_and_the_archive(shop: Shop, chat_port: int) -> None:
    reply = ask(chat_port, shop.host, {"message": "9.11 or 9.8?"}, token=shop.alice.token)
    conversation = reply.headers["x-conversation-id"]
    thought = thought_of("reasoning")
    assert thought
    listed = api(shop, f"/api/chat/conversations/{conversation}/messages").json()["data"]
    assert [(row["reasoning"], row["answer"]) for row in listed] == [(thought, recording("reasoning").text)]
    one = api(shop, f"/api/chat/messages/{listed[0]['id']}").json()["data"]
    assert one["reasoning"] == thought
    file = api(shop, f"/api/chat/conversations/{conversation}/export?format=json")
    assert file.json()["conversations"][0]["messages"][0]["answer"]["reasoning"] == thought
    text = api(shop, f"/api/chat/conversations/{conversation}/export").content.decode()
    assert f"> {thought}" in text
    archive = api(shop, "/api/auth/account/archive").json()
    assert archive["conversations"][0]["messages"][0]["answer"]["reasoning"] == thought


def test_what_a_tool_is_called_with_is_none_of_it(shop: Shop, chat_port: int) -> None:
    shop.offer("tools", slug="tools")
    reply = ask(chat_port, shop.host, {"message": "the weather?", "model": "tools"}, token=shop.alice.token)
    assert b'"city' in reply.body
    [message] = shop.messages()
    assert (message.state, message.reasoning) == (Message.State.DONE, "")


def test_no_model_is_told_what_it_thought_before(shop: Shop) -> None:
    first = begun(shop)
    close_turn(first, outcome("the secret thought"))
    second = begun(shop, conversation=str(first.conversation_id))
    told = [message["content"] for message in second.request.messages]
    assert told[-3:] == ["hi", "yes", "hi"]
    assert "secret" not in str(second.request)


def test_as_much_is_kept_as_people_read(shop: Shop) -> None:
    turn = begun(shop)
    close_turn(turn, outcome("x" * MAX_REASONING_CHARACTERS))
    [message] = shop.messages()
    assert len(message.reasoning) == MAX_REASONING_CHARACTERS


def test_a_process_that_dies_leaves_it(shop: Shop) -> None:
    turn = begun(shop)
    quantities = Quantities(prompt=9, completion=3)
    for reasoning, text in (("hm", ""), ("hmm", ""), ("hmm, and on", "yes")):
        so_far = Checkpoint(turn=turn, outcome=outcome(reasoning, text), quantities=quantities)
        assert checkpoint_turns([so_far]) == {}
    [message] = shop.messages()
    assert (message.reasoning, message.answer) == ("hmm, and on", "yes")


def test_nothing_is_kept_of_what_is_not_charged(shop: Shop) -> None:
    turn = begun(shop)
    close_turn(turn, replace(outcome("hm", ""), had_output=False))
    [message] = shop.messages()
    assert (message.state, message.reasoning) == (Message.State.FAILED, "")


def test_others_readers_see_none_of_it(shop: Shop) -> None:
    turn = begun(shop)
    close_turn(turn, outcome("the secret thought"))
    made = Client().post(
        f"/api/chat/conversations/{turn.conversation_id}/share",
        {},
        content_type="application/json",
        headers={"host": shop.host, "authorization": f"Bearer {shop.alice.token}"},
    )
    page = Client().get(made.json()["data"]["url"].split(shop.host)[1], headers={"host": shop.host})
    assert (page.status_code, "secret" in page.content.decode()) == (200, False)
    bob = shop.person()
    refused = Client().get(
        f"/api/chat/messages/{turn.message_id}", headers={"host": shop.host, "authorization": f"Bearer {bob.token}"}
    )
    assert (refused.status_code, "secret" in refused.content.decode()) == (404, False)

"""Following an answer that another process generates: as long as that may take, and no longer."""

import asyncio
from typing import Any

import pytest

from chat.generation import Answer
from chat.live import attach
from chat.models import Message
from chat.threads import in_thread
from chat.turn import Ask, open_turn
from tenants import scope
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


def begun_elsewhere(shop: Shop) -> Message:
    """A message that runs, in no pump of this process."""
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="x"), language="en")
        return Message.objects.get(pk=turn.message_id)


def end(message: Message) -> None:
    with scope.tenant(message.tenant_id):
        Message.objects.filter(pk=message.pk).update(state=Message.State.DONE, answer="late", finish_reason="stop")


async def ended(answer: Answer) -> None:
    while answer.ending is None:
        await answer.grown(len(answer.chunks), within=10)


def ended_well(answer: Answer) -> bool:
    return answer.ending is not None and answer.ending.failure is None


def open_chat() -> Message:
    shop = open_shop("http://127.0.0.1:1/v1")
    shop.offer("m")
    return begun_elsewhere(shop)


async def test_an_answer_longer_than_a_lease_is_followed_to_its_end(settings: Any) -> None:
    message = await in_thread(open_chat)
    settings.HOLD_SECONDS, settings.UPSTREAM_TOTAL_TIMEOUT = 1, 20.0
    answer = attach(message)
    await asyncio.sleep(1.6)
    assert not ended_well(answer)
    await in_thread(lambda: end(message))
    await ended(answer)
    assert ("".join(answer.texts), ended_well(answer)) == ("late", True)


async def test_what_has_outlived_every_answer_is_given_up(settings: Any) -> None:
    message = await in_thread(open_chat)
    settings.HOLD_SECONDS, settings.UPSTREAM_TOTAL_TIMEOUT = 1, 0.5
    answer = attach(message)
    await ended(answer)
    assert answer.ending is not None
    assert answer.ending.failure is not None
    assert answer.ending.failure.type == "turn_not_saved"

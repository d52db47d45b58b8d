"""What is sent upstream for a question: the role's instructions, as much of the conversation as fits, the question."""

from collections.abc import Iterable
from typing import Any

from chat.models import Conversation, Message, ModelOffer
from chat.refusals import too_long
from chat.upstream import tokens

# Turns of a conversation that are looked at; the model's window usually ends it earlier.
MAX_TURNS = 50


def estimate_tokens(messages: Iterable[dict[str, Any]], offer: ModelOffer) -> int:
    """Return how many of the model's tokens `messages` take at most, counted offline and scaled to the model."""
    return -(-tokens.count_messages(list(messages)) * offer.token_ratio_percent // 100)


def build_context(
    conversation: Conversation, *, is_new: bool, question: str, offer: ModelOffer
) -> list[dict[str, Any]]:
    """Return what is sent upstream: instructions, as many of the latest turns as the window takes, the question.

    Half of the window at most is kept free for the answer, so that a small window still holds some history. Raises
    ProductError 10001 where the question alone leaves no room for the shortest answer.
    """
    role = conversation.role
    system = [{"role": "system", "content": role.instructions}] if role else []
    asked = [{"role": "user", "content": question}]
    room = offer.context_window - estimate_tokens(system + asked, offer)
    if room < offer.min_output_tokens:
        raise too_long()
    room -= min(offer.max_output_tokens, offer.context_window // 2)
    history: list[dict[str, Any]] = []
    for turn in [] if is_new else _latest_turns(conversation):
        pair = [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        room -= estimate_tokens(pair, offer)
        if room < 0:
            break
        history = pair + history
    return system + history + asked


def _latest_turns(conversation: Conversation) -> Iterable[Message]:
    """Return the answered turns, the latest first."""
    answered = Message.objects.filter(conversation=conversation, state__in=[Message.State.DONE, Message.State.CUT])
    return answered.exclude(answer="").only("tenant_id", "question", "answer").order_by("-created_at")[:MAX_TURNS]

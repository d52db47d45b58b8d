"""What is sent upstream for a question: instructions, as much of the conversation as fits, the question.

Instructions are the tenant's own (`ChatRules`), then the role's; how much of the conversation, the offer says, else the
tenant, else the model's window.
"""

from collections.abc import Iterable
from typing import Any

from chat.models import ChatRules, Conversation, Message, ModelOffer, Role
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
    rules = ChatRules.objects.first() or ChatRules()
    system = _instructions(rules, conversation.role)
    asked = [{"role": "user", "content": question}]
    room = offer.context_window - estimate_tokens(system + asked, offer)
    if room < offer.min_output_tokens:
        raise too_long()
    room -= min(offer.max_output_tokens, offer.context_window // 2)
    room = min(room, _first(offer.context_tokens, rules.context_tokens, room))
    turns = 0 if is_new else min(_first(offer.context_turns, rules.context_turns, MAX_TURNS), MAX_TURNS)
    history: list[dict[str, Any]] = []
    for turn in _latest_turns(conversation, turns) if turns else []:
        pair = [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        room -= estimate_tokens(pair, offer)
        if room < 0:
            break
        history = pair + history
    return system + history + asked


def _instructions(rules: ChatRules, role: Role | None) -> list[dict[str, Any]]:
    """Return one system message, since some models know but one, or none."""
    texts = [rules.instructions, role.instructions if role else ""]
    content = "\n\n".join(text for text in texts if text.strip())
    return [{"role": "system", "content": content}] if content else []


def _first(*limits: int | None) -> int:
    """Return the first limit that is set; the last one always is."""
    return next(limit for limit in limits if limit is not None)


def _latest_turns(conversation: Conversation, count: int) -> Iterable[Message]:
    """Return the answered turns, the latest first, at most `count`."""
    answered = Message.objects.filter(conversation=conversation, state__in=[Message.State.DONE, Message.State.CUT])
    return answered.exclude(answer="").only("tenant_id", "question", "answer").order_by("-created_at")[:count]

"""What is sent upstream for a question: instructions, as much of the conversation as fits, the question.

Texts that are attached to a question stand before it, each under its name; pictures stand beside it. Of earlier
questions those that have no room are named only.

Instructions are the tenant's own (`ChatRules`), then the role's; how much of the conversation, the offer says, else the
tenant, else the model's window.
"""

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from chat.attachments import Attached, picture_part
from chat.models import ChatRules, Message, ModelOffer, Role
from chat.refusals import no_images, too_long
from chat.upstream import tokens
from chat.upstream.base import ChatRequest
from tenants.table import Query

# Turns of a conversation that are looked at; the model's window usually ends it earlier.
MAX_TURNS = 50
# Pictures of a conversation that are sent along at most: a request with more of them is large, and slow to read.
MOST_PICTURES: Final = 8
# Before a question, for the model: what was attached to it, and what of that is left out.
_FILE: Final = '<file name="{name}">\n{text}\n</file>'
_NO_FILE: Final = "[The file “{name}” was attached here. It is left out.]"
_NO_PICTURE: Final = "[The picture “{name}” was attached here. It is left out.]"
# Of a question without words whose files are not even known any more; no model takes an empty one.
_NOTHING: Final = "[A file was attached here. It is left out.]"


class Said(NamedTuple):
    """A turn on a branch."""

    id: uuid.UUID
    question: str
    answer: str
    state: str
    attachments: Sequence[uuid.UUID] = ()

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer, and it has ended."""
        return self.state in (Message.State.DONE, Message.State.CUT) and self.answer != ""


def estimate_tokens(messages: Iterable[dict[str, Any]], offer: ModelOffer) -> int:
    """Return how many of the model's tokens `messages` take at most.

    Text is counted offline and scaled to the model; an image counts as the offer says.
    """
    told = list(messages)
    text = -(-tokens.count_messages(told) * offer.token_ratio_percent // 100)
    return text + tokens.count_images(told) * offer.image_tokens


def check_call(request: ChatRequest, offer: ModelOffer) -> int:
    """Return how many of the model's tokens a program's request takes at most: text as above, images as the offer says.

    Raises ProductError 10001 where it leaves no room for the shortest answer, or has images that the model cannot take.
    """
    images = tokens.count_images(request.messages)
    if images and not offer.image_tokens:
        raise no_images()
    text = tokens.count_messages(request.messages) + tokens.count_extra(request.extra)
    prompt = -(-text * offer.token_ratio_percent // 100) + images * offer.image_tokens
    if offer.context_window - prompt < min(offer.min_output_tokens, request.max_tokens):
        raise too_long()
    return prompt


def build_context(  # noqa: PLR0913  what a prompt is made of
    role: Role | None,
    *,
    branch: Sequence[Said],
    question: str,
    offer: ModelOffer,
    rules: ChatRules,
    files: Sequence[Attached] = (),
    earlier: Mapping[uuid.UUID, Attached] | None = None,
) -> list[dict[str, Any]]:
    """Return what is sent upstream: instructions, as many of the latest turns as the window takes, the question.

    `branch`: the turns before the question, the latest first. Half of the window at most is kept free for the answer,
    so that a small window still holds some history. `files` are attached to the question, all of them are sent;
    `earlier` are what turns of the branch have, the latest of which are sent as far as there is room.

    Raises ProductError 10001 where the question alone leaves no room for the shortest answer, or has images that the
    model cannot take.
    """
    system = _instructions(rules, role)
    pictures = {file.id for file in files if file.is_image}
    if pictures and not offer.image_tokens:
        raise no_images(scope="attachments")
    asked = [_asked(question, files, pictures=pictures)]
    room = offer.context_window - estimate_tokens(system + asked, offer)
    if room < offer.min_output_tokens:
        raise too_long()
    room -= min(offer.max_output_tokens, offer.context_window // 2)
    room = min(room, _first(offer.context_tokens, rules.context_tokens, room))
    turns = _first(offer.context_turns, rules.context_turns, MAX_TURNS)
    left = max(0, MOST_PICTURES - len(pictures)) if offer.image_tokens else 0
    history: list[dict[str, Any]] = []
    for turn in [turn for turn in branch if turn.is_answered][:turns]:
        for said in _forms(turn, earlier or {}, pictures=left):
            pair = [said, {"role": "assistant", "content": turn.answer}]
            cost = estimate_tokens(pair, offer)
            if cost <= room:
                break
        else:
            break
        room -= cost
        left -= tokens.count_images(pair)
        history = pair + history
    return system + history + asked


def _forms(turn: Said, known: Mapping[uuid.UUID, Attached], *, pictures: int) -> Iterator[dict[str, Any]]:
    """Yield an earlier question with all that was attached to it, then with less and less, the smallest form last."""
    files = [known[each] for each in turn.attachments if each in known]
    seen = {file.id for file in files if file.is_image}
    if len(seen) <= pictures:
        yield _asked(turn.question, files, pictures=seen)
    if seen:
        yield _asked(turn.question, files)
    if len(seen) < len(files):
        yield _asked(turn.question, files, is_read=False)


def _asked(
    question: str, files: Sequence[Attached], *, pictures: Collection[uuid.UUID] = (), is_read: bool = True
) -> dict[str, Any]:
    """Return a question as a message, with the texts of its files if they are to be read, and with these pictures."""
    told = [_told(file, is_read=is_read) for file in files if file.id not in pictures]
    text = "\n\n".join([*told, question] if question else told)
    if not pictures:
        return {"role": "user", "content": text or _NOTHING}
    shown = [picture_part(file) for file in files if file.id in pictures]
    # Some providers refuse a part without text.
    return {"role": "user", "content": [{"type": "text", "text": text}, *shown] if text else shown}


def _told(file: Attached, *, is_read: bool) -> str:
    if file.is_image:
        return _NO_PICTURE.format(name=file.name)
    return (_FILE if is_read else _NO_FILE).format(name=file.name, text=file.text)


def _instructions(rules: ChatRules, role: Role | None) -> list[dict[str, Any]]:
    """Return one system message, since some models know but one, or none."""
    texts = [rules.instructions, role.instructions if role else ""]
    content = "\n\n".join(text for text in texts if text.strip())
    return [{"role": "system", "content": content}] if content else []


def _first(*limits: int | None) -> int:
    """Return the first limit that is set; the last one always is."""
    return next(limit for limit in limits if limit is not None)


# A conversation's rows are a tree; this walks from a leaf to the root. The scope's part of it is the tenant's id.
_BRANCH = """
    WITH RECURSIVE branch AS (
        SELECT id, parent_id, question, answer, state, attachments, 1 AS depth FROM (
            SELECT id, parent_id, question, answer, state, attachments FROM chat_message
            WHERE tenant_id = %(tenant)s AND conversation_id = %(conversation)s
              AND (%(last)s::uuid IS NULL OR id = %(last)s)
            ORDER BY created_at DESC, id DESC LIMIT 1
        ) AS leaf
        UNION ALL
        SELECT before.id, before.parent_id, before.question, before.answer, before.state, before.attachments,
            branch.depth + 1
        FROM chat_message AS before JOIN branch ON before.id = branch.parent_id
        WHERE before.tenant_id = %(tenant)s AND branch.depth < %(most)s
    )
    SELECT id, question, answer, state, attachments FROM branch ORDER BY depth
"""


def branch_query(last: uuid.UUID | None, *, tenant_id: int, conversation_id: uuid.UUID | None) -> Query[list[Said]]:
    """Return the query of the turns that lead to the message `last` of a conversation, or to its latest one.

    The latest first.
    """
    values = {"tenant": tenant_id, "conversation": conversation_id, "last": last, "most": MAX_TURNS}
    return Query(_BRANCH, values, lambda rows: [Said(*row) for row in rows])

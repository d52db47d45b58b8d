"""The choice among targets: the first that gives output answers; the others stand in while none has given any.

Who is asked first: of the healthy accounts (`chat.upstream.health`) those of the smallest priority, by lot in
proportion to their weights. Which failures send a request to the next account is in `chat.upstream.failures.RULES`.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from chat.events import Delta, Event, Failed, FailureKind
from chat.upstream.anthropic import AnthropicUpstream
from chat.upstream.base import ChatRequest, Rest, Upstream, UpstreamTarget, no_rest
from chat.upstream.failures import RULES
from chat.upstream.health import Board, Call
from chat.upstream.openai import AzureUpstream, OpenAIUpstream
from chat.upstream.sharing import Sharing

logger = structlog.get_logger(__name__)

DIALECTS: Final[Mapping[str, Callable[[UpstreamTarget], Upstream]]] = {
    "openai": OpenAIUpstream,
    "azure": AzureUpstream,
    "anthropic": AnthropicUpstream,
}

BOARD: Final = Board()
_shared: list[Sharing] = []


def share(redis_url: str, *, realm: str) -> None:
    """Have this process's board shared with the other processes of its `realm`. Called once, at start-up."""
    _shared[:] = [Sharing(BOARD, redis_url, realm=realm)]


def keep_sharing() -> None:
    """Share it from the running loop. The first request does so too; this has it known before."""
    for sharing in _shared:
        sharing.keep()


async def stop_sharing() -> None:
    """Tell other processes that this one is gone."""
    for sharing in _shared:
        await sharing.close()


async def stream_first_good(
    targets: Sequence[UpstreamTarget], request: ChatRequest, *, rest: Rest = no_rest, board: Board = BOARD
) -> AsyncGenerator[list[Event], None]:
    """Yield the batches of the first target that gives output (see `Upstream`).

    Nothing of an answer is yielded before its first output, so a reader never sees the openings of two answers. A
    failure before it sends the request to the next account, none twice, if another account can cure it; a failure
    after it is passed on, as the reader has seen a part. If no target gives output, the only event is a `Failed`: the
    last account's, or BUSY where none was asked.
    """
    if board is BOARD:
        keep_sharing()
    failure = Failed(FailureKind.REQUEST, "there is no upstream to ask")
    was_asked = False
    began = asyncio.get_running_loop().time()
    for target in in_order(targets):
        call = await board.admit(target)
        if isinstance(call, str):
            logger.info("upstream_passed_over", target=target.name, reason=call)
            failure = failure if was_asked else Failed(FailureKind.BUSY, f"{target.name}: {call}")
            continue
        was_asked = True
        opening: list[Event] = []
        is_chosen = False
        upstream = DIALECTS[target.dialect](_within_the_whole(target, began))
        with call:
            async with aclosing(upstream.stream(request, rest)) as batches:
                async for batch in batches:
                    if is_chosen:
                        if isinstance(batch[-1], Failed):
                            _note(target, batch, call)
                        yield batch
                        continue
                    opening += batch
                    if is_chosen := any(isinstance(event, Delta) and event.output for event in batch):
                        call.output()
                        _note(target, batch, call)
                        yield opening
            if is_chosen:
                return
            failure = _failure_of(opening)
            _note(target, [failure], call)
        if not RULES[failure.kind].fails_over:
            break
    yield [failure]


def in_order(targets: Sequence[UpstreamTarget]) -> list[UpstreamTarget]:
    """Return one target of each account, the smaller priorities first, by lot among those of one priority."""
    if len(targets) == 1:
        return list(targets)
    by_account: dict[str, UpstreamTarget] = {}
    for target in sorted(targets, key=lambda target: (target.priority, -_lot(target.weight))):
        by_account.setdefault(target.name, target)
    return list(by_account.values())


def _lot(weight: int) -> float:
    """Return a lot: each of several is the highest in proportion to its weight (Efraimidis and Spirakis, 2006)."""
    return float(random.random() ** (1 / max(weight, 1)))  # noqa: S311  no secret


def _within_the_whole(target: UpstreamTarget, began: float) -> UpstreamTarget:
    """Return the target with what earlier accounts have left of the time for the whole."""
    spent = asyncio.get_running_loop().time() - began
    if spent < 1:
        return target
    left = max(target.timeouts.total - spent, 1.0)
    return replace(target, timeouts=replace(target.timeouts, total=left))


def _note(target: UpstreamTarget, events: list[Event], call: Call) -> None:
    """Note and log a failure among the events: here, where it is known whose it is."""
    last = events[-1] if events else None
    if not isinstance(last, Failed):
        return
    call.fail(last)
    logger.warning("upstream_failed", target=target.name, kind=str(last.kind), status=last.status, detail=last.detail)


def _failure_of(events: list[Event]) -> Failed:
    last = events[-1] if events else None
    return last if isinstance(last, Failed) else Failed(FailureKind.PROTOCOL, "the stream ended without a last event")

"""The choice among targets: the first that gives output answers; the others stand in while none has given any."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from chat.events import Delta, Event, Failed, FailureKind
from chat.upstream.base import ChatRequest, UpstreamTarget
from chat.upstream.openai import OpenAIUpstream

logger = structlog.get_logger(__name__)


async def stream_first_good(
    targets: Sequence[UpstreamTarget], request: ChatRequest
) -> AsyncGenerator[list[Event], None]:
    """Yield the batches of the first target that gives output (see `Upstream`).

    Nothing of an answer is yielded before its first output, so a reader never sees the openings of two answers. A
    failure before it sends the request to the next target, none twice; a failure after it is passed on, as the reader
    has seen a part. If no target gives output, the only event is the last one's `Failed`.
    """
    failure = Failed(FailureKind.REQUEST, "there is no upstream to ask")
    for target in dict.fromkeys(targets):
        opening: list[Event] = []
        is_chosen = False
        async with aclosing(OpenAIUpstream(target).stream(request)) as batches:
            async for batch in batches:
                if is_chosen:
                    _log(target, batch)
                    yield batch
                    continue
                opening += batch
                if is_chosen := any(isinstance(event, Delta) and event.output for event in batch):
                    yield opening
        if is_chosen:
            return
        failure = _failure_of(opening)
        _log(target, [failure])
    yield [failure]


def _log(target: UpstreamTarget, events: list[Event]) -> None:
    """Log a failure among the events: here, where it is known whose it is."""
    for event in events:
        if isinstance(event, Failed):
            logger.warning(
                "upstream_failed", target=target.name, kind=str(event.kind), status=event.status, detail=event.detail
            )


def _failure_of(events: list[Event]) -> Failed:
    last = events[-1] if events else None
    return last if isinstance(last, Failed) else Failed(FailureKind.PROTOCOL, "the stream ended without a last event")

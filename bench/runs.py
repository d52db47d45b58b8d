"""What is measured: each function is one row's figure for one way through."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from bench.load import Crowd, Seen, Target, read_all
from bench.processes import cpu_seconds, memory

WARM_UP: Final = "paced:50:5"
# The open answers of `idle`: one delta, or two, and then a silence that is longer than the run.
SILENT: Final = "paced:3:600000"
# Makes so many questions for a model.
Ask = Callable[[str, int], Target]


@dataclass(frozen=True, slots=True)
class Streams:
    """What streams cost: microseconds of CPU for each delta, the share of late ones, and ages in seconds."""

    cpu: float
    steady: float
    late: float
    median: float
    p99: float
    broken: int
    deltas: int


async def warm(ask: Ask) -> None:
    """Have code, connections and caches where they are in the middle of a day."""
    for _ in range(2):
        await read_all(ask(WARM_UP, 20), at_once=10)


async def streams(process: psutil.Process, ask: Ask, *, model: str, count: int, over: float) -> Streams:
    """Read `count` streams to their ends, which begin within `over` seconds; whole chats, from the first byte on."""
    before = cpu_seconds(process)
    seen = Seen()
    reading = asyncio.ensure_future(read_all(ask(model, count), over=over, seen=seen))
    steady = await _steady(process, seen, after=over + 2, during=5)
    await reading
    spent = cpu_seconds(process) - before
    return Streams(
        steady=steady,
        cpu=spent / max(seen.deltas, 1) * 1e6,
        late=seen.late,
        median=seen.age(50),
        p99=seen.age(99),
        broken=len(seen.broken),
        deltas=seen.deltas,
    )


async def _steady(process: psutil.Process, seen: Seen, *, after: float, during: float) -> float:
    """Return the microseconds of CPU for each delta in `during` seconds after the first `after`: no ends."""
    await asyncio.sleep(after)
    cpu, deltas = cpu_seconds(process), seen.deltas
    await asyncio.sleep(during)
    return (cpu_seconds(process) - cpu) / max(seen.deltas - deltas, 1) * 1e6


async def short_chats(process: psutil.Process, ask: Ask, *, count: int, at_once: int) -> tuple[float, float]:
    """Return the CPU seconds of a chat of two deltas, and how many were served in a second."""
    target = ask("paced:2:0", count)
    before, began = cpu_seconds(process), asyncio.get_running_loop().time()
    seen = await read_all(target, at_once=at_once)
    took = asyncio.get_running_loop().time() - began
    _expect_whole(seen, count)
    return (cpu_seconds(process) - before) / count, count / took


async def first_token(ask: Ask, *, count: int) -> float:
    """Return the median seconds to the first delta, asked one after the other."""
    seen = await read_all(ask("paced:2:1", count), at_once=1)
    _expect_whole(seen, count)
    return seen.first_token


async def idle(process: psutil.Process, ask: Ask, *, count: int) -> float:
    """Return the bytes of memory of one open stream that says nothing."""
    crowd = Crowd()
    try:
        await crowd.join(ask(SILENT, count // 4))
        before = memory(process)
        await crowd.join(_rest(ask(SILENT, count + count // 4), count // 4))
        return (memory(process) - before) / count
    finally:
        crowd.leave()
        await asyncio.sleep(2)


def _rest(target: Target, first: int) -> Target:
    return Target(target.port, target.requests[first:])


def _expect_whole(seen: Seen, count: int) -> None:
    if seen.whole != count:
        message = f"{count - seen.whole} of {count} answers broke; one ended: {seen.broken[:1]}"
        raise RuntimeError(message)

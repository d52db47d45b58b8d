"""Measures Banyan beside its peers in one run, prints the tables, and writes them to docs/performance.md.

`make bench` takes about a quarter of an hour on a quiet machine with two cores; the first time it installs the peers.
`make bench ARGS="--only banyan,nginx --no-write"` looks at some of them.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from bench import peers, report, runs
from bench.processes import ALL_CORES, LOAD_CORE, SERVER_CORE, process
from bench.product import ROOT, Product, running_product
from saas.local.ports import free_port

STREAMS, OVER = 200, 4.0
# 200 streams, 20 deltas a second each, for half a minute.
PACED: Final = "paced:600:50"
# The same with 50 a second: what the mini-program's framing joins.
FAST: Final = "paced:1000:20"
# 1,000 streams, 10 deltas a second each.
WIDE: Final = "paced:150:100"
MODELS: Final = (PACED, FAST, WIDE, runs.WARM_UP, "paced:2:0", "paced:2:1", runs.SILENT)
SCALES: Final = (50, 200, 500, 1000)
SHORT_CHATS, FIRST_TOKENS, IDLE = 300, 60, 400
# nginx is what the others are held against; at the faster pace the gateways would only be further behind.
PEERS: Final = ("nginx", "portkey", "litellm")
_START: Final[dict[str, Callable[..., AbstractContextManager[peers.Peer]]]] = {
    "nginx": peers.nginx,
    "portkey": peers.portkey,
    "litellm": peers.litellm,
}
NAMES: Final = {"nginx": "nginx proxy_pass", "portkey": "Portkey gateway", "litellm": "LiteLLM proxy"}
TENANTS, CUSTOMERS = 8, 160
WEB_PROCESSES: Final = (1, 2, 4)
CAPACITY_CHATS, CAPACITY_AT_ONCE = 300, 32


class Bench:
    """One run: the upstream, and the figures so far."""

    def __init__(self, only: set[str]) -> None:
        self._only = only
        self._stack = ExitStack()
        self._upstream = free_port()
        self.streams: dict[str, dict[str, runs.Streams]] = {PACED: {}, FAST: {}}
        self.short: dict[str, float] = {}
        self.first: dict[str, float] = {}
        self.scales: dict[int, runs.Streams] = {}
        self.idle = 0.0
        self.capacity: dict[tuple[int, str], float] = {}

    def run(self) -> None:
        """Measure everything that was asked for."""
        with self._stack as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="banyan-bench-")))
            folder.chmod(0o755)
            command = [sys.executable, "-m", "bench.upstream", "--port", str(self._upstream)]
            stack.enter_context(
                process(command, port=self._upstream, cores=LOAD_CORE, log=folder / "upstream.log", folder=ROOT)
            )
            os.sched_setaffinity(0, LOAD_CORE)
            self.first["the upstream itself"] = uvloop.run(
                runs.first_token(lambda model, count: peers.direct(self._upstream, model, count), count=FIRST_TOKENS)
            )
            self._look_at_peer("nginx", folder)
            if "banyan" in self._only:
                self._look_at_banyan()
            for name in ("portkey", "litellm"):
                self._look_at_peer(name, folder)

    def _look_at_peer(self, name: str, folder: Path) -> None:
        if name not in self._only:
            return
        try:
            with _START[name](folder, self._upstream, MODELS) as peer:
                paces = (PACED, FAST) if name == "nginx" else (PACED,)
                self._look(NAMES[name], peer.process, peer.ask, paces=paces)
        except (RuntimeError, TimeoutError, OSError) as fault:
            # One gateway that does not run is no reason to lose what the others did; it stands in no table.
            say(f"{NAMES[name]} was not measured: {fault}")
            figures: tuple[dict[str, Any], ...] = (*self.streams.values(), self.first, self.short)
            for found in figures:
                found.pop(NAMES[name], None)

    def _look(
        self, name: str, measured: psutil.Process, ask: runs.Ask, *, paces: Sequence[str] = (PACED, FAST)
    ) -> None:
        async def look() -> None:
            await runs.warm(ask)
            for model in paces:
                found = self.streams[model]
                found[name] = await runs.streams(measured, ask, model=model, count=STREAMS, over=OVER)
                say(f"{name}: {model} {found[name]}")
            self.first[name] = await runs.first_token(ask, count=FIRST_TOKENS)
            self.short[name], _ = await runs.short_chats(measured, ask, count=SHORT_CHATS, at_once=4)
            say(f"{name}: first token {self.first[name] * 1e3:.1f} ms, short chat {self.short[name] * 1e3:.1f} ms")

        uvloop.run(look())

    def _look_at_banyan(self) -> None:
        product = self._stack.enter_context(
            running_product(MODELS, upstream_port=self._upstream, tenants=TENANTS, customers=CUSTOMERS)
        )
        # In a process of its own: one that has had many streams has room for more.
        with product.web(SERVER_CORE) as (port, web):
            ask = _asking(product, port)
            uvloop.run(runs.warm(ask))
            self.idle = uvloop.run(runs.idle(web, ask, count=IDLE))
            say(f"an idle stream: {self.idle / 1024:.0f} KB")
        with product.web(SERVER_CORE) as (port, web):
            for name, is_mini in (("Banyan, H5", False), ("Banyan, mini-program", True)):
                self._look(name, web, _asking(product, port, mini_program=is_mini))
            ask = _asking(product, port)

            for count in SCALES:
                # As many beginnings in a second at each scale.
                self.scales[count] = uvloop.run(runs.streams(web, ask, model=WIDE, count=count, over=count / 40))
                say(f"{count} streams: {self.scales[count]}")
        for processes in WEB_PROCESSES:
            self._look_at_capacity(product, processes)

    def _look_at_capacity(self, product: Product, processes: int) -> None:
        for whose, tenants in (("one tenant", 1), ("many tenants", None)):
            with product.web(ALL_CORES, processes=processes) as (port, web):
                ask = _asking(product, port, tenants=tenants)
                uvloop.run(runs.warm(ask))
                _, a_second = uvloop.run(runs.short_chats(web, ask, count=CAPACITY_CHATS, at_once=CAPACITY_AT_ONCE))
            self.capacity[processes, whose] = a_second
            say(f"{processes} web processes, {whose}: {a_second:.0f} chats a second")

    def tables(self) -> list[report.Table]:
        """Return what was measured."""
        return [
            *(self._streams(model, found) for model, found in self.streams.items()),
            self._chats(),
            *([self._scales(), self._capacity()] if self.scales else []),
        ]

    def _streams(self, model: str, found: dict[str, runs.Streams]) -> report.Table:
        _, deltas, pace = model.split(":")
        base = found.get(NAMES["nginx"])
        rows = [
            [
                name,
                f"{seen.cpu:.0f}",
                f"{seen.cpu / base.cpu:.1f}" if base else "",
                f"{seen.late:.1%}",
                f"{seen.median * 1e3:.0f}",
                f"{seen.p99 * 1e3:.0f}",
                str(seen.broken),
            ]
            for name, seen in found.items()
        ]
        return report.Table(
            f"{STREAMS} streams, {deltas} deltas each, one every {pace} ms",
            ["", "CPU ms for 1,000 deltas", "× nginx", "later than 100 ms", "median age, ms", "99 % age, ms", "broken"],
            rows,
        )

    def _chats(self) -> report.Table:
        direct = self.first["the upstream itself"]
        rows = [
            [name, f"{(first - direct) * 1e3:+.1f}", f"{self.short[name] * 1e3:.1f}" if name in self.short else ""]
            for name, first in self.first.items()
        ]
        return report.Table(
            "One chat of two deltas", ["", "first token later by, ms", "CPU ms of the whole chat"], rows
        )

    def _scales(self) -> report.Table:
        rows = [
            [str(count), f"{seen.cpu:.0f}", f"{seen.late:.2%}", f"{seen.p99 * 1e3:.0f}", str(seen.broken)]
            for count, seen in self.scales.items()
        ]
        rows.append(["idle", f"{self.idle / 1024:.0f} KB a stream", "", "", ""])
        return report.Table(
            "Streams of one web process, H5, a delta every 100 ms",
            ["streams", "CPU ms for 1,000 deltas", "later than 100 ms", "99 % age, ms", "broken"],
            rows,
        )

    def _capacity(self) -> report.Table:
        rows = [
            [str(processes), *(f"{self.capacity[processes, whose]:.0f}" for whose in ("one tenant", "many tenants"))]
            for processes in WEB_PROCESSES
        ]
        return report.Table(
            f"Chats of two deltas in a second, {CAPACITY_AT_ONCE} at once, everything on {len(ALL_CORES)} cores",
            ["web processes", "one hot tenant", f"{TENANTS} tenants"],
            rows,
        )


def _asking(product: Product, port: int, **options: Any) -> runs.Ask:
    """Return what makes questions to the product; its offers are named after the upstream's models."""
    return lambda model, count: product.ask(port, model.replace(":", "-"), count, **options)


def say(line: str) -> None:
    """Tell the person."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(("banyan", *PEERS)), help="whom to measure")
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    options = parser.parse_args()
    bench = Bench(set(options.only.split(",")))
    bench.run()
    tables = bench.tables()
    for table in tables:
        say(f"\n{table}")
    if not options.no_write:
        bars = [(name, seen.cpu) for name, seen in bench.streams[PACED].items()]
        python = sys.version.split()[0]
        intro = f"Python {python}, {os.cpu_count()} cores, LiteLLM {peers.LITELLM}, Portkey {peers.PORTKEY}."
        report.write(tables, bars, intro=intro)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")
    main()

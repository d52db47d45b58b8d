"""The bench's own parts: what it measures with must itself be right."""

from contextlib import AbstractContextManager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import peers, report, runs
from bench.load import Crowd, read_all
from saas.local.ports import free_port
from tests.servers import running


def upstream(port: int) -> AbstractContextManager[object]:
    return running(["-m", "bench.upstream", "--port", str(port)], port)


async def test_every_delta_arrives_once_and_every_answer_whole() -> None:
    port = free_port()
    with upstream(port):
        seen = await read_all(peers.direct(port, "paced:30:2", 20))
        at_once = await read_all(peers.direct(port, "paced:5:0", 3), at_once=1)
    assert (seen.deltas, seen.whole, seen.broken) == (600, 20, [])
    assert (at_once.deltas, at_once.whole, len(at_once.first)) == (15, 3, 3)
    assert min(seen.ages) >= 0


async def test_an_answer_that_is_no_stream_is_broken() -> None:
    port = free_port()
    with upstream(port):
        seen = await read_all(peers.direct(port, "unknown", 2))
    assert (seen.deltas, seen.whole, len(seen.broken)) == (0, 0, 2)


async def test_a_crowd_stays_until_it_leaves() -> None:
    port = free_port()
    crowd = Crowd()
    with upstream(port):
        await crowd.join(peers.direct(port, runs.SILENT, 5))
        crowd.leave()
    assert (len(crowd.seen.first), crowd.seen.whole) == (5, 0)


def test_figures_stand_between_the_marks_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "picture.svg"
    page.write_text(f"before\n{report._BEGIN}\nold\n{report._END}\nafter\n")  # noqa: SLF001
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "PICTURE", picture)
    table = report.Table("Heading", ["", "ms"], [["nginx", "1"], ["Banyan, H5", "2"]])
    report.write([table], [("nginx", 1.0), ("Banyan, H5", 2.0)], intro="here")
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert "| Banyan, H5 | 2 |" in written
    assert len(ET.fromstring(picture.read_text()).findall("{http://www.w3.org/2000/svg}rect")) == 3  # noqa: S314  ours


def test_the_page_in_the_repository_has_its_marks() -> None:
    assert report._BEGIN in report.PAGE.read_text()  # noqa: SLF001

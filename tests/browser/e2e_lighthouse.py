"""Lighthouse on the built page, as a phone has it. Performance measures this machine too: it is shown, not asserted.

`make e2e ARGS="-k lighthouse -s"` shows the figures.
"""

import pytest

from tests.browser.visit import Tools, Visits, open_door

PATHS = {"chat": "", "login": "#/pages/login/index", "about": "#/pages/about/index"}


@pytest.mark.parametrize("name", list(PATHS))
def test_lighthouse_is_content(visits: Visits, tools: Tools, upstream_url: str, name: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    report = tools.lighthouse(f"http://{shop.host}:{visits.port}/{PATHS[name]}")
    assert report.get("runtimeError") is None
    audits = report["audits"]
    shares = {name: round(found["score"] * 100) for name, found in report["categories"].items()}
    figures = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift")
    shown = ", ".join(f"{figure} {audits[figure]['displayValue']}" for figure in figures)
    print(f"\nLighthouse, {name}: {shares}; {shown}")  # noqa: T201  a measurement for whoever asked for it
    wrong = [
        f"{one['id']}: {audits[one['id']]['title']}"
        for category in ("accessibility", "best-practices")
        for one in report["categories"][category]["auditRefs"]
        if one["weight"] and audits[one["id"]]["score"] not in {1, None}
    ]
    assert min(shares["accessibility"], shares["best-practices"]) >= 90, wrong

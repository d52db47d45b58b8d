"""The fault suite in its short form: everything is broken once, and the table must hold."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.table import ROWS

ROOT = Path(__file__).resolve().parent.parent


def test_every_row_holds() -> None:
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--short"],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    lines = run.stdout.splitlines()
    assert [line for line in lines if "BROKEN" in line] == []
    assert (run.returncode, lines[-1]) == (0, f"{len(ROWS)} rows held, 0 broken"), run.stderr[-4000:]
    # The table at the end: a head, a line, and a row for each.
    assert len([line for line in lines if line.startswith("| ")]) == len(ROWS) + 2

"""Fixtures of the launcher's tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return an empty folder that the database's user may enter, which pytest's own folders forbid."""
    folder = Path(tempfile.mkdtemp(prefix="banyan-local-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)

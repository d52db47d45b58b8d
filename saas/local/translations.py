"""Compiles the message catalogues: `python -m saas.local.translations`. The .mo files are not in git."""

import os
from pathlib import Path
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALE: Final = Path(__file__).resolve().parent.parent.parent / "locale"


def compile_catalogues(folder: Path = LOCALE) -> int:
    """Compile each .po that is newer than its .mo; return how many were compiled."""
    stale = [po for po in sorted(folder.glob("*/LC_MESSAGES/*.po")) if _is_stale(po)]
    for po in stale:
        with po.open("rb") as source:
            catalogue = read_po(source)
        half = po.with_suffix(f".{os.getpid()}")  # several processes may start at once
        with half.open("wb") as target:
            write_mo(target, catalogue)
        half.replace(po.with_suffix(".mo"))
    return len(stale)


def _is_stale(po: Path) -> bool:
    mo = po.with_suffix(".mo")
    return not mo.exists() or mo.stat().st_mtime < po.stat().st_mtime


if __name__ == "__main__":
    compile_catalogues()

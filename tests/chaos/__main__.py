"""Runs the rows and prints the table; exit code 1 where a promise broke."""

import argparse
import sys
import time

from tests.chaos.rig import rig

SHORT, LONG = 1, 5


def main() -> int:
    """Run every row, the named ones, or each once only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows; all if none is given")
    parser.add_argument("--short", action="store_true", help="break everything once, not several times")
    options = parser.parse_args()
    with rig() as running:
        import django  # noqa: PLC0415  the rig has put the settings' variables into the environment

        django.setup()
        from tests.chaos.rows import ROWS  # noqa: PLC0415  needs the app registry

        chosen = [row for row in ROWS if not options.rows or row.__name__ in options.rows]
        broken = 0
        for row in chosen:
            began = time.monotonic()
            try:
                found = "ok    " + row(running, SHORT if options.short else LONG)
            except Exception as fault:  # noqa: BLE001  the table goes on, and says so
                broken += 1
                found = f"BROKEN {type(fault).__name__}: {fault}"
            promise = (row.__doc__ or "").strip()
            sys.stdout.write(f"{promise}\n    {found}  [{time.monotonic() - began:.0f} s]\n")
            sys.stdout.flush()
        sys.stdout.write(f"{len(chosen) - broken} rows held, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")
    sys.exit(main())

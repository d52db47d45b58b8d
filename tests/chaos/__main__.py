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
        from tests.chaos.table import ROWS  # noqa: PLC0415  needs the app registry

        chosen = [row for row in ROWS if not options.rows or row.__name__ in options.rows]
        broken, table = 0, list[tuple[str, str, str]]()
        for row in chosen:
            began = time.monotonic()
            try:
                found = row(running, SHORT if options.short else LONG)
            except Exception as fault:  # noqa: BLE001  the table goes on, and says so
                broken += 1
                found = f"BROKEN {type(fault).__name__}: {fault}"
            what, _, promise = (row.__doc__ or "").strip().rstrip(".").partition(": ")
            table.append((what, promise, found))
            sys.stdout.write(f"{row.__name__}: {found}  [{time.monotonic() - began:.0f} s]\n")
            sys.stdout.flush()
        _print(table)
        sys.stdout.write(f"{len(chosen) - broken} rows held, {broken} broken\n")
    return 1 if broken else 0


def _print(rows: list[tuple[str, str, str]]) -> None:
    """Print what happened, what is promised and what was measured as a table, readable as it is and as Markdown."""
    table = [("what happens", "what ours guarantees", "measured"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    for number, (what, promise, found) in enumerate(table):
        sys.stdout.write(f"| {what:{widths[0]}} | {promise:{widths[1]}} | {found} |\n")
        if number == 0:
            sys.stdout.write(f"| {'-' * widths[0]} | {'-' * widths[1]} | --- |\n")


if __name__ == "__main__":
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")
    sys.exit(main())

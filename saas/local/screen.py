"""The short screen that `manage.py up` ends with."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from saas.local.ports import HOST

QUESTION: Final = "Who are you?"


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What the demo data has to show. `token` is alice's, in the first of the tenants."""

    hosts: list[str]
    logins: list[list[str]]  # where, user name, password
    token: str
    new: bool = True


def final_screen(screen: Screen, *, port: int, logs: Path) -> Iterator[str]:
    """Yield the screen's lines."""
    yield ""
    yield "  Tenants    " + "    ".join(f"http://{host}:{port}/" for host in screen.hosts)
    yield "  Staff      " + "\n             ".join(
        f"http://{where.replace('/', f':{port}/', 1)}    {user}    {password}"
        for where, user, password in screen.logins
    )
    yield f"  Logs       {logs}"
    yield ""
    yield "  Ask as alice, as the H5 page does and as the mini-program does:"
    yield ""
    yield f"  {curl_line(screen, port=port)}"
    yield ""
    yield f"  {curl_line(screen, port=port, mini_program=True)}"
    yield ""
    yield "  Ctrl-C ends everything; the data stays."


def curl_line(screen: Screen, *, port: int, mini_program: bool = False) -> str:
    """Return a command that asks one question.

    The address is a number and the host a header, because not every curl and resolver knows *.localhost; a proxy
    named in the environment is passed by.
    """
    parts = [
        *("curl", "-sSN", "--noproxy", "*"),
        *("-H", f"Host: {screen.hosts[0]}", "-H", f"Authorization: Bearer {screen.token}"),
        *("--data-urlencode", f"message={QUESTION}"),
        *(("-d", "is_wxapp=1") if mini_program else ()),
        f"http://{HOST}:{port}/api/chat/stream",
    ]
    return shlex.join(parts)

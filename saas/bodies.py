"""Requests' bodies, which no proxy has bounded where there is none: what is too large is kept nowhere.

Django's handler puts a whole body into a file, however large it is, before it asks any code of ours. So the bound
stands before it: by the length that a request announces nothing of its body is read, and of one that announces none no
more than the bound. `tenants.middleware` then refuses it. The chat's own doors bound theirs by themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tenants.middleware import BODY_IS_CUT

# As in deploy/nginx.conf.template: a picture or a file to import of 8 MB, and the form around it.
MAX_BODY_BYTES: Final = 10 * 1024 * 1024

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Bounded:
    """An ASGI `receive` whose body ends where it becomes too large, which the scope then says."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._left = MAX_BODY_BYTES
        self._is_cut = False

    async def __call__(self) -> dict[str, Any]:
        """Return the next event."""
        if self._is_cut:
            # Once a body is over, Django waits for the client to leave, and no longer than its answer takes.
            await asyncio.Event().wait()
        if _announced(self._scope) > MAX_BODY_BYTES:
            return self._cut()
        event = await self._receive()
        self._left -= len(event.get("body", b""))
        return event if self._left >= 0 else self._cut()

    def _cut(self) -> dict[str, Any]:
        self._is_cut = self._scope[BODY_IS_CUT] = True
        return {"type": "http.request", "body": b"", "more_body": False}


def _announced(scope: Scope) -> int:
    """Return how long a request says that its body is; 0 where it does not."""
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(said) if said.isdigit() else 0

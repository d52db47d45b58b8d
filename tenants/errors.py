"""The error codes and the one exception that carries them: the bottom of everything.

    ProductError        anything a person is told; turned into bytes once, at the edge

Whoever raises one says what happened and what to do, in a translatable message; whoever answers a request turns it
into a frame, an SSE event, a JSON body or a WebSocket message with `body()`.
"""

from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from django.utils import timezone

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


class ErrorCode(IntEnum):
    """What a client reacts to. Existing clients know these numbers: none may change its meaning."""

    LOGIN = -1
    OTHER = 0
    RECHARGE = 101
    QUOTA = 102
    NOT_FOUND = 404
    UPSTREAM = 500
    INVALID = 10001
    MODERATED = 11000


HTTP_STATUS = {
    ErrorCode.LOGIN: 401,
    ErrorCode.OTHER: 500,
    ErrorCode.RECHARGE: 402,
    ErrorCode.QUOTA: 429,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.UPSTREAM: 502,
    ErrorCode.INVALID: 400,
    ErrorCode.MODERATED: 451,
}


class ProductError(Exception):
    """Something the person is told. Not a fault of ours unless the code is OTHER.

    `type`, `scope` and `action` are stable English words for programs; they never contain the words that
    widely copied mini-program clients search for in a chunk, `error` and `success`. `msg` is for the person: pass a
    lazy translation, it is rendered in the language active when `body()` is called. `facts` adds what a refusal
    must say beside it, such as `used` and `limit`.
    """

    def __init__(  # noqa: PLR0913  one argument for each field of the wire's object
        self,
        code: ErrorCode,
        msg: "str | _StrPromise",
        *,
        type: str,  # noqa: A002  the wire's name
        scope: str = "",
        action: str = "",
        reset_at: datetime | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(type)
        self.code = code
        self.msg = msg
        self.type = type
        self.scope = scope
        self.action = action
        self.reset_at = reset_at
        self.facts = facts

    @property
    def status(self) -> int:
        """The HTTP status of a JSON answer that carries this error."""
        return HTTP_STATUS[self.code]

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the wire's error object, its message in the active language."""
        return {
            "code": int(self.code),
            "msg": str(self.msg),
            "type": self.type,
            "scope": self.scope,
            "action": self.action,
            "reset_at": timezone.localtime(self.reset_at).isoformat() if self.reset_at else None,
            "request_id": request_id,
            **self.facts,
        }

"""Structured logs: one event a line, with the request's id, without tokens or secrets.

Everything, the libraries' own records too, passes through one chain whose last step before rendering hides
whatever looks like a credential. Loggers: `structlog.get_logger(__name__)` everywhere.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

HIDDEN = "[hidden]"
_SECRET_KEY = re.compile(r"token|secret|password|authorization|api_?key|cookie|credential", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<lead>(?:[?&]|\b)(?:token|secret|password|api_?key|js_code|access_token|authorization)[\"']?\s*[=:]\s*[\"']?)"
    r"(?P<value>(?:Bearer\s+)?[^\s&\"',;)}]+)"
    r"|(?P<bearer>\bBearer\s+)[^\s\"',;)}]+"
    # A redeem code's page, a shared conversation's, invitations, a confirmed address's, a new password's.
    r"|(?P<link>/(?:r|s|api/chat/shared|admin/join|portal/sign-up|portal/invitation/[^/]+|(?:admin|platform|portal)/reset/[^/]+)/)[^\s/?#\"']+"
    r"|\b(?:bny_|sk-)[A-Za-z0-9_\-]{8,}",
    re.IGNORECASE,
)


def hide_in_text(text: str) -> str:
    """Return `text` with the values of credentials in it replaced."""

    def replace(match: re.Match[str]) -> str:
        return f"{match['lead'] or match['bearer'] or match['link'] or ''}{HIDDEN}"

    return _SECRET_TEXT.sub(replace, text)


def _hide(key: str, value: object) -> object:
    if _SECRET_KEY.search(key) and not isinstance(value, int | float | None):
        return HIDDEN
    if isinstance(value, str):
        return hide_in_text(value)
    if isinstance(value, Mapping):
        return {k: _hide(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_hide("", item) for item in value]
    return value


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace credentials in an event, by key and by shape (a structlog processor)."""
    for key, value in event.items():
        event[key] = _hide(key, value)
    return event


# Tracebacks are rendered to text before hide_secrets sees them, so that a secret in an exception's message is hidden.
_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    hide_secrets,
]


def configure_structlog() -> None:
    """Send structlog's events through the standard library's handlers."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logging_config(*, level: str, json: bool) -> dict[str, Any]:
    """Return the standard library's logging configuration: all records to standard error, in one format."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False) if json else structlog.dev.ConsoleRenderer(colors=False)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # It prints each WebSocket's address, with the query string: only through the chain that hides tokens.
            "uvicorn": {"handlers": ["stderr"], "propagate": False},
            # Libraries that would print a line, with the query string, for each request.
            **{
                name: {"level": "WARNING"}
                for name in ("uvicorn.access", "daphne.server", "httpx", "httpcore", "django.channels.server", "stripe")
            },
        },
    }

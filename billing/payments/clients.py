"""The process's HTTP clients for payment providers."""

from typing import Final

import httpx

TIMEOUT_SECONDS: Final = 5.0

_clients: Final[dict[str, httpx.Client]] = {}


def client_for(base_url: str) -> httpx.Client:
    """Return the process's client for an API host of the settings: making one costs 25 ms."""
    if base_url not in _clients:
        _clients.setdefault(base_url, httpx.Client(base_url=base_url, timeout=TIMEOUT_SECONDS))
    return _clients[base_url]


def close_client(base_url: str) -> None:
    """Close the client for an API host; who asks for it again gets a new one."""
    if base_url in _clients:
        _clients.pop(base_url).close()

"""The contract of an upstream: a request goes in, batches of events come out."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chat.events import Event


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds. Passing one ends the stream with `Failed(TIMEOUT)`."""

    connect: float = 5.0
    first_token: float = 60.0  # from the request to the first output
    idle: float = 60.0  # between two reads after it
    total: float = 600.0  # from the request to the end


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an account takes at once and in a minute; 0 is no limit."""

    concurrent: int = 0
    per_minute: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """One provider account and one model on it."""

    name: str  # ours, the account's: a request asks none twice; what is known of its health goes by it
    base_url: str  # up to and including the version: https://api.example.com/v1
    model: str  # the provider's name of the model
    api_key: str = field(default="", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    dialect: str = "openai"  # a key of chat.upstream.pool.DIALECTS
    api_version: str = ""  # Azure's and Anthropic's
    rules: Mapping[str, Any] = field(default_factory=dict)  # chat.upstream.parameters
    limits: Limits = field(default_factory=Limits)
    priority: int = 0  # smaller ones are asked first
    weight: int = 100  # of those of one priority, how often one is asked first
    # Where its address may lead: None is anywhere, else public addresses and these networks or hosts.
    may_reach: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to ask. `messages` are OpenAI's: `{"role": …, "content": …}`; `extra` is merged into the body as it is."""

    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    max_tokens: int
    extra: Mapping[str, Any] = field(default_factory=dict)


# Seconds for which the network may be left unread now, so that what comes meanwhile is read at once.
Rest = Callable[[], float]


def no_rest() -> float:
    """Have everything read as it comes."""
    return 0.0


class Upstream(Protocol):
    """Something that answers a chat request with a stream."""

    def stream(self, request: ChatRequest, rest: Rest = no_rest) -> AsyncGenerator[list[Event], None]:
        """Yield a batch for every read of the network, never an empty one: readers wake once and take all.

        After each batch `rest` is asked how long the network may be left alone. The kernel joins what arrives
        in that time for less than it costs to read it piece by piece.

        The last event of the last batch is `Done` or `Failed`, and neither occurs before. A fault of the upstream is
        never raised; only cancellation is. Closing the generator early (`aclose`) closes the connection, so that
        the provider stops generating.
        """
        ...

"""Programs that come by an API key: OpenAI's own Python library, pointed at a shop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai

from billing import audit
from chat import keys
from chat.models import ApiKey
from tenants import scope
from tests.shop import Person, Shop, entries_sum_to_zero

PATIENCE = 30.0  # seconds


def make_key(person: Person, **fields: Any) -> tuple[ApiKey, str]:
    """Return a new key of a person's, and its secret."""
    with scope.tenant(person.user.tenant_id):
        return keys.make_key(user=person.user, name="test", **fields)


def say(text: str) -> list[Any]:
    """Return the shortest conversation."""
    return [{"role": "user", "content": text}]


@contextmanager
def clients_at(shop: Shop, port: int) -> Iterator[Callable[..., openai.OpenAI]]:
    """Yield a maker of clients of the shop's, by the key given or a new one of its first user's.

    They do not ask again by themselves unless told to.
    """
    made: list[openai.OpenAI] = []

    def make(secret: str = "", *, host: str = shop.host, **options: Any) -> openai.OpenAI:
        client = openai.OpenAI(
            api_key=secret or make_key(shop.alice)[1],
            base_url=f"http://127.0.0.1:{port}/v1",
            default_headers={"Host": host, "Accept-Language": "en"},
            **{"max_retries": 0, "timeout": PATIENCE, **options},
        )
        made.append(client)
        return client

    try:
        yield make
    finally:
        for client in made:
            client.close()


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what `condition` returns once that is something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    message = "what was waited for did not come"
    raise AssertionError(message)


def expect_right_books(shop: Shop) -> None:
    """Fail unless, once nothing is under way, the books are right and every key has spent what its answers cost."""
    wait_for(lambda: all(hold.state != "held" for hold in shop.holds()))
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    assert entries_sum_to_zero(shop)
    charges: dict[int, int] = {}
    for message in shop.messages():
        if message.api_key_id is not None and message.receipt is not None:
            charge = int(message.receipt["charge"])
            charges[message.api_key_id] = charges.get(message.api_key_id, 0) + charge
    with scope.tenant(shop.tenant.pk):
        spent = {key.pk: key.spent for key in ApiKey.objects.exclude(spent=0)}
    assert spent == {key: charge for key, charge in charges.items() if charge}

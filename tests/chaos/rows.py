"""The rows: each breaks something and returns figures for the table; an AssertionError is a promise that broke."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from billing.audit import audit_tenant
from billing.tasks import record_usage
from chat.models import Message
from tenants.models import Tenant
from tests.chaos.rig import Rig, wait_for
from tests.clients.raw import Chunk, RawConnection, ask, request_bytes
from tests.servers import forget_connections
from tests.shop import YUAN, Person, Shop, open_shop

Row = Callable[[Rig, int], str]


def audit() -> None:
    """Fail where any tenant's books are wrong."""
    breaches = [breach for tenant in Tenant.objects.all() for breach in audit_tenant(tenant_id=tenant.pk)]
    assert breaches == [], breaches


@contextmanager
def asking(rig: Rig, shop: Shop, model: str, person: Person | None = None) -> Iterator[Iterator[Chunk]]:
    """Ask and read the first frame; the block reads the rest, or leaves."""
    target, headers, body = request_bytes("POST", {"message": "x", "model": model, "is_wxapp": 1}, as_json=True)
    headers["Authorization"] = f"Bearer {(person or shop.alice).token}"
    with RawConnection(rig.web_port, shop.host) as connection:
        connection.send("POST", target, headers=headers, body=body)
        connection.read_head()
        chunks = connection.chunks()
        next(chunks)
        yield chunks


def settled(shop: Shop) -> None:
    """Wait until nothing of the shop is open, and its usage is recorded."""
    wait_for(lambda: all(m.state != Message.State.RUNNING for m in shop.messages()), "every message ended")
    wait_for(lambda: all(hold.state != "held" for hold in shop.holds()), "every hold ended")
    posted = sum(hold.state == "posted" for hold in shop.holds())
    wait_for(lambda: len(shop.usage()) == posted, "every posted hold has its usage record")
    assert shop.balance(shop.alice).pending == 0
    audit()


def spent(shop: Shop) -> int:
    """Return what alice has paid, and check that it is what her holds were charged."""
    paid = 20 * YUAN - shop.balance(shop.alice).cash
    assert paid == sum(hold.charge for hold in shop.holds())
    return paid


def parallel_starts(rig: Rig, scale: int) -> str:
    """50 parallel starts, money for one: exactly one admitted."""
    for _ in range(scale):
        shop = open_shop(rig.upstream_url, cash=0)
        shop.offer("pace:20:100", max_output_tokens=100, min_output_tokens=100)
        bob, codes = shop.person(cash=1_000), Counter[str]()

        def chat(shop: Shop = shop, bob: Person = bob, codes: Counter[str] = codes) -> None:
            body = ask(rig.web_port, shop.host, {"message": "x"}, token=bob.token).body
            codes["101" if b'"code":101' in body else "answered"] += 1

        threads = [threading.Thread(target=chat) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == {"answered": 1, "101": 49}, codes
        settled(shop)
    return f"{scale} × 50 starts: {scale} answered, {49 * scale} × 101"


def client_leaves(rig: Rig, scale: int) -> str:
    """The client leaves at byte k: the charge is what the upstream reported."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:30:5")
    places = [0, 1, 2, 3, 5, 8] * scale
    for frames in places:
        with asking(rig, shop, offer.slug) as rest:
            for _ in range(frames):
                next(rest, None)
    settled(shop)
    assert {hold.usage_source for hold in shop.holds()} == {"upstream"}
    assert {message.state for message in shop.messages()} == {"done"}
    assert len({message.answer for message in shop.messages()}) == 1
    return f"{len(places)} departures, {spent(shop)} micro-yuan, all as reported"


def killed(rig: Rig, name: str, shop: Shop, model: str, until: Callable[[], object]) -> None:
    """Kill a service in the middle of an answer and start it again."""
    with asking(rig, shop, model):
        wait_for(until, f"the moment to kill {name}")
        rig.kill(name)
    rig.start(name)


def web_killed(rig: Rig, scale: int) -> str:
    """kill -9 of the web at each step of a chat: freed, or charged at the checkpoint, within the lease."""
    shop = open_shop(rig.upstream_url)
    slow, silent = shop.offer("pace:400:20"), shop.offer("silent")
    for _ in range(scale):
        killed(rig, "web", shop, silent.slug, lambda: True)
        killed(rig, "web", shop, silent.slug, lambda: shop.holds()[-1].dispatched_at)
        killed(rig, "web", shop, slow.slug, lambda: shop.holds()[-1].dispatched_at)
        killed(rig, "web", shop, slow.slug, lambda: shop.holds()[-1].checkpoint_completion)
    settled(shop)
    ends = Counter(hold.state for hold in shop.holds())
    assert ends["posted"] >= scale
    charged, freed = ends["posted"], ends["voided"]
    return f"{4 * scale} kills: {charged} charged at the checkpoint, {freed} freed, {spent(shop)} micro-yuan"


def workers_killed(rig: Rig, scale: int) -> str:
    """kill -9 of worker and beat while usage is recorded: recorded later, once."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain")
    for _ in range(scale):
        for name in ("worker", "beat"):
            for number in range(4):
                ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
                if number == 1:
                    rig.kill(name)
            rig.start(name)
    settled(shop)
    return f"{2 * scale} kills, {len(shop.usage())} answers, each recorded once"


def database_away(rig: Rig, scale: int) -> str:
    """The database is killed before the end of an answer: tried again, spooled, settled."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:30:20")
    for _ in range(scale):
        with asking(rig, shop, offer.slug) as rest:
            next(rest)  # text: the upstream is at it
            rig.kill("postgres")
            for _chunk in rest:
                pass
        rig.start("postgres")
        forget_connections()
    settled(shop)
    ends = Counter(hold.state for hold in shop.holds())
    assert ends == {"posted": scale}, ends
    return f"{scale} crashes: {ends['posted']} settled after it came back, {spent(shop)} micro-yuan"


def connections_cut(rig: Rig, scale: int) -> str:
    """Every connection to the database is terminated in mid-answer: nothing is seen of it."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:30:20")
    for _ in range(scale):
        with asking(rig, shop, offer.slug) as rest:
            rig.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            forget_connections()
            assert b"".join(chunk.data for chunk in rest).endswith(b"0\r\n\r\n")
    settled(shop)
    assert {hold.usage_source for hold in shop.holds()} == {"upstream"}
    return f"{scale} cuts, {scale} whole answers, {spent(shop)} micro-yuan"


def broker_away(rig: Rig, scale: int) -> str:
    """The broker is killed, then emptied: money is unaffected, usage recorded later."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain")
    for _ in range(scale):
        rig.kill("valkey")
        for _ in range(3):
            body = ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token).body
            assert body.endswith(b"data: [DONE]\n\n")
        assert {hold.state for hold in shop.holds()} == {"posted"}
        rig.start("valkey")
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
        rig.flush_valkey()
    settled(shop)
    return f"{scale} × away and emptied, {len(shop.usage())} answers, all recorded"


def upstream_breaks(rig: Rig, scale: int) -> str:
    """The upstream breaks at every event: free before the first output, charged for what came after it."""
    shop = open_shop(rig.upstream_url)
    for place in range(4 * scale):
        offer = shop.offer(f"reset:{place}")
        ask(rig.web_port, shop.host, {"message": "x", "model": offer.slug}, token=shop.alice.token)
    settled(shop)
    ends = Counter(hold.state for hold in shop.holds())
    assert ends == {"voided": 1, "posted": 4 * scale - 1}, ends
    return (
        f"{4 * scale} breaks: {ends['voided']} free, {ends['posted']} charged for what came, {spent(shop)} micro-yuan"
    )


def delivered_thrice(rig: Rig, scale: int) -> str:
    """Each task is delivered three times: counted once."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain")
    for _ in range(3 * scale):
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
    for hold in shop.holds():
        for _ in range(3):
            record_usage.delay(str(hold.pk), shop.tenant.pk)
    settled(shop)
    assert len(shop.usage()) == 3 * scale
    return f"{9 * scale} deliveries, {len(shop.usage())} records"


def web_terminated(rig: Rig, scale: int) -> str:
    """SIGTERM under load: every answer that was begun is whole and settled."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:40:20")
    for _ in range(scale):
        for _ in range(5):
            with asking(rig, shop, offer.slug):
                pass
        rig.terminate("web")
        rig.start("web")
    settled(shop)
    assert {message.state for message in shop.messages()} == {"done"}
    return f"{scale} shutdowns, {5 * scale} answers finished first"


ROWS: tuple[Row, ...] = (
    parallel_starts,
    client_leaves,
    web_killed,
    web_terminated,
    database_away,
    connections_cut,
    broker_away,
    workers_killed,
    delivered_thrice,
    upstream_breaks,
)

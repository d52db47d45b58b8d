"""The rows: each breaks something and returns figures for the table; an AssertionError is a promise that broke."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
from django.db.models import F
from django.db.models.functions import Now

from billing.audit import audit_tenant
from billing.models import AuditRun, Hold, MerchantAccount, Order, QuotaUse, UsageAdjustment
from billing.recharge import notify_path
from billing.tasks import audit_ledger, expire_holds, poll_orders, record_usage, sweep_unrecorded
from billing.tests.payments.conftest import BONUS, CREDITS, open_account, open_package
from chat.models import Message
from chat.tasks import close_orphans
from tenants import scope
from tenants.models import Tenant
from tests.chaos.rig import Rig, wait_for
from tests.clients.raw import Chunk, RawConnection, ask, request_bytes
from tests.doubles.wechatpay import Merchant, rsa_key
from tests.factories import make_codes
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


def added(shop: Shop) -> list[int]:
    """Return what adjustments added to the charges of holds."""
    with scope.tenant(shop.tenant.pk):
        return list(UsageAdjustment.objects.values_list("charge", flat=True))


def end_leases(shop: Shop) -> None:
    """Let as much time pass as an open hold lives without a sign of life."""
    with scope.tenant(shop.tenant.pk):
        Hold.objects.filter(state="held").update(expires_at=Now() - timedelta(seconds=1))


def end_patience(shop: Shop) -> None:
    """Let as much time pass as the sweep leaves to a worker before it records what was posted."""
    with scope.tenant(shop.tenant.pk):
        posted = Hold.objects.filter(state="posted", recorded_at=None)
        posted.update(ended_at=F("ended_at") - timedelta(minutes=1))


def spent(shop: Shop) -> int:
    """Return what alice has paid, and check that it is what her holds were charged, and their adjustments."""
    paid = 20 * YUAN - shop.balance(shop.alice).cash
    assert paid == sum(hold.charge for hold in shop.holds()) + sum(added(shop))
    return paid


def parallel_starts(rig: Rig, scale: int) -> str:
    """50 parallel starts, money for one: exactly one admitted."""
    for _ in range(scale):
        shop = open_shop(rig.upstream_url)
        shop.offer("pace:20:100", max_output_tokens=100, min_output_tokens=100)
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
        # What one answer freezes: less is left once an answer has ended.
        bob, codes = shop.person(cash=shop.holds()[0].amount), Counter[str]()

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
    """kill -9 of worker, of beat, and of both while usage is recorded: recorded later, once."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain")
    for _ in range(scale):
        for names in (("worker",), ("beat",), ("worker", "beat")):
            for number in range(4):
                ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
                if number == 1:
                    for name in names:
                        rig.kill(name)
            rig.start(*names)
            end_patience(shop)
    settled(shop)
    return f"{4 * scale} kills, {len(shop.usage())} answers, each recorded once"


def database_away(rig: Rig, scale: int) -> str:
    """The database is killed before the end of an answer: tried again, spooled, settled."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:150:20")
    for _ in range(scale):
        with asking(rig, shop, offer.slug) as rest:
            wait_for(lambda: shop.holds()[-1].checkpoint_completion, "a checkpoint")
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
    """The broker is killed in mid-answer, then emptied: money is unaffected, usage recorded later."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain", is_default=True)
    paced = shop.offer("pace:30:20")
    for _ in range(scale):
        with asking(rig, shop, paced.slug) as rest:
            next(rest)
            rig.kill("valkey")
            assert b"".join(chunk.data for chunk in rest).endswith(b"0\r\n\r\n")
        for _ in range(3):
            body = ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token).body
            assert body.endswith(b"data: [DONE]\n\n")
        assert {hold.state for hold in shop.holds()} == {"posted"}
        rig.start("valkey")
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
        rig.flush_valkey()
        end_patience(shop)
    settled(shop)
    return f"{scale} × away and emptied, {len(shop.usage())} answers, all recorded"


# Where the upstream breaks: how the hold ends, and who counted.
BREAKS = {
    "before-headers": ("voided", ""),
    "after-headers": ("voided", ""),
    "after-first-delta": ("posted", "estimate"),
    "mid-delta": ("posted", "estimate"),
    "before-usage": ("posted", "estimate"),
    "after-usage": ("posted", "upstream"),
    "before-done": ("posted", "upstream"),
}


def upstream_breaks(rig: Rig, scale: int) -> str:
    """The upstream breaks at every event: free before the first output, charged for what came after it."""
    # Each round has an account of its own: one that breaks ten times within a minute is left alone (docs/upstreams.md).
    ends: list[tuple[str, str]] = []
    charge = 0
    for _ in range(scale):
        shop = open_shop(rig.upstream_url)
        for place in BREAKS:
            slug = shop.offer(f"breaks:{place}").slug
            ask(rig.web_port, shop.host, {"message": "x", "model": slug}, token=shop.alice.token)
        settled(shop)
        ends += [(hold.state, hold.usage_source) for hold in shop.holds()]
        charge += spent(shop)
    assert ends == list(BREAKS.values()) * scale, ends
    states = Counter(state for state, _source in ends)
    charged = f"{states['posted']} charged for what came, {charge} micro-yuan"
    return f"{len(ends)} breaks: {states['voided']} free, {charged}"


def delivered_thrice(rig: Rig, scale: int) -> str:
    """Each task is delivered three times: counted once."""
    shop = open_shop(rig.upstream_url)
    shop.offer("plain")
    for _ in range(3 * scale):
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
    runs = AuditRun.objects.exclude(ended_at=None)
    audits = runs.count()
    others = (sweep_unrecorded, expire_holds, poll_orders, close_orphans, audit_ledger)
    for _ in range(3):
        for hold in shop.holds():
            record_usage.delay(str(hold.pk), shop.tenant.pk)
        for task in others:
            task.delay()
    wait_for(lambda: runs.count() >= audits + 3, "every audit has run")
    settled(shop)
    assert len(shop.usage()) == 3 * scale
    assert sum(run.breaches for run in runs) == 0
    return f"{9 * scale + 3 * len(others)} deliveries of {1 + len(others)} tasks, {len(shop.usage())} records"


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


def killed_at_random(rig: Rig, scale: int) -> str:
    """kill -9 of the web at random moments, several clients at work: whole, charged at the checkpoint, or free."""
    shop = open_shop(rig.upstream_url)
    offers = [shop.offer("pace:60:20", free_per_day=2), shop.offer("count:50"), shop.offer("slow:300")]
    people, over = [shop.alice, shop.person(cash=5 * YUAN)], threading.Event()
    chance, asked = random.Random(scale), Counter[str]()

    def client(number: int) -> None:
        while not over.is_set():
            offer = offers[(number + asked.total()) % len(offers)]
            params = {"message": "x", "model": offer.slug, "is_wxapp": number % 2}
            try:
                body = ask(rig.web_port, shop.host, params, token=people[number % 2].token).body
            except ConnectionRefusedError:  # it is being started
                over.wait(0.2)
            except (OSError, ValueError):
                asked["cut"] += 1
            else:
                asked["whole" if body.endswith((b"0\r\n\r\n", b"[DONE]\n\n")) else "failed"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2 * scale):
            time.sleep(chance.uniform(0.3, 2.5))
            rig.kill("web")
            rig.start("web")
        time.sleep(1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    end_leases(shop)
    settled(shop)
    assert shop.balance(people[1]).pending == 0
    ends = Counter(hold.state for hold in shop.holds())
    at_checkpoint = sum(hold.reason == "interrupted" for hold in shop.holds())
    whole = ends["posted"] - at_checkpoint
    came = f"{whole} charged whole, {at_checkpoint} at the checkpoint, {ends['voided']} free"
    return f"{2 * scale} kills, {asked.total()} requests, {asked['cut']} of them cut: {came}"


def database_away_for_long(rig: Rig, scale: int) -> str:
    """The database is away for longer than a lease: charged at the checkpoint, then put right once from the spool."""
    shop = open_shop(rig.upstream_url)
    offer = shop.offer("pace:250:20")
    for _ in range(scale):
        with asking(rig, shop, offer.slug) as rest:
            wait_for(lambda: shop.holds()[-1].checkpoint_completion, "a checkpoint")
            rig.kill("postgres")
            for _chunk in rest:
                pass
        wait_for(lambda: list((rig.folder / "spool").glob("*.json")), "the turn is spooled")
        rig.terminate("web")  # so that the sweep comes first
        rig.start("postgres")
        forget_connections()
        end_leases(shop)
        wait_for(lambda: shop.holds()[-1].reason == "interrupted", "the sweep has charged it")
        rig.start("web")
        wait_for(lambda: not list((rig.folder / "spool").glob("*.json")), "the spool is empty")
    settled(shop)
    late = added(shop)
    assert len(late) == scale
    charged = spent(shop) - sum(late)
    assert {(m.state, len(m.answer.split()), (m.receipt or {})["reason"]) for m in shop.messages()} == {
        ("done", 250, "adjusted")
    }
    return f"{scale} × away: {charged} micro-yuan at checkpoints, {sum(late)} put right, {scale} whole answers"


def web_request(rig: Rig, shop: Shop, path: str, **request: Any) -> httpx.Response:
    """Send one request to the product's web as the outside does."""
    headers = {"host": shop.host, "token": shop.alice.token, **request.pop("headers", {})}
    return httpx.post(f"http://127.0.0.1:{rig.web_port}{path}", headers=headers, timeout=30, **request)


def selling(rig: Rig) -> tuple[Shop, MerchantAccount]:
    """Open a tenant that sells a package over WeChat Pay."""
    shop = open_shop(rig.upstream_url, cash=0)
    merchant = Merchant(merchant_id=str(1_900_000_000 + shop.tenant.pk), app_id="wx0123456789abcdef")
    rig.wechat.merchants[merchant.merchant_id] = merchant
    open_package(shop.tenant, slug="ten")
    return shop, open_account(shop.tenant, merchant)


def order_and_pay(rig: Rig, shop: Shop) -> str:
    """Order the package and pay it; return the order's number. Nobody has told the product."""
    body = {"package": "ten", "channel": "wechat", "method": "native"}
    said = web_request(rig, shop, "/api/billing/orders", json=body).json()
    number = str(said["data"]["order"]["id"]).replace("-", "")
    rig.wechat.pay(number)
    return number


def notify(rig: Rig, shop: Shop, account: MerchantAccount, number: str, **changes: Any) -> int:
    """Tell the product of a payment, in whatever way; return its answer's status."""
    body, headers = rig.wechat.notification(number, **changes)
    path = notify_path(tenant=shop.tenant, account=account)
    return web_request(rig, shop, path, content=body, headers=headers).status_code


def bought(shop: Shop, times: int) -> None:
    """Check that alice has what so many packages bring."""
    assert shop.balance(shop.alice) == (times * CREDITS, times * BONUS, 0), shop.balance(shop.alice)


def payments_told_wrongly(rig: Rig, scale: int) -> str:
    """A notification is repeated, forged, of another amount or merchant: credited once, 2xx only for what was taken."""
    shop, account = selling(rig)
    for _ in range(scale):
        number = order_and_pay(rig, shop)
        wrong = {"amount": {"total": 1, "currency": "CNY"}}
        refused = [
            notify(rig, shop, account, number, sign_with=rsa_key("somebody")),
            notify(rig, shop, account, number, age=301),
            notify(rig, shop, account, number, **wrong),
            notify(rig, shop, account, number, mchid="1000000000"),
        ]
        assert refused == [401, 401, 409, 409], refused
        assert [notify(rig, shop, account, number) for _ in range(3)] == [200] * 3
    bought(shop, scale)
    audit()
    return f"{scale} payments, {4 * scale} false notifications refused, {3 * scale} true ones taken, {scale} credited"


def payments_not_told(rig: Rig, scale: int) -> str:
    """Paid, and the notification never comes, or meets a killed web: found by asking, or taken when it comes again."""
    shop, account = selling(rig)
    for _ in range(scale):
        order_and_pay(rig, shop)
        with scope.tenant(shop.tenant.pk):
            Order.objects.filter(state="pending").update(next_poll_at=Now())
        poll_orders.delay()
        wait_for(lambda: not open_orders(shop), "the poll has found the payment")
        number = order_and_pay(rig, shop)
        rig.kill("web")
        try:
            notify(rig, shop, account, number)
        except httpx.TransportError:
            rig.start("web")
        assert notify(rig, shop, account, number) == 200
        poll_orders.delay()
    bought(shop, 2 * scale)
    audit()
    return f"{scale} lost and {scale} delayed notifications, {2 * scale} payments credited"


def open_orders(shop: Shop) -> int:
    """Return how many orders nobody knows to be paid."""
    with scope.tenant(shop.tenant.pk):
        return Order.objects.filter(state="pending").count()


def code_used_at_once(rig: Rig, scale: int) -> str:
    """A redeem code is used ten times at once: credited once."""
    shop = open_shop(rig.upstream_url, cash=0)
    for code in make_codes(shop.tenant, scale):
        person = shop.person()  # a new one: so many tries of one person are taken for guesses
        sending = {"json": {"code": code}, "headers": {"token": person.token}}
        with ThreadPoolExecutor(10) as threads:
            sent = [threads.submit(web_request, rig, shop, "/api/billing/redeem", **sending) for _ in range(10)]
        statuses = Counter(reply.result().status_code for reply in sent)
        assert statuses == {200: 1, 400: 9}, statuses
        assert shop.balance(person).cash == 10 * YUAN
    audit()
    return f"{scale} codes, {10 * scale} uses, {scale} credited"


def midnight_in_mid_stream(rig: Rig, scale: int) -> str:
    """Midnight comes in mid-stream: what was free yesterday is yesterday's, and today begins with all of today's."""
    shop = open_shop(rig.upstream_url)
    offer, silent = (shop.offer(name, free_per_day=1) for name in ("pace:40:20", "silent"))
    for _ in range(scale):
        with asking(rig, shop, offer.slug) as rest:
            next(rest)
            pass_midnight(shop)
            for _chunk in rest:
                pass
        # Today's free answer breaks off at the next midnight: it is given back to its own day.
        killed(rig, "web", shop, silent.slug, lambda: shop.holds()[-1].dispatched_at)
        pass_midnight(shop)
        end_leases(shop)
        wait_for(lambda: shop.holds()[-1].state == "voided", "the sweep has freed it")
        for _ in range(2):  # today's free one, and one that is paid for
            with asking(rig, shop, offer.slug) as rest:
                for _chunk in rest:
                    pass
        pass_midnight(shop)
    settled(shop)
    assert [hold.free for hold in shop.holds()] == [True, True, True, False] * scale
    with scope.tenant(shop.tenant.pk):
        days = list(QuotaUse.objects.order_by("date").values_list("used", flat=True))
    assert days == [1, 0, 1] * scale, days
    return f"{3 * scale} midnights, {2 * scale} answers free on their day, {scale} given back, {spent(shop)} micro-yuan"


def pass_midnight(shop: Shop) -> None:
    """Make of the tenant's today its yesterday."""
    yesterday = timedelta(days=1)
    with scope.tenant(shop.tenant.pk):
        for row in QuotaUse.objects.order_by("date"):
            QuotaUse.objects.filter(pk=row.pk).update(date=row.date - yesterday)
        Hold.objects.update(quota_date=F("quota_date") - yesterday)


ROWS: tuple[Row, ...] = (
    parallel_starts,
    client_leaves,
    upstream_breaks,
    web_killed,
    killed_at_random,
    web_terminated,
    database_away,
    database_away_for_long,
    connections_cut,
    broker_away,
    workers_killed,
    delivered_thrice,
    payments_told_wrongly,
    payments_not_told,
    code_used_at_once,
    midnight_in_mid_stream,
)

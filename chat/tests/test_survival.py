"""What is left of an answer, and of the money for it, when something dies in the middle."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg.sql import SQL, Identifier, Literal

from billing import holds
from billing.audit import audit_tenant
from billing.models import Hold, UsageAdjustment
from billing.pricing import Quantities
from billing.tasks import record_usage
from chat import spool
from chat.models import Message
from chat.moderation.models import ModerationWord
from chat.tasks import close_orphans
from chat.turn import Ask, Outcome, Turn, dispatch_turn, open_turn
from tenants import scope
from tenants.models import Tenant
from tests.clients.raw import Chunk, RawConnection, request_bytes
from tests.servers import database_url_of_this_test, forget_connections, web_process
from tests.shop import RETAIL, YUAN, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail("what was waited for did not come")


@contextmanager
def begin(port: int, shop: Shop, model: str, **more: str) -> Iterator[Iterator[Chunk]]:
    """Ask, read the head and the first chunk, and give the rest of the body; leave at the end of the block."""
    asking = {"message": "x", "model": model, "is_wxapp": 1, **more}
    target, headers, body = request_bytes("POST", asking, as_json=True)
    headers["Authorization"] = f"Bearer {shop.alice.token}"
    with RawConnection(port, shop.host) as reader:
        reader.send("POST", target, headers=headers, body=body)
        reader.read_head()
        chunks = reader.chunks()
        next(chunks)
        yield chunks


def leave_to_the_sweep(shop: Shop) -> None:
    """Let the leases of the shop's holds be over, and run what beat runs."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_hold SET expires_at = now() - interval '1 second' WHERE tenant_id = %s AND state = 'held'",
            [shop.tenant.pk],
        )
    holds.expire_holds()
    close_orphans()


def assert_books_are_right(shop: Shop) -> None:
    for hold in shop.holds():
        if hold.state == Hold.State.POSTED:
            record_usage(str(hold.pk), shop.tenant.pk)
    assert audit_tenant(tenant_id=shop.tenant.pk) == []
    assert shop.balance(shop.alice).pending == 0


def test_checkpoints_keep_text_and_count_while_the_answer_runs(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:200:50")
    with web_process("uvicorn", BANYAN_VAR=str(tmp_path)) as (port, process):
        with begin(port, shop, offer.slug):
            [message] = wait_for(lambda: [m for m in shop.messages() if m.answer])
            [hold] = shop.holds()
        assert message.state == Message.State.RUNNING
        assert message.answer.startswith("1 2 3 ")
        assert hold.state == Hold.State.HELD
        assert hold.heartbeat_at is not None
        assert 0 < hold.checkpoint_completion <= hold.max_completion_tokens
        assert hold.expires_at > hold.heartbeat_at
        process.kill()


def test_a_killed_server_leaves_what_was_kept_and_charges_no_more(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:200:50")
    with web_process("uvicorn", BANYAN_VAR=str(tmp_path)) as (port, process), begin(port, shop, offer.slug):
        wait_for(lambda: [m for m in shop.messages() if m.answer])
        process.kill()
        process.wait()
    [before] = shop.holds()
    assert before.state == Hold.State.HELD
    assert shop.balance(shop.alice).pending == before.amount
    leave_to_the_sweep(shop)
    [hold] = shop.holds()
    [message] = shop.messages()
    expected = -(-(hold.checkpoint_prompt * RETAIL[0] + hold.checkpoint_completion * RETAIL[2]) // 1_000_000)
    assert (hold.state, hold.reason, hold.usage_source, hold.charge) == ("posted", "interrupted", "estimate", expected)
    assert shop.balance(shop.alice).cash == 20 * YUAN - expected
    assert message.state == Message.State.CUT
    assert message.answer.startswith("1 2 3 ")
    assert message.receipt is not None
    assert (message.receipt["charge"], message.receipt["reason"]) == (str(expected), "interrupted")
    assert message.failure is not None
    assert message.failure["type"] == "answer_cut_short"
    assert_books_are_right(shop)


def test_a_server_killed_before_the_first_output_costs_nothing(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("silent", free_per_day=1)
    with web_process("uvicorn", BANYAN_VAR=str(tmp_path)) as (port, process), begin(port, shop, offer.slug):
        wait_for(lambda: [hold for hold in shop.holds() if hold.dispatched_at])
        process.kill()
        process.wait()
    leave_to_the_sweep(shop)
    [hold] = shop.holds()
    [message] = shop.messages()
    assert (hold.state, hold.reason, hold.charge) == ("voided", "expired", 0)
    assert (message.state, message.receipt) == (Message.State.FAILED, None)
    assert shop.balance(shop.alice).cash == 20 * YUAN
    assert_books_are_right(shop)


def test_a_sweep_leaves_what_is_alive_alone(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("stalls:3")
    web = web_process("uvicorn", BANYAN_VAR=str(tmp_path), HOLD_SECONDS="4")
    with web as (port, _process), begin(port, shop, offer.slug):
        [first] = wait_for(lambda: [hold for hold in shop.holds() if hold.heartbeat_at])
        # A silent upstream: only heartbeats keep this hold, longer than it would live without.
        wait_for(lambda: shop.holds()[0].expires_at > first.created_at + (first.expires_at - first.created_at) * 2)
        holds.expire_holds()
        close_orphans()
        assert [hold.state for hold in shop.holds()] == ["held"]
        assert [message.state for message in shop.messages()] == ["running"]


def with_policy(shop: Shop, policy: str) -> None:
    Tenant.objects.filter(pk=shop.tenant.pk).update(on_disconnect=policy)


def test_a_tenant_may_stop_what_nobody_reads(upstream_url: str, scripted_upstream: Any, chat_port: int) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:300:20")
    with_policy(shop, "stop")
    with begin(chat_port, shop, offer.slug) as rest:
        for _ in range(3):
            next(rest)
    [message] = wait_for(lambda: [m for m in shop.messages() if m.state != "running"])
    [hold] = shop.holds()
    assert (message.state, message.failure) == ("cut", None)
    assert message.answer.startswith("1 2 3 ")
    assert len(message.answer.split()) < 300
    assert message.receipt is not None
    assert (message.receipt["reason"], hold.reason) == ("client_left", "client_left")
    assert 0 < hold.charge < hold.amount
    seen = [request for request in scripted_upstream.requests() if request.body["model"] == "pace:300:20"]
    assert any(request.left for request in seen)
    assert_books_are_right(shop)


def test_a_stopped_answer_goes_on_for_another_reader(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:60:20")
    with_policy(shop, "stop")
    with ExitStack() as first, begin(chat_port, shop, offer.slug, client_msg_id="k") as other:
        first.enter_context(begin(chat_port, shop, offer.slug, client_msg_id="k"))
        # Both read, and one of them goes.
        first.close()
        whole = b"".join(chunk.data for chunk in other)
    assert whole.endswith(b"0\r\n\r\n")
    assert [m.state for m in shop.messages()] == ["done"]


def test_a_stop_before_the_first_output_is_free(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("silent")
    with_policy(shop, "stop")
    with begin(chat_port, shop, offer.slug):
        wait_for(lambda: [hold for hold in shop.holds() if hold.dispatched_at])
    [message] = wait_for(lambda: [m for m in shop.messages() if m.state != "running"])
    assert message.failure is not None
    assert (message.state, message.failure["type"]) == ("failed", "answer_stopped")
    assert [(hold.state, hold.reason) for hold in shop.holds()] == [("voided", "client_left")]
    assert_books_are_right(shop)


def test_a_terminated_server_drains(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:60:30")
    with web_process("uvicorn", BANYAN_VAR=str(tmp_path), DRAIN_SECONDS="20") as (port, process):
        with begin(port, shop, offer.slug):
            pass  # the reader leaves; the answer goes on
        process.terminate()
        assert process.wait(30) in (0, -15)
    assert [(message.state, len(message.answer.split())) for message in shop.messages()] == [("done", 60)]
    assert [hold.state for hold in shop.holds()] == ["posted"]
    assert_books_are_right(shop)


def test_what_is_not_drained_in_time_is_charged_as_far_as_it_came(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:400:50")
    with web_process("uvicorn", BANYAN_VAR=str(tmp_path), DRAIN_SECONDS="0.3") as (port, process):
        with begin(port, shop, offer.slug) as rest:
            for _ in range(4):
                next(rest)
        process.terminate()
        process.wait(30)
    leave_to_the_sweep(shop)
    assert [(hold.state, hold.reason) for hold in shop.holds()] == [("posted", "interrupted")]
    assert [message.state for message in shop.messages()] == ["cut"]
    assert shop.messages()[0].answer.startswith("1 2 3 ")
    assert_books_are_right(shop)


def allow_connections(*, allow: bool) -> None:
    """Shut the database to all but us, or open it again."""
    ours, name = connection.connection.info.backend_pid, connection.settings_dict["NAME"]
    elsewhere = re.sub(r"/[^/]*$", "/postgres", database_url_of_this_test())
    with psycopg.connect(elsewhere, autocommit=True) as admin:
        admin.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(Identifier(name), Literal(allow)))
        if not allow:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s", [name, ours]
            )


def test_a_database_that_is_away_at_the_end_loses_nothing(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:40:30")
    spooled = tmp_path / "spool"
    web = web_process("uvicorn", BANYAN_VAR=str(tmp_path), DATABASE_TIMEOUT="0.5", SWEEP_SECONDS="1")
    with web as (port, _process):
        with begin(port, shop, offer.slug) as rest:
            try:
                allow_connections(allow=False)
                told = b"".join(chunk.data for chunk in rest)
            finally:
                allow_connections(allow=True)
                forget_connections()  # ours were ended too
        [file] = list(spooled.glob("*.json"))
        assert file.stat().st_mode & 0o777 == 0o600
        assert b'"type":"turn_not_saved"' in told
        assert [hold.state for hold in shop.holds()] == ["held"]
        [message] = wait_for(lambda: [m for m in shop.messages() if m.state != "running"], 40)
        wait_for(lambda: not list(spooled.iterdir()))
    assert (message.state, len(message.answer.split())) == ("done", 40)
    [hold] = shop.holds()
    assert (hold.state, hold.usage_source) == ("posted", "upstream")
    assert_books_are_right(shop)


@contextmanager
def cut_at_dispatch(shop: Shop) -> Iterator[None]:
    """Let the database end the first connection that notes a dispatch of the shop's, in the middle of that."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE cut_once")  # counts what is rolled back, too
        cursor.execute(
            "CREATE FUNCTION cut_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('cut_once') = 1 THEN"
            " PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER cut_once BEFORE UPDATE OF dispatched_at ON billing_hold FOR EACH ROW"
            f" WHEN (NEW.tenant_id = {shop.tenant.pk}) EXECUTE FUNCTION cut_once()"
        )
        try:
            yield
            cursor.execute("SELECT last_value FROM cut_once")
            assert cursor.fetchone() == (2,)
        finally:
            cursor.execute("DROP TRIGGER cut_once ON billing_hold")
            cursor.execute("DROP FUNCTION cut_once")
            cursor.execute("DROP SEQUENCE cut_once")


def test_a_connection_that_is_cut_at_the_dispatch_is_not_seen(upstream_url: str, tmp_path: Path) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("pace:30:0")
    # Where nothing is moderated, the dispatch is noted by the admission.
    with scope.tenant(shop.tenant.pk):
        ModerationWord.objects.create(tenant=shop.tenant, word="forbidden")
    with (
        web_process("uvicorn", BANYAN_VAR=str(tmp_path)) as (port, _process),
        cut_at_dispatch(shop),
        begin(port, shop, offer.slug) as rest,
    ):
        assert b"".join(chunk.data for chunk in rest).endswith(b"0\r\n\r\n")
    assert [(hold.state, hold.usage_source) for hold in shop.holds()] == [("posted", "upstream")]
    assert_books_are_right(shop)


def spool_late(shop: Shop, **outcome: Any) -> Turn:
    """Leave a turn with a checkpoint of 7 tokens, its whole of 100 in the spool, and let the sweep charge it."""
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="x"), language="en")
    dispatch_turn(turn)
    usage = holds.Usage(prompt=5, cached=0, completion=100, source="upstream")
    whole = {"text": "the whole", "had_output": True, "finish_reason": "stop", "usage": usage, **outcome}
    if whole["had_output"]:
        seven = Quantities(prompt=5, completion=7)
        holds.checkpoint(tenant_id=turn.tenant_id, hold_id=turn.message_id, quantities=seven)
    spool.keep(turn, Outcome(**whole))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_hold SET expires_at = now() - interval '1 s' WHERE id = %s", [turn.message_id])
    holds.expire_holds()
    return turn


@pytest.mark.parametrize("reader_was_told", [True, False])
def test_a_spooled_turn_whose_hold_was_charged_at_its_checkpoint_is_put_right_once(
    upstream_url: str,
    tmp_path: Path,
    settings: Any,
    reader_was_told: bool,  # noqa: FBT001  a parameter
) -> None:
    settings.VAR_DIR = tmp_path
    shop = open_shop(upstream_url)
    shop.offer("plain")
    turn = spool_late(shop)
    if reader_was_told:
        close_orphans()
        assert [message.state for message in shop.messages()] == ["cut"]
    [file] = (tmp_path / "spool").iterdir()
    again = file.read_bytes()
    assert spool.settle() == 1
    [hold], [message] = shop.holds(), shop.messages()
    assert (hold.reason, hold.posted_completion) == ("interrupted", 7)
    assert (message.state, message.answer, message.failure) == ("done", "the whole", None)
    assert message.receipt is not None
    said = {name: message.receipt[name] for name in ("charge", "completion_tokens", "usage_source", "reason")}
    assert said == {"charge": "810", "completion_tokens": 100, "usage_source": "upstream", "reason": "adjusted"}
    assert shop.balance(shop.alice).cash == 20 * YUAN - 810
    file.write_bytes(again)
    assert spool.settle() == 1
    assert spool.settle() == 0
    assert shop.balance(shop.alice).cash == 20 * YUAN - 810
    with scope.tenant(shop.tenant.pk):
        assert list(UsageAdjustment.objects.values_list("hold_id", "charge")) == [(turn.message_id, 810 - hold.charge)]
    assert_books_are_right(shop)
    assert [(row.charge, row.completion_tokens) for row in shop.usage()] == [(810, 100)]


def test_a_spooled_turn_whose_hold_was_freed_stays_free(upstream_url: str, tmp_path: Path, settings: Any) -> None:
    settings.VAR_DIR = tmp_path
    shop = open_shop(upstream_url)
    shop.offer("plain")
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="x"), language="en")
    spool.keep(turn, Outcome(text="the whole", had_output=True, finish_reason="stop"))
    holds.void(tenant_id=turn.tenant_id, hold_id=turn.message_id, reason=holds.EXPIRED)
    close_orphans()
    assert spool.settle() == 1
    [message] = shop.messages()
    assert (message.state, message.answer, message.receipt) == ("failed", "", None)
    assert shop.balance(shop.alice) == (20 * YUAN, 0, 0)
    assert_books_are_right(shop)


def test_a_damaged_file_does_not_hold_up_the_spool(tmp_path: Path, settings: Any) -> None:
    settings.VAR_DIR = tmp_path
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "0.json").write_text("{")
    assert spool.settle() == 0
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["0.bad"]

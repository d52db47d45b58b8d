"""What could not be written when a turn ended, on disk by hold id until the database takes it.

    keep()      one file for each turn, complete or not there at all
    settle()    end the turns that are kept; a file goes once its turn has ended

Ending a turn is idempotent, so several processes may settle one folder, and a file may be settled twice. Where the hold
has meanwhile been charged at its checkpoint, the difference is charged, once (`billing.adjustments`). The folder must
outlive the process: `BANYAN_VAR`/spool.
"""

import os
import uuid
from dataclasses import asdict
from pathlib import Path

import orjson
import structlog
from django.conf import settings
from django.db import DatabaseError

from billing.holds import Usage
from billing.ledger import LedgerError
from chat.events import FailureKind
from chat.moderation.evidence import Evidence
from chat.moderation.refusals import Refused
from chat.turn import Outcome, Turn, close_turn, usage_of
from chat.upstream.base import ChatRequest

log = structlog.get_logger(__name__)


def folder() -> Path:
    """Return where turns are kept."""
    return Path(settings.VAR_DIR) / "spool"


def keep(turn: Turn, outcome: Outcome) -> None:
    """Write down how a turn ended. A disk that refuses is logged; then the hold ends at its checkpoint."""
    entry = {
        "tenant_id": turn.tenant_id,
        "user_id": turn.user_id,
        "message_id": str(turn.message_id),
        "conversation_id": str(turn.conversation_id) if turn.conversation_id else None,
        "api_key_id": turn.api_key_id,
        "language": turn.language,
        "model": turn.model,
        "cut_to_balance": turn.cut_to_balance,
        # Reckoned now: what was sent upstream is not kept.
        "usage": asdict(usage_of(turn, outcome)),
        "outcome": {
            # Nothing of what a program was answered is kept.
            "text": outcome.text if turn.api_key_id is None else "",
            "reasoning": outcome.reasoning if turn.api_key_id is None else "",
            "had_output": outcome.had_output,
            "finish_reason": outcome.finish_reason,
            "stopped": outcome.stopped,
            "failure": outcome.failure,
            "refused": outcome.refused,
            "found": [asdict(one) for one in outcome.found],
        },
    }
    try:
        _write(folder() / f"{turn.message_id}.json", orjson.dumps(entry))
    except OSError:
        log.exception("spool_refused", message_id=str(turn.message_id))
    else:
        log.warning("turn_spooled", message_id=str(turn.message_id))


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, for our eyes only, and on the disk when this returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def settle() -> int:
    """End the turns that are kept, the oldest first, until the database refuses; return how many."""
    settled = 0
    for path in sorted(folder().glob("*.json")):
        try:
            _settle(path)
        except DatabaseError:
            log.warning("spool_waits", message_id=path.stem, exc_info=True)
            break
        except (OSError, ValueError, KeyError, TypeError, LedgerError):
            # Kept under another name, for a person to look at: it must not hold up the others.
            log.exception("spool_unreadable", file=path.name)
            path.replace(path.with_suffix(".bad"))
        else:
            settled += 1
    return settled


def _settle(path: Path) -> None:
    try:
        entry = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return  # another process was faster
    turn = Turn(
        tenant_id=entry["tenant_id"],
        user_id=entry["user_id"],
        message_id=uuid.UUID(entry["message_id"]),
        conversation_id=uuid.UUID(entry["conversation_id"]) if entry["conversation_id"] else None,
        api_key_id=entry.get("api_key_id"),
        language=entry["language"],
        model=entry["model"],
        targets=(),
        request=ChatRequest(messages=(), max_tokens=0),
        cut_to_balance=entry["cut_to_balance"],
    )
    said = entry["outcome"]
    said["failure"] = FailureKind(said["failure"]) if said["failure"] else None
    said["refused"] = Refused(said.get("refused", ""))
    said["found"] = tuple(Evidence(**one) for one in said.get("found", ()))
    ending = close_turn(turn, Outcome(**said, usage=Usage(**entry["usage"])))
    path.unlink(missing_ok=True)
    log.info("spool_settled", message_id=str(turn.message_id), charged=ending.receipt is not None)

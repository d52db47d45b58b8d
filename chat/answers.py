"""The JSON API of answers that are being written: stopping one."""

import uuid
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from chat import live
from chat.findings import parse_id
from chat.turn import find_message
from tenants.api import Envelope, ok, signed_in, user_of

router = Router(tags=["chat"], auth=signed_in)


class StoppingOut(Schema):
    """Which answer, and whether it was running: one that has ended stays as it is."""

    message_id: uuid.UUID
    running: bool


@router.post("/messages/{message_id}/stop", response=Envelope[StoppingOut])
def stop(request: HttpRequest, message_id: str) -> Any:
    """Stop an answer of the user's own, whichever process generates it; what was generated is charged.

    It may be asked again, and after the end. The answer's readers are told its end and its receipt.
    """
    message = find_message(user_id=user_of(request).pk, message_id=parse_id(message_id))
    return ok({"message_id": message.pk, "running": live.stop(message)})

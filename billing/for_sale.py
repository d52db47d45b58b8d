"""What can be bought, as a client sees it: an empty list, and why, where it is to show no purchases.

Stores want that of a program on iOS, or of a version under review; the rule is the tenant's (tenants/compliance.py).
"""

from typing import Annotated, Any, Generic, Literal

from django.http import HttpRequest
from ninja import Schema
from pydantic import Field

from tenants import compliance
from tenants.api import DataT, Envelope, Text, current_tenant, ok

# What a mini-program runs on, as `wx.getDeviceInfo` says.
Platform = Annotated[Text, Field(max_length=16)]
# A client's own version; one that is under review shows no purchases.
Version = Annotated[Text, Field(max_length=32)]


class HiddenOut(Schema):
    """Why this client is to show no purchases, and what to say in their place."""

    reason: Literal["ios", "review"]
    msg: str


class ForSale(Envelope[DataT], Generic[DataT]):
    """A list of what can be bought, or how: empty, with `hidden`, for a client that is to show no purchases."""

    hidden: HiddenOut | None = None


def nothing_for_sale(request: HttpRequest, *, platform: str, version: str) -> dict[str, Any] | None:
    """Return the answer to a client that is to show no purchases; None if it may."""
    client = compliance.client_of(request, platform=platform, version=version)
    reason = compliance.why_hidden(compliance.compliance_of(current_tenant(request)), client)
    return {**ok([]), "hidden": {"reason": reason, "msg": compliance.not_here()}} if reason else None

"""The JSON API of one's own API keys."""

from datetime import datetime
from typing import Annotated, Any, Self

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import AwareDatetime, Field, model_validator

from chat import keys
from chat.models import ApiKey
from tenants import throttle
from tenants.api import Amount, Envelope, Text, current_tenant, ok, signed_in, user_of

router = Router(tags=["keys"], auth=signed_in)

# Keys made by a user in an hour.
KEYS_PER_HOUR = 30
HOUR = 60 * 60
MAX_AMOUNT = 10**15

AmountIn = Annotated[int, Field(ge=0, le=MAX_AMOUNT)]
Name = Annotated[Text, Field(min_length=1, max_length=64)]
Slug = Annotated[Text, Field(min_length=1, max_length=64)]
Models = Annotated[list[Slug], Field(max_length=100)]


class KeyOut(Schema):
    """A key as its user sees it, without its secret; amounts in micro-yuan. `models`: empty for all."""

    id: int
    name: str
    hint: str
    models: list[str] = Field(alias="allowed_models")
    spend_limit: Amount | None
    spent: Amount
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKeyOut(Schema):
    """A new key, and its secret, shown this once."""

    secret: str
    key: KeyOut


class KeyIn(Schema):
    """A key to be: micro-yuan that it may spend in all, models by slug, and its end; each may be left out."""

    name: Name
    spend_limit: AmountIn | None = None
    models: Models = Field(default_factory=list)
    expires_at: AwareDatetime | None = None


class KeyChangeIn(Schema):
    """What to change; what is not given stays, and null takes a limit or an end away."""

    name: Name | None = None
    spend_limit: AmountIn | None = None
    models: Models | None = None
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _keep_needed(self) -> Self:
        for name in ("name", "models"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class RevokedOut(Schema):
    """Whether the key was good until now."""

    revoked: bool


def _mine(request: HttpRequest, key_id: int) -> ApiKey:
    return keys.find_key(user=user_of(request), key_id=key_id)


@router.get("", response=Envelope[list[KeyOut]])
def list_keys(request: HttpRequest) -> Any:
    """Return one's keys, the latest first, revoked ones too."""
    return ok(list(ApiKey.objects.filter(user=user_of(request)).order_by("-pk")[:500]))


@router.post("", response=Envelope[NewKeyOut])
def make(request: HttpRequest, payload: KeyIn) -> Any:
    """Make a key; its secret is in this answer and nowhere else."""
    user = user_of(request)
    who = f"{current_tenant(request).slug}:{user.pk}"
    throttle.count(what="api_key", who=who, limit=KEYS_PER_HOUR, seconds=HOUR)
    key, secret = keys.make_key(
        user=user,
        name=payload.name,
        spend_limit=payload.spend_limit,
        allowed_models=payload.models,
        expires_at=payload.expires_at,
    )
    return ok({"secret": secret, "key": key})


@router.post("/{key_id}", response=Envelope[KeyOut])
def change(request: HttpRequest, key_id: int, payload: KeyChangeIn) -> Any:
    """Rename a key, or set what it may spend, call, and until when."""
    key = _mine(request, key_id)
    changes = payload.dict(exclude_unset=True)
    if "models" in changes:
        changes["allowed_models"] = changes.pop("models")
    if changes:
        keys.change_key(key, **changes)
    return ok(key)


@router.post("/{key_id}/revoke", response=Envelope[RevokedOut])
def revoke(request: HttpRequest, key_id: int) -> Any:
    """End a key for good; answers that it is being given go on to their end."""
    return ok({"revoked": keys.revoke_key(_mine(request, key_id))})

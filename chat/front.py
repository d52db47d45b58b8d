"""What a client shows before anybody has logged in: whose service this is, and what it offers."""

from typing import Any

from django.conf import settings
from django.db.models import BooleanField, ExpressionWrapper, Q, Value
from django.http import HttpRequest
from ninja import Router, Schema

from chat import uploads
from chat.labels import ai_label
from chat.models import Role
from chat.turn import offers_on_sale
from tenants.api import Envelope, current_tenant, ok
from tenants.brand import BrandOut, introduced
from tenants.models import Tenant

router = Router(tags=["chat"])


class ModelOut(Schema):
    """A model that a chat may name, and whether it takes pictures, and text files, with a question."""

    slug: str
    name: str
    is_default: bool
    images: bool
    files: bool


class AttachmentLimits(Schema):
    """How many files one message may have, 0: none, and how many bytes a file, as the server takes them."""

    per_message: int
    file_bytes: int


class FrontOut(BrandOut):
    """A tenant's brand, the label of everything generated, the default assistant's suggestions, models and limits."""

    label: str
    suggestions: list[str]
    models: list[ModelOut]
    attachments: AttachmentLimits


@router.get("/front", response=Envelope[FrontOut])
def front(request: HttpRequest) -> Any:
    """Return the tenant's brand and models, to anybody: they stand on its first page."""
    return ok(front_of(current_tenant(request)))


def front_of(tenant: Tenant) -> dict[str, Any]:
    """Return what `FrontOut` holds, in the language that is active. In the tenant's scope."""
    role = Role.objects.filter(is_enabled=True, is_default=True).only("suggestions").first()
    sees = ExpressionWrapper(Q(image_tokens__gt=0), output_field=BooleanField())
    # Texts become a part of the question: every model reads them.
    offers = offers_on_sale().order_by("-is_default", "name", "pk").annotate(images=sees, files=Value(value=True))
    return {
        **introduced(tenant),
        "label": ai_label(),
        "suggestions": [line.strip() for line in role.suggestions.splitlines() if line.strip()] if role else [],
        "models": list(offers.values("slug", "name", "is_default", "images", "files")),
        "attachments": {"per_message": settings.ATTACHMENTS_PER_MESSAGE, "file_bytes": uploads.MAX_BYTES},
    }

"""The label of content that a model made, as it leaves the product: exported, copied, shared.

China's measures of 2025 for labelling such content want words that a person sees, and metadata that a program finds;
the metadata's names are those of GB 45438-2025.
"""

from typing import Any

from tenants import compliance
from tenants.compliance import service_name
from tenants.models import Compliance, Tenant

__all__ = ["ai_label", "aigc", "service_name"]


def ai_label() -> str:
    """Return the label for a person, in the tenant's words (tenants/compliance.py). In its scope."""
    return compliance.ai_label(Compliance.objects.first() or Compliance())


def aigc(*, produced_id: str, tenant: Tenant) -> dict[str, Any]:
    """Return the label for programs: generated (1), by whose service, under which number of that service."""
    return {"Label": "1", "ContentProducer": service_name(tenant), "ProduceID": produced_id}

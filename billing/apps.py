"""The billing app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BillingConfig(AppConfig):
    """Names the app in the admin."""

    name = "billing"
    verbose_name = _("Billing")

    def ready(self) -> None:
        """Add to the persons' archive."""
        from billing.personal import PART  # noqa: PLC0415  # models are ready only now
        from tenants.personal import add_part  # noqa: PLC0415  # as above

        add_part(PART)

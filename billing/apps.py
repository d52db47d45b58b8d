"""The billing app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BillingConfig(AppConfig):
    """Names the app in the admin."""

    name = "billing"
    verbose_name = _("Billing")

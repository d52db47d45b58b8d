"""The app of tenants' lives."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LifecycleConfig(AppConfig):
    """Names the app in the admin."""

    name = "lifecycle"
    verbose_name = _("Tenants' lives")

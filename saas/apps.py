"""The shell as a Django app: it owns the management commands and the system checks."""

from django.apps import AppConfig


class SaasConfig(AppConfig):
    """Registers the checks of `saas.checks`."""

    name = "saas"

    def ready(self) -> None:
        """Import the checks so that they register."""
        from saas import checks  # noqa: F401, PLC0415  needs the app registry

"""`manage.py openapi`: prints the OpenAPI document, as docs/openapi.json keeps it."""

from typing import Any

from django.core.management.base import BaseCommand

import saas.urls  # noqa: F401  # its import adds every router to the API
from saas.openapi import as_text


class Command(BaseCommand):
    """Prints the OpenAPI document."""

    help = "prints the OpenAPI document, as docs/openapi.json keeps it"

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Print it."""
        self.stdout.write(as_text(), ending="")

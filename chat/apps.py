"""The chat app."""

from django.apps import AppConfig
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from chat.upstream import pool


class ChatConfig(AppConfig):
    """Names the app in the admin."""

    name = "chat"
    verbose_name = _("Chat")

    def ready(self) -> None:
        """Share what this process learns of upstream accounts, from its first chat on; add to the persons' archive."""
        from chat.personal import PART  # noqa: PLC0415  # models are ready only now
        from tenants.personal import add_part  # noqa: PLC0415  # as above

        add_part(PART)
        # Accounts are named by their rows' ids: another database on the same Redis has others under the same names.
        pool.share(settings.REDIS_URL, realm=settings.DATABASES["default"]["NAME"])

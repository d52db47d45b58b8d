"""The chat app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatConfig(AppConfig):
    """Names the app in the admin."""

    name = "chat"
    verbose_name = _("Chat")

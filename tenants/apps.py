"""Who: the operator, resellers, tenants and their people."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.utils.translation import gettext_lazy as _


class TenantsConfig(AppConfig):
    """The app at the bottom: everything else imports it, it imports nothing of ours."""

    default = True
    name = "tenants"
    verbose_name = _("Tenants and people")


class OperatorAdminConfig(admin_apps.AdminConfig):
    """Django's admin, its default site being the operator's."""

    default = False  # of this module; settings name it in full
    default_site = "tenants.adminsite.OperatorAdminSite"

"""Users' pictures of themselves."""

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.models.enduser import EndUser
from tenants.scope import SameTenant, TenantOwned


class Avatar(TenantOwned):
    """A user's picture, as it was drawn anew; its address is known to nobody but the user and staff."""

    user = models.ForeignKey(
        EndUser,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    # Another one for each picture: what has been loaded from an address never changes.
    token = models.CharField(_("token"), max_length=64)
    data = models.BinaryField(_("picture"))
    created_at = models.DateTimeField(_("uploaded"), default=timezone.now)

    class Meta(TenantOwned.Meta):
        verbose_name = _("avatar")
        verbose_name_plural = _("avatars")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="tenants_avatar_user_same_tenant"),
            models.UniqueConstraint(fields=["tenant", "user"], name="tenants_avatar_user"),
            models.UniqueConstraint(fields=["tenant", "token"], name="tenants_avatar_token"),
        ]

"""What a person changed in the portal: a line in the log, and one in the row's history, which the operator reads."""

from typing import TYPE_CHECKING

import structlog
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models

from tenants.portal.access import PortalRequest

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)


def record(request: PortalRequest, row: models.Model, what: "_StrOrPromise", *, is_new: bool = False) -> None:
    """Keep who did what to a row; call it in the transaction of the change where there is one."""
    LogEntry.objects.create(
        user=request.user,
        content_type=ContentType.objects.get_for_model(row),
        object_id=str(row.pk),
        object_repr=str(row)[:200],
        action_flag=ADDITION if is_new else CHANGE,
        change_message=str(what),
    )
    log.info(
        "portal_acted",
        staff=request.user.pk,
        reseller=request.reseller.pk,
        model=row._meta.label,
        row=str(row.pk),
        what=str(what),
    )

"""Notices of staff in both admins, and the operator's announcements to them. Looking at the list is reading it."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from tenants import noticeboard
from tenants.adminsite import OperatorModelAdmin, ReadOnlyTenantModelAdmin, register, role_here
from tenants.models import Notice, StaffAnnouncement, StaffUser


class NoticeAdmin(ReadOnlyTenantModelAdmin):
    """What the person should know, by their role; the operator's site has the operator's own."""

    list_display = ("created_at", "kind", "said", "is_new")
    list_display_links = ("said",)
    list_filter = ("kind",)
    ordering = ("-id",)
    fields = ("created_at", "kind", "said", "text")
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Keep what is for the person."""
        rows: QuerySet[Notice] = super().get_queryset(request)
        mine = noticeboard.notices_of(tenant_id=self._reader(request), role=role_here(request))
        seen = noticeboard.last_seen(staff=self._staff(request), tenant_id=self._reader(request))
        is_new = models.Case(models.When(id__gt=seen, then=True), default=False, output_field=models.BooleanField())
        # The operator may open any, and has those of others in no list.
        is_one = request.resolver_match is not None and "object_id" in request.resolver_match.kwargs
        shown = rows if self._on_platform and is_one else rows.filter(pk__in=mine.values("pk"))
        return shown.annotate(new=is_new)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Leave the tenant out: these are the reader's own."""
        return self.list_display

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Leave the tenant out, as above."""
        return self.list_filter

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list as it is, and take it for read."""
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse):
            last = noticeboard.notices_of(tenant_id=self._reader(request), role=role_here(request)).order_by("-id")
            last_id = last.values_list("id", flat=True).first()
            response.render()
            if last_id is not None:
                noticeboard.mark_read(staff=self._staff(request), tenant_id=self._reader(request), last_id=last_id)
        return response

    def _reader(self, request: HttpRequest) -> int | None:
        return None if self._on_platform else int(request.tenant.pk)  # type: ignore[attr-defined]  # the middleware's

    def _staff(self, request: HttpRequest) -> StaffUser:
        if not isinstance(request.user, StaffUser):
            raise TypeError("notices are for staff")
        return request.user

    @admin.display(description=_("notice"))
    def said(self, row: Notice) -> str:
        """Show its first line, in the reader's language."""
        return row.subject

    @admin.display(description=_("text"))
    def text(self, row: Notice) -> str:
        """Show what it says, in the reader's language."""
        return row.body

    @admin.display(description=_("new"), boolean=True)
    def is_new(self, row: Any) -> bool:
        """Say whether it came since the person last looked."""
        return bool(row.new)


@admin.register(StaffAnnouncement)
class StaffAnnouncementAdmin(OperatorModelAdmin):
    """What the operator tells staff: written once, sent with saving, and not to be changed after."""

    list_display = ("subject", "to_tenants", "to_resellers", "created_by", "created_at")
    search_fields = ("subject", "body")
    ordering = ("-id",)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: it has been read."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse, as above."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Keep it, and tell everybody."""
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        noticeboard.announce(announcement=obj)


register(Notice, NoticeAdmin)

"""Assistants, chat rules and announcements in the admin, and what users share, think of answers, and report.

Owners and people for content write what users see; owners and support deal with reports.
"""

from typing import TYPE_CHECKING, Any

import structlog
from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from chat.assistants import AssistantImporter
from chat.models import (
    Announcement,
    ChatRules,
    Feedback,
    PlatformAnnouncement,
    Report,
    Role,
    RoleCategory,
    ShareLink,
)
from chat.shares import revoke_links
from tenants.adminsite import OperatorModelAdmin, ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.import_pages import ImportsRows
from tenants.models import Membership

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    _ModelForm = forms.ModelForm  # cannot be subscripted at run time

log = structlog.get_logger(__name__)

_EDITORS = frozenset({Membership.Role.OWNER.value, Membership.Role.CONTENT.value})
_SUPPORT = frozenset({Membership.Role.OWNER.value, Membership.Role.SUPPORT.value})


class _TenantForm(_ModelForm):
    """A form whose tenant may not be among its fields: what is unique in a tenant is checked all the same."""

    def clean(self) -> dict[str, Any] | None:
        """Refuse a slug that another row of the tenant has; the scope knows the tenant, or the form names it."""
        cleaned = super().clean()
        slug = self.cleaned_data.get("slug")
        others = self._meta.model._default_manager.exclude(pk=self.instance.pk)
        tenant = self.cleaned_data.get("tenant") or getattr(self.instance, "tenant_id", None)
        if tenant is not None:
            others = others.filter(tenant=tenant)
        if slug and others.filter(slug=slug).exists():
            self.add_error("slug", _("Another row has this slug already."))
        return cleaned


class RoleForm(_TenantForm):
    """An assistant: its category is of the same tenant, and one is the default."""

    def clean(self) -> dict[str, Any] | None:
        """Refuse another tenant's category, which only the operator's form could name, and a second default."""
        cleaned = super().clean()
        category, tenant = self.cleaned_data.get("category"), self.cleaned_data.get("tenant") or self.instance.tenant_id
        tenant_id = getattr(tenant, "pk", tenant)
        if category is not None and tenant_id is not None and category.tenant_id != tenant_id:
            self.add_error("category", _("This category belongs to another tenant."))
        defaults = Role.objects.exclude(pk=self.instance.pk).filter(is_default=True)
        if tenant_id is not None:
            defaults = defaults.filter(tenant_id=tenant_id)
        if self.cleaned_data.get("is_default") and defaults.exists():
            self.add_error("is_default", _("Another assistant is the default already."))
        return cleaned


class _EditedAdmin(TenantModelAdmin):
    """What owners and people for content write; each change leaves a log line beside the admin's own history."""

    editable_by = _EDITORS

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep a row with its tenant."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return (*fields, "tenant") if obj is not None and self._on_platform else fields

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did."""
        super().save_model(request, obj, form, change)
        what = {"kind": obj._meta.model_name, "row": obj.pk, "fields": form.changed_data}
        log.info("chat_content_saved", staff=request.user.pk, tenant_id=getattr(obj, "tenant_id", None), **what)


class RoleCategoryAdmin(_EditedAdmin):
    """The shelves of assistants."""

    form = _TenantForm
    list_display = ("slug", "name", "position")
    search_fields = ("slug", "name")
    ordering = ("position", "name")

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let those delete who may edit, while no assistant stands there."""
        is_empty = obj is None or not Role.objects.filter(category_id=obj.pk).exists()
        return is_empty and super().has_delete_permission(request, obj)


class RoleAdmin(ImportsRows, _EditedAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Assistants."""

    importer = AssistantImporter()
    form = RoleForm
    list_display = ("slug", "name", "category", "position", "is_default", "is_enabled")
    list_filter = ("is_enabled", "category__name")
    list_select_related = ("tenant", "category")
    search_fields = ("slug", "name", "description")
    ordering = ("position", "name")

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: conversations keep the assistant that they began with. One is turned off."""
        return False


class ChatRulesAdmin(_EditedAdmin):
    """What is true for every chat: one row, which takes effect with the next question."""

    list_display = ("id", "context_turns", "context_tokens")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let a tenant have one set of rules."""
        return self.may_edit(request) and not self.has_its_row(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: rules are emptied."""
        return False


_ANNOUNCEMENT_COLUMNS = ("title", "starts_at", "ends_at", "is_enabled")


class AnnouncementAdmin(_EditedAdmin):
    """What a tenant's users are told."""

    list_display = _ANNOUNCEMENT_COLUMNS
    list_filter = ("is_enabled", "starts_at")
    search_fields = ("title", "body")
    ordering = ("-starts_at",)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: who has read it is noted. It is turned off."""
        return False


@admin.register(PlatformAnnouncement)
class PlatformAnnouncementAdmin(OperatorModelAdmin):
    """What every tenant's users are told, by the operator."""

    list_display = _ANNOUNCEMENT_COLUMNS
    list_filter = ("is_enabled", "starts_at")
    search_fields = ("title", "body")
    ordering = ("-starts_at",)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: who has read it is noted. It is turned off."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did."""
        super().save_model(request, obj, form, change)
        log.info("platform_announcement_saved", staff=request.user.pk, row=obj.pk, fields=form.changed_data)


class FeedbackAdmin(ReadOnlyTenantModelAdmin):
    """What users think of answers."""

    visible_to = _SUPPORT | _EDITORS
    list_display = ("id", "updated_at", "user", "rating", "reason", "answered_by")
    list_filter = ("rating", "updated_at")
    list_select_related = ("tenant", "user", "message")
    search_fields = ("reason", "user__username", "=message__id")
    ordering = ("-updated_at",)

    @admin.display(description=_("model"))
    def answered_by(self, row: Feedback) -> str:
        """Name the model that answered."""
        return str(row.message.offer_slug)


class ReportAdmin(ReadOnlyTenantModelAdmin):
    """Complaints about answers, the open ones first: staff write a note and say what became of it."""

    visible_to = _SUPPORT
    list_display = ("id", "created_at", "state", "category", "detail", "reporter", "handled_by", "handled_at")
    list_filter = ("state", "category", "created_at")
    list_select_related = ("tenant", "reporter", "handled_by")
    search_fields = ("detail", "question", "answer", "note", "reporter__username", "=message__id")
    # "open" stands before "rejected" and "upheld".
    ordering = ("state", "-created_at")
    exclude = ("share",)
    readonly_fields = (
        "reporter",
        "message",
        "category",
        "detail",
        "question",
        "answer",
        "state",
        "handled_by",
        "handled_at",
        "created_at",
    )
    actions = ("uphold", "reject", "revoke_share")

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let support write a note."""
        return self._admits(request, _SUPPORT)

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Leave the note to be written."""
        return (*super().get_readonly_fields(request, obj), "tenant")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save the note alone: another may have dealt with the report meanwhile."""
        Report.objects.filter(pk=obj.pk).update(note=obj.note)
        log.info("report_noted", staff=request.user.pk, tenant_id=obj.tenant_id, row=obj.pk)

    @admin.action(description=_("The report is right"), permissions=["change"])
    def uphold(self, request: HttpRequest, rows: QuerySet[Report]) -> None:
        """Close reports as right."""
        self._close(request, rows, Report.State.UPHELD)

    @admin.action(description=_("The report is not right"), permissions=["change"])
    def reject(self, request: HttpRequest, rows: QuerySet[Report]) -> None:
        """Close reports as not right."""
        self._close(request, rows, Report.State.REJECTED)

    @admin.action(description=_("End the links that show what was reported"), permissions=["change"])
    def revoke_share(self, request: HttpRequest, rows: QuerySet[Report]) -> None:
        """End every link to the conversations that the reports are about."""
        conversations = rows.values("message__conversation_id")
        count = revoke_links(ShareLink.objects.filter(conversation__in=conversations))
        for row in rows:
            log.info("report_shares_revoked", staff=request.user.pk, tenant_id=row.tenant_id, row=row.pk)
            self.log_change(request, row, "shares revoked")
        told = ngettext("%(count)d link was ended.", "%(count)d links were ended.", count) % {"count": count}
        messages.success(request, told)

    def _close(self, request: HttpRequest, rows: QuerySet[Report], state: Report.State) -> None:
        count = 0
        for row in rows:
            is_open = Report.objects.filter(pk=row.pk, state=Report.State.OPEN)
            if is_open.update(state=state, handled_by=request.user, handled_at=timezone.now()):
                count += 1
                log.info("report_closed", staff=request.user.pk, tenant_id=row.tenant_id, row=row.pk, state=str(state))
                self.log_change(request, row, f"state {state}")
        told = ngettext("%(count)d report was closed.", "%(count)d reports were closed.", count) % {"count": count}
        messages.success(request, told)


class ShareLinkAdmin(ReadOnlyTenantModelAdmin):
    """Links that users gave away; not even their digests are shown."""

    visible_to = _SUPPORT
    list_display = ("id", "created_at", "user", "conversation", "expires_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "expires_at")
    list_select_related = ("tenant", "user", "conversation")
    search_fields = ("user__username", "conversation__title", "=conversation__id")
    exclude = ("digest",)
    ordering = ("-created_at",)
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Let support end a link."""
        return self._admits(request, _SUPPORT)

    @admin.action(description=_("End the links"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ShareLink]) -> None:
        """End links at once."""
        ended = list(rows.filter(revoked_at__isnull=True))
        count = revoke_links(rows)
        for row in ended:
            log.info("share_revoked", staff=request.user.pk, tenant_id=row.tenant_id, row=row.pk)
            self.log_change(request, row, "revoked")
        told = ngettext("%(count)d link was ended.", "%(count)d links were ended.", count) % {"count": count}
        messages.success(request, told)


for _model, _admin in (
    (RoleCategory, RoleCategoryAdmin),
    (Role, RoleAdmin),
    (ChatRules, ChatRulesAdmin),
    (Announcement, AnnouncementAdmin),
    (Feedback, FeedbackAdmin),
    (Report, ReportAdmin),
    (ShareLink, ShareLinkAdmin),
):
    register(_model, _admin)

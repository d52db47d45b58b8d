"""What a tenant's service says of itself by law, and which pages may embed it. Owners edit; support looks."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from django import forms
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextareaWidget

from tenants import legal
from tenants.adminsite import TenantModelAdmin, register
from tenants.models import Compliance, Embedding, LegalText, Membership, Tenant
from tenants.models.site import MOST_ORIGINS, validate_origin
from tenants.resolve import forget

if TYPE_CHECKING:
    _EmbeddingForm = forms.ModelForm[Embedding]
else:
    _EmbeddingForm = forms.ModelForm  # cannot be subscripted at run time

log = structlog.get_logger(__name__)

Role = Membership.Role
_OWNERS: Final = frozenset({Role.OWNER.value})
_LOOKING: Final = frozenset({Role.OWNER.value, Role.SUPPORT.value})


class _SiteAdmin(TenantModelAdmin):
    """What owners set and support looks at; each change leaves a log line beside the admin's own history."""

    visible_to = _LOOKING
    editable_by = _OWNERS

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep a row with its tenant."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return (*fields, "tenant") if obj is not None and self._on_platform else fields

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did."""
        super().save_model(request, obj, form, change)
        log.info("site_changed", kind=obj._meta.model_name, row=obj.pk, staff=request.user.pk, fields=form.changed_data)


class _OneEachAdmin(_SiteAdmin):
    """Settings of which a tenant has one row."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the owner add the one row that there is."""
        return super().has_add_permission(request) and not self.has_its_row(request)


class ComplianceAdmin(_OneEachAdmin):
    """What the law and the platforms want of a service."""

    list_display = ("company", "model_name", "model_filing", "icp_number", "minimum_age", "hide_on_ios")

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Group what is asked; the tenant is the operator's to choose."""
        owner = ("tenant",) if self._on_platform else ()
        return [
            (None, {"fields": (*owner, "company", "contact")}),
            (
                _("Filings"),
                {
                    "fields": ("model_name", "model_filing", "algorithm_filing", "icp_number"),
                    "description": _("Shown at the foot of the service's pages, and by its clients."),
                },
            ),
            (_("AI label and age"), {"fields": ("ai_label", "ai_label_en", "minimum_age")}),
            (
                _("Review mode"),
                {
                    "fields": ("hide_on_ios", "review_version"),
                    "description": _("Where it applies, lists of what can be bought are empty and orders are refused."),
                },
            ),
        ]


class LegalTextAdmin(_SiteAdmin):
    """Versions of a tenant's own terms and privacy policy: written anew, never changed, since users agreed to them."""

    list_display = ("kind", "language", "version", "created_at", "created_by")
    list_filter = ("kind", "language")
    ordering = ("-created_at", "-pk")

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Ask for a text, or show one."""
        owner = ("tenant",) if self._on_platform else ()
        shown = ("version", "created_at", "created_by") if obj else ()
        return (*owner, "kind", "language", *shown, "body")

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Show what a version was."""
        return self.get_fields(request, obj) if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: a new version is added."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: it says what users agreed to."""
        return False

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin with what stands on the page now, of the kind and language in the address."""
        given: dict[str, Any] = super().get_changeform_initial_data(request)
        tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]  # the middleware's
        kind = given.get("kind") if given.get("kind") in LegalText.Kind.values else LegalText.Kind.TERMS
        if tenant is None:
            return {"kind": kind, **given}
        language = given.get("language") if given.get("language") in legal.LANGUAGES else tenant.language
        own = LegalText.objects.filter(kind=kind, language=language).order_by("-version").first()
        body = own.body if own else legal.our_text(tenant=tenant, kind=str(kind), language=str(language))
        return {"kind": kind, "language": language, "body": body}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Publish it."""
        made = legal.publish(
            tenant=obj.tenant,
            kind=obj.kind,
            language=obj.language,
            body=obj.body,
            actor=request.user.get_username(),
        )
        obj.pk, obj.version = made.pk, made.version
        log.info("legal_text_published", tenant_id=made.tenant_id, text=made.pk, staff=request.user.pk)


class OriginsField(forms.CharField):
    """Origins, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 6, "placeholder": "https://www.example.com"}), **kwargs
        )

    def prepare_value(self, value: Any) -> Any:
        """Show a list as lines."""
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """Return the lines, as a browser writes origins: in lower case, without what says nothing."""
        lines = [line.strip().lower().removesuffix("/").removesuffix(":443") for line in str(value or "").splitlines()]
        return list(dict.fromkeys(line for line in lines if line))

    def validate(self, value: Any) -> None:
        """Leave it to the validators: a list may be empty."""

    def run_validators(self, value: Any) -> None:
        """Refuse what is no origin, each with its own words."""
        faults: list[forms.ValidationError] = []
        for origin in value:
            try:
                validate_origin(origin)
            except forms.ValidationError as fault:
                faults.append(fault)
        if len(value) > MOST_ORIGINS:
            faults.append(forms.ValidationError(_("At most 50 origins are taken.")))
        if faults:
            raise forms.ValidationError(faults)


class EmbeddingForm(_EmbeddingForm):
    """Origins, one a line."""

    origins = OriginsField(
        label=_("allowed origins"),
        required=False,
        help_text=_(
            "One a line, such as https://www.example.com. These pages may show yours in a frame and call the API from a"
            " browser; as soon as there is one here, no other page may. Empty: no page may frame yours, any may call."
        ),
    )

    class Meta:
        model = Embedding
        fields: ClassVar[list[str]] = ["tenant", "origins"]


class EmbeddingAdmin(_OneEachAdmin):
    """Which pages may embed the service."""

    form = EmbeddingForm
    list_display = ("__str__", "origins")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and let it be seen at once here; other processes see it within seconds."""
        super().save_model(request, obj, form, change)
        forget()


register(Compliance, ComplianceAdmin)
register(LegalText, LegalTextAdmin)
register(Embedding, EmbeddingAdmin)

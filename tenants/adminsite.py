"""The two admin sites: the tenant's at /admin/ on its own hosts, the operator's at /platform/ on the platform's.

A site answers on its own hosts only, and there lets in only those with a membership. Rows on the tenant's site come
through the scope that the middleware entered; the operator's site enters the platform's around each view.

An app registers a tenant-owned model on both with `register(Model, SomeAdmin)`, its class made from `TenantModelAdmin`.
One that holds secrets takes them by `SecretField`s in a `SecretsForm`, and is shown by a `SecretsModelAdmin`.
"""

from collections.abc import Callable
from functools import partial, wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar, cast
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.models import AbstractBaseUser
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import translation
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from tenants import changes, doors, scope, sessions, throttle
from tenants.errors import ProductError
from tenants.models import ChangeEntry, Membership, StaffRules, StaffUser, Tenant
from tenants.resolve import is_platform_host
from tenants.sidebar import groups_of

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _ModelForm = forms.ModelForm[Any]
else:
    _ModelForm = forms.ModelForm  # cannot be subscripted at run time

# Tries of a tenant's settings in a minute: each asks somebody else.
TRIES_PER_MINUTE = 20

View = Callable[..., HttpResponseBase]
ViewT = TypeVar("ViewT", bound=View)


def _membership(request: HttpRequest, staff: object) -> Membership | None:
    """Return the role of `staff` in the request's tenant; asked once per request."""
    if getattr(request, "tenant", None) is None or not isinstance(staff, StaffUser) or not staff.is_active:
        return None
    known: dict[int, Membership | None] = request.__dict__.setdefault("memberships", {})
    if staff.pk not in known:
        known[staff.pk] = Membership.objects.filter(staff=staff).first()
    return known[staff.pk]


class _Site(UnfoldAdminSite):
    """What both sites share: bound to hosts, one question who may enter."""

    login_form: type["_LoginForm"]
    index_template = "admin/dashboard.html"

    def answers_at(self, request: HttpRequest) -> bool:
        """Whether this site exists on the request's host."""
        raise NotImplementedError

    def admits(self, request: HttpRequest, staff: object) -> bool:
        """Whether `staff` may enter this site here."""
        raise NotImplementedError

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether the person who is logged in may enter, and their session was not ended from elsewhere."""
        if not self.answers_at(request) or not self.admits(request, request.user):
            return False
        if "attended" not in request.__dict__:
            request.__dict__["attended"] = sessions.attend(request, request.user)  # type: ignore[arg-type]
        return bool(request.__dict__["attended"])

    def demands_second_factor(self, request: HttpRequest) -> bool:
        """Whether whoever has the person's role here must use a second factor."""
        raise NotImplementedError

    def is_half_open(self, request: HttpRequest) -> bool:
        """Whether a second factor is wanted, and this session was opened without one."""
        return not request.session.get(doors.VERIFIED) and self.demands_second_factor(request)

    def admin_view(self, view: ViewT, cacheable: bool = False) -> ViewT:  # noqa: FBT001, FBT002  # Django's signature
        """Wrap a view: nothing there on other hosts, no entry without a membership, in the staff user's language."""

        @wraps(view)
        def inside(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if isinstance(request.user, StaffUser) and request.user.language:
                translation.activate(request.user.language)
            if self.is_half_open(request) and view not in self._always():
                return HttpResponseRedirect(reverse("admin:security", current_app=self.name))
            return self.show(view, request, *args, **kwargs)

        checked = super().admin_view(inside, cacheable)

        @wraps(checked)
        def here(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.answers_at(request):
                raise Http404
            return checked(request, *args, **kwargs)

        return cast("ViewT", here)

    def show(self, view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Run a view for someone who may enter."""
        return view(request, *args, **kwargs)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the log-in form, on this site's hosts only."""
        if not self.answers_at(request):
            raise Http404
        if REDIRECT_FIELD_NAME not in request.GET:
            # unfold's form leaves out where Django's would go on: without this it is a page that does not exist.
            query = request.GET.copy()
            query[REDIRECT_FIELD_NAME] = reverse("admin:index", current_app=self.name)
            request.GET = query  # type: ignore[assignment]  # a query that can be written to
        answer = super().login(request, extra_context)
        if answer.status_code == HTTPStatus.FOUND and request.method == "POST":
            return doors.enter(self, request, request.user, answer["Location"])  # type: ignore[arg-type]
        return answer

    def security(self, request: HttpRequest) -> HttpResponse:
        """Show one's own second factor and sessions."""
        return doors.security(self, request, must=self.demands_second_factor(request))

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Change one's own password; every other session ends."""
        answer = super().password_change(request, extra_context)
        if answer.status_code == HTTPStatus.FOUND and isinstance(request.user, StaffUser):
            sessions.end(request.user, but=sessions.number_of(request))
            note = str(_("The password was changed."))
            changes.record(request=request, row=request.user, action="changed", changes={}, note=note)
        return answer

    def _always(self) -> tuple[View, ...]:
        """Return what opens without the second factor that is demanded: the page that sets it up, and the way out."""
        return (self.security, self.logout)

    def get_urls(self) -> list[Any]:
        """Add the pages around the log-in, which are in front of it, and one's own security."""
        return [
            path("second-factor/", self.door(doors.ask_second_factor), name="second_factor"),
            path("forgot/", self.door(partial(doors.forgot, admits=self.admits)), name="admin_password_reset"),
            path(
                "reset/<str:uid>/<str:token>/",
                self.door(partial(doors.reset, admits=self.admits)),
                name="password_reset_link",
            ),
            path("security/", self.admin_view(self.security), name="security"),
            *super().get_urls(),
        ]

    def door(self, view: Callable[..., HttpResponse]) -> View:
        """Wrap a page before the log-in (tenants/doors.py): on this site's hosts only, and never kept."""

        def here(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.answers_at(request):
                raise Http404
            return self.show(partial(view, self), request, *args, **kwargs)

        return here

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Name the site by its own title, where unfold has a setting for all sites, and lead to one's own account."""
        names = {"site_title": self.site_title, "site_header": self.site_header}
        pages = ((_("Security"), "admin:security"), (_("Change password"), "admin:password_change"))
        links = [{"title": title, "link": reverse(name, current_app=self.name)} for title, name in pages]
        # The sites' templates are the same: the address of each one's notices is not a template's to guess.
        notices = reverse(f"{self.name}:tenants_notice_changelist") if self.has_permission(request) else ""
        known = super().each_context(request)
        groups = groups_of(known["available_apps"], path=request.path)
        more = {"account_links": links, "notices_url": notices, "sidebar_navigation": groups}
        return {**known, **names, **more}

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Never:
        """Refuse: unfold caches what it finds by staff user, so a member of two tenants would see one in the other."""
        raise Http404


class _LoginForm(AuthenticationForm):
    """Says the same about a wrong password and about a person who has no business here."""

    def clean(self) -> dict[str, Any]:
        """Count the try before it is one."""
        if self.request is not None:
            try:
                doors.count_guess(self.request, self.cleaned_data.get("username", ""))
            except ProductError as refused:
                raise forms.ValidationError(doors.when_again(refused)) from None
        return super().clean()

    def confirm_login_allowed(self, user: AbstractBaseUser) -> None:
        """Let in whom the site of this address admits."""
        if self.request is None or not self.site().admits(self.request, user):
            raise self.get_invalid_login_error()

    def site(self) -> _Site:
        """Return the site that shows this form."""
        raise NotImplementedError


class _OperatorLoginForm(_LoginForm):
    def site(self) -> _Site:
        return admin.site  # type: ignore[return-value]  # tenants.apps.OperatorAdminConfig makes it one of ours


class _TenantLoginForm(_LoginForm):
    def site(self) -> _Site:
        return tenant_site


class OperatorAdminSite(_Site):
    """The operator's: every tenant's rows, on the platform's hosts. It is Django's default site, `admin.site`."""

    site_title = site_header = _("Banyan platform")
    login_form = _OperatorLoginForm

    def answers_at(self, request: HttpRequest) -> bool:
        """Whether this is a platform host."""
        return is_platform_host(request.get_host())

    def admits(self, request: HttpRequest, staff: object) -> bool:
        """Let in superusers and the operator's people."""
        return isinstance(staff, StaffUser) and staff.is_operator

    def demands_second_factor(self, request: HttpRequest) -> bool:
        """Whether the setting says so of the operator's people."""
        return "operator" in settings.TWO_FACTOR_ROLES

    def show(self, view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Run and render a view in the platform's scope; templates, too, read rows."""
        with scope.platform("the operator's admin"):
            response = view(request, *args, **kwargs)
            return response.render() if isinstance(response, TemplateResponse) else response


class TenantAdminSite(_Site):
    """The tenant's: its own rows, on its own hosts."""

    site_title = site_header = _("Banyan")
    login_form = _TenantLoginForm

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Tell the staff of a suspended tenant why their users are turned away, on every page."""
        tenant: Tenant | None = getattr(request, "tenant", None)
        if tenant is not None and tenant.status == Tenant.Status.SUSPENDED and "told_suspended" not in request.__dict__:
            request.__dict__["told_suspended"] = True
            text = _("This service is suspended: its users are turned away, nothing is lost. The reason: %(reason)s")
            # A reason of the product's own, such as a trial's end, is translated; a person's stays as written.
            reason = translation.gettext(tenant.status_reason) if tenant.status_reason else "–"
            messages.warning(request, text % {"reason": reason})
        # Its own brand's, not ours.
        named = {"site_title": tenant.name, "site_header": tenant.name} if tenant is not None else {}
        return {**super().each_context(request), **named}

    def answers_at(self, request: HttpRequest) -> bool:
        """Whether the host is a tenant's."""
        return getattr(request, "tenant", None) is not None

    def admits(self, request: HttpRequest, staff: object) -> bool:
        """Let in the tenant's members; the operator's people look from /platform/."""
        return _membership(request, staff) is not None

    def demands_second_factor(self, request: HttpRequest) -> bool:
        """Whether the setting or the tenant says so of the person's role."""
        membership = _membership(request, request.user)
        if membership is None:
            return False
        if membership.role in settings.TWO_FACTOR_ROLES:
            return True
        return StaffRules.objects.filter(second_factor_roles__contains=[membership.role]).exists()

    def get_urls(self) -> list[Any]:
        """Add the page that an invitation leads to."""
        return [path("join/<str:token>/", self.door(doors.join), name="join"), *super().get_urls()]


tenant_site = TenantAdminSite(name="tenant_admin")


class OperatorModelAdmin(ModelAdmin):
    """A model on the operator's site: its people may do everything that the class does not take away."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Keep what a row was, for the log of changes."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.__dict__["_before"] = changes.picture(row)
        return row

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Keep it in the log of changes, too."""
        row = obj._meta.model._base_manager.filter(pk=obj.pk).first() or obj
        found = changes.difference({}, changes.picture(row))
        changes.record(request=request, row=row, action=ChangeEntry.Action.ADDED, changes=found)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Keep it in the log of changes, too: what the row was when it was read, and what it is.

        What a service changed is not in `obj`, so the row is read anew.
        """
        before = obj.__dict__.get("_before") or changes.picture(obj)
        row = obj._meta.model._base_manager.filter(pk=obj.pk).first()
        found = changes.difference(before, changes.picture(row)) if row is not None else {}
        note = message if isinstance(message, str) else ""
        changes.record(request=request, row=obj, action=ChangeEntry.Action.CHANGED, changes=found, note=note)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep what is deleted in the log of changes, too."""
        for row in queryset:
            found = changes.difference(changes.picture(row), {})
            changes.record(request=request, row=row, action=ChangeEntry.Action.DELETED, changes=found)
        return super().log_deletions(request, queryset)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: Any) -> None:
        """Keep the rows below a row in the log of changes, too."""
        kept = {row.pk: changes.picture(row) for row in formset.queryset} if formset.instance.pk else {}
        gone = [below.instance for below in formset.deleted_forms if below.instance.pk]
        kinds = ChangeEntry.Action
        for row in gone:
            found = changes.difference(changes.picture(row), {})
            changes.record(request=request, row=row, action=kinds.DELETED, changes=found)
        super().save_formset(request, form, formset, change)
        for row in (*formset.new_objects, *(row for row, _names in formset.changed_objects)):
            found = changes.difference(kept.get(row.pk, {}), changes.picture(row))
            action = kinds.CHANGED if row.pk in kept else kinds.ADDED
            changes.record(request=request, row=row, action=action, changes=found)

    formfield_overrides = {models.URLField: {"assume_scheme": "https"}}  # type: ignore[assignment,misc]  # noqa: RUF012

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Never:
        """Answer 404 where a row is not there, or not the person's to see; Django would go to the first page."""
        raise Http404

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the model's app to whoever may look at the model."""
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator look."""
        return _is_operator(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the operator add."""
        return _is_operator(request)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator change."""
        return _is_operator(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator delete."""
        return _is_operator(request)


class TenantModelAdmin(OperatorModelAdmin):
    """A tenant-owned model on both sites: on the tenant's, members of the roles in `visible_to` may look.

    Those in `editable_by`, nobody unless a class says so, may also add, change and delete there; what they add is the
    tenant's. The column and the filter "tenant" are added on the operator's site only, and so is the field where
    members may edit: both list every tenant's name.
    """

    visible_to: ClassVar[frozenset[str]] = frozenset(Membership.Role.values)
    editable_by: ClassVar[frozenset[str]] = frozenset()
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant",)
    list_per_page = 50

    @property
    def _on_platform(self) -> bool:
        return isinstance(self.admin_site, OperatorAdminSite)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator look, and members of a fitting role at their tenant's site."""
        return self._admits(request, self.visible_to)

    def may_edit(self, request: HttpRequest) -> bool:
        """Whether rows of this kind are the person's to edit here: the operator's, or a member's in `editable_by`."""
        return self._admits(request, self.editable_by)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let those add who may edit."""
        return self.may_edit(request)

    def has_its_row(self, request: HttpRequest) -> bool:
        """Whether a tenant that may have one row of this kind has it; not asked for the navigation of other pages."""
        options, match = self.model._meta, request.resolver_match
        own = f"{options.app_label}_{options.model_name}_"
        is_asked = match is None or (match.url_name or "").startswith((own, "app_list"))
        return is_asked and not self._on_platform and self.model._default_manager.exists()

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let those change who may edit."""
        return self.may_edit(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let those delete who may edit."""
        return self.may_edit(request)

    def get_exclude(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Leave the tenant out of the forms that members edit."""
        excluded = tuple(super().get_exclude(request, obj) or ())
        return excluded if self._on_platform or not self.editable_by else (*excluded, "tenant")

    def save_form(self, request: HttpRequest, form: Any, change: Any) -> Any:
        """Give what a member adds to the tenant whose site it is."""
        row = super().save_form(request, form, change)
        if not self._on_platform and not change:
            row.tenant = request.tenant  # type: ignore[attr-defined]
        return row

    def _admits(self, request: HttpRequest, roles: frozenset[str]) -> bool:
        if self._on_platform:
            return _is_operator(request)
        membership = _membership(request, request.user)
        return membership is not None and membership.role in roles

    def get_list_display(self, request: HttpRequest) -> Any:
        """Add the tenant on the operator's site."""
        columns = tuple(super().get_list_display(request))
        return (*columns, "tenant") if self._on_platform else columns

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Add the tenant on the operator's site."""
        filters = tuple(super().get_list_filter(request))
        return ("tenant", *filters) if self._on_platform else filters


class SecretField(forms.CharField):
    """Takes a new secret, of one line or of several, and never shows the one that is stored."""

    def __init__(self, label: "_StrOrPromise", *, has_lines: bool = False) -> None:
        attributes = {"autocomplete": "off"}
        password = UnfoldAdminPasswordWidget(render_value=False, attrs=attributes)
        super().__init__(
            label=label,
            required=False,
            strip=True,
            widget=UnfoldAdminTextareaWidget(attrs=attributes) if has_lines else password,
            help_text=_("Stored encrypted and never shown. Leave empty to keep the present one."),
        )


class SecretsForm(_ModelForm):
    """A form with `SecretField`s: where nothing was typed, the stored secret stays."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A stored secret would be a text area's first value.
        for name in self._secrets():
            self.initial.pop(name, None)

    def clean(self) -> dict[str, Any]:
        """Keep the stored secrets where none were typed."""
        super().clean()
        stored = {name: getattr(self.instance, name) for name in self._secrets() if not self.cleaned_data.get(name)}
        self.cleaned_data.update(stored)
        return self.cleaned_data

    def _secrets(self) -> list[str]:
        return [name for name, field in self.fields.items() if isinstance(field, SecretField)]


class SecretsModelAdmin(TenantModelAdmin):
    """A model with secrets: they are left out wherever the form would only show them."""

    form: type[SecretsForm] = SecretsForm

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Leave out the secrets, and groups of nothing else, for whoever may only look."""
        return self.shown_to(request, obj, super().get_fieldsets(request, obj))

    def shown_to(self, request: HttpRequest, obj: models.Model | None, groups: Any) -> Any:
        """Return what a person may see of groups of fields."""
        if self.has_change_permission(request, obj) if obj else self.has_add_permission(request):
            return groups
        secret = {name for name, field in self.form.base_fields.items() if isinstance(field, SecretField)}
        left = [
            (title, {**group, "fields": [n for n in group["fields"] if n not in secret]}) for title, group in groups
        ]
        return [(title, group) for title, group in left if group["fields"]]


class TriesRow:
    """Settings that can be tried at whoever they are for: a button above a row's form, which posts to `<row>/try/`.

    A class beside it says how, in `try_row`. Nothing is within a transaction there.
    """

    change_form_outer_before_template = "admin/try_row.html"
    try_label: "_StrOrPromise" = _("Try the settings")

    def try_row(self, request: HttpRequest, row: Any) -> tuple["_StrOrPromise", int]:
        """Try a row; return what to tell the person, and the message's level."""
        raise NotImplementedError

    def has_try_permission(self, request: HttpRequest) -> bool:
        """Let those try who may look."""
        return bool(self.has_view_permission(request))  # type: ignore[attr-defined]  # the class beside it

    def get_urls(self) -> list[Any]:
        """Add where the button posts to."""
        opts = self.opts  # type: ignore[attr-defined]  # as above
        view = self.admin_site.admin_view(self.try_view)  # type: ignore[attr-defined]  # as above
        name = f"{opts.app_label}_{opts.model_name}_try"
        return [path("<path:object_id>/try/", view, name=name), *super().get_urls()]  # type: ignore[misc]  # as above

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show the button to whoever may use it."""
        more = {"may_try": self.has_try_permission(request), "try_label": self.try_label, **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, more)  # type: ignore[misc]  # as above

    def try_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Try a row, say how it went, and go back to it."""
        row = self.get_object(request, unquote(object_id))  # type: ignore[attr-defined]  # as above
        if row is None or not self.has_try_permission(request):
            raise Http404
        if request.method == "POST":
            try:
                throttle.count(what="try_settings", who=str(row.tenant_id), limit=TRIES_PER_MINUTE, seconds=60)
                said, level = self.try_row(request, row)
            except ProductError as refused:
                said, level = str(refused.msg), messages.ERROR
            messages.add_message(request, level, str(said))
        return HttpResponseRedirect(self.page_after_try(request, row))

    def page_after_try(self, request: HttpRequest, row: Any) -> str:
        """Return where to go on: back to the row."""
        model_admin: Any = self
        name = f"{model_admin.admin_site.name}:{model_admin.opts.app_label}_{model_admin.opts.model_name}_change"
        return reverse(name, args=[row.pk])


class _NobodyWrites:
    """What the product's own code writes: no admin may touch it, the operator's neither."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse."""
        return False


class ReadOnlyOperatorModelAdmin(_NobodyWrites, OperatorModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """The platform's own rows, on the operator's site, to look at."""


class ReadOnlyTenantModelAdmin(_NobodyWrites, TenantModelAdmin):  # type: ignore[misc]  # as above
    """A tenant's rows, on both sites, to look at."""


def role_here(request: HttpRequest) -> str:
    """Return the role of the person who is logged in at the request's tenant, "" for one who has none."""
    membership = _membership(request, request.user)
    return "" if membership is None else membership.role


def site_here(request: HttpRequest) -> _Site:
    """Return the site of the request's host."""
    return admin.site if getattr(request, "tenant", None) is None else tenant_site  # type: ignore[return-value]  # ours


def list_url(request: HttpRequest, model: type[models.Model], **query: object) -> str:
    """Return the address of a model's list, filtered, on the site of the request; "" where the person may not look."""
    site = site_here(request)
    known = site._registry.get(model)  # noqa: SLF001  there is no public way to ask
    if known is None or not known.has_view_permission(request):
        return ""
    name = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return f"{reverse(name)}?{urlencode(query)}"


def _is_operator(request: HttpRequest) -> bool:
    return isinstance(request.user, StaffUser) and request.user.is_operator


def register(model: type[scope.TenantOwned], admin_class: type[TenantModelAdmin]) -> None:
    """Show a tenant-owned model on both sites."""
    admin.site.register(model, admin_class)
    tenant_site.register(model, admin_class)

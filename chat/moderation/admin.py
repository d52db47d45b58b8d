"""Moderation in the admin: words, how texts are checked, evidence, and a page to try a text on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from chat.moderation import words
from chat.moderation.models import Action, Category, ModerationHit, ModerationSettings, ModerationWord
from chat.moderation.question import Place, find
from chat.moderation.rules import lists_of
from chat.moderation.sheet import WordImporter
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.import_pages import ImportsRows
from tenants.models import Membership
from tenants.sheets import csv_response

if TYPE_CHECKING:
    _Form = forms.ModelForm[Any]
else:
    _Form = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role

logger = structlog.get_logger(__name__)

_EDITORS = frozenset({Role.OWNER, Role.CONTENT})
# Of a preview so many words are shown; all are counted.
SHOWN: Final = 200


class OwnedForm(_Form):
    """A form whose row has its tenant before it is checked."""

    tenant_id: ClassVar[int | None] = None  # of the site; None on the operator's, whose form asks for the tenant

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.tenant_id is not None:
            self.instance.tenant_id = self.tenant_id


class WordForm(OwnedForm):
    """A form that refuses in words what the list has."""

    def _get_validation_exclusions(self) -> set[str]:
        """Check the constraint on the fields that are set without the form."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # the stubs leave it out
        return excluded - {"tenant", "key"}


class _Editing(TenantModelAdmin):
    """What owners and content staff edit and support may look at; each change is in the log."""

    visible_to = _EDITORS | {Role.SUPPORT}
    editable_by = _EDITORS
    form = OwnedForm

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002  # Django's signature
        """Tell the form whose site it is on."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.tenant_id = self._tenant_id(request)
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and note who did."""
        super().save_model(request, obj, form, change)
        self._log("moderation_changed" if change else "moderation_added", request, obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete, and note who did."""
        self._log("moderation_deleted", request, obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete in one statement: lists are long, and each statement makes every process read them anew."""
        logger.info("moderation_deleted_many", staff=request.user.pk, count=queryset.count())
        super().delete_queryset(request, queryset)

    def _tenant_id(self, request: HttpRequest) -> int | None:
        """Return whose site it is, None for the operator's."""
        return None if self._on_platform else request.tenant.pk  # type: ignore[attr-defined]  # the middleware's

    def _log(self, event: str, request: HttpRequest, row: Any) -> None:
        logger.info(event, kind=row._meta.model_name, row=row.pk, tenant_id=row.tenant_id, staff=request.user.pk)


class PasteForm(forms.Form):
    """Words to add, one on each line."""

    pasted = forms.CharField(
        label=_("words"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 16}),
        help_text=_("One word on each line, or what the export gives: word, category, action."),
    )
    category = forms.ChoiceField(
        label=_("category"), choices=Category.choices, initial=Category.OTHER, widget=UnfoldAdminSelectWidget
    )
    action = forms.ChoiceField(
        label=_("action"), choices=Action.choices, initial=Action.BLOCK, widget=UnfoldAdminSelectWidget
    )


class TryForm(forms.Form):
    """A text to try the lists on."""

    text = forms.CharField(
        label=_("text"), strip=False, max_length=100_000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 10})
    )


class ModerationWordAdmin(ImportsRows, _Editing):  # type: ignore[misc]  # unfold's mix-ins
    """Words, one by one or many at once; on the operator's site the platform's list and every tenant's."""

    importer = WordImporter()
    form = WordForm
    list_display = ("word", "category", "action", "created_at")
    list_filter = ("action", "category")
    search_fields = ("word", "key")
    ordering = ("-id",)
    actions = ("export",)
    list_before_template: Any = "moderation/before_words.html"
    show_full_result_count = False

    def get_urls(self) -> list[Any]:
        """Add the pages for many words and for trying a text."""
        pages = (("paste", self.paste), ("try", self.try_text))
        return [
            *(
                path(f"{name}/", self.admin_site.admin_view(view), name=f"chat_moderationword_{name}")
                for name, view in pages
            ),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the ways to those pages above the list."""
        more = {
            "paste_url": self._url("paste") if self.has_add_permission(request) else "",
            "try_url": self._url("try"),
        }
        return super().changelist_view(request, {**(extra_context or {}), **more})

    def paste(self, request: HttpRequest) -> HttpResponse:
        """Show what many words would do, then add them; on the operator's site to the platform's list."""
        if not self.has_add_permission(request):
            return HttpResponse(status=403)
        form = PasteForm(request.POST or None)
        context: dict[str, Any] = {"title": _("Paste words"), "form": form}
        if form.is_valid():
            tenant_id = self._tenant_id(request)
            found = words.preview(tenant_id=tenant_id, **form.cleaned_data)
            if "confirmed" in request.POST:
                return self._add(request, found)
            context |= {"found": found, "some": found.new[:SHOWN], "confirming": bool(found.new)}
        return self._show(request, "moderation/paste.html", context)

    def try_text(self, request: HttpRequest) -> HttpResponse:
        """Show what a text would hit: in a tenant's lists and the platform's, on the operator's site in the latter."""
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        form = TryForm(request.POST or None)
        context: dict[str, Any] = {"title": _("Try a text"), "form": form}
        if form.is_valid():
            lists = lists_of(self._tenant_id(request))
            places = find(lists, form.cleaned_data["text"]) if lists else []
            context |= {"places": _shown(places, form.cleaned_data["text"]), "tried": True}
        return self._show(request, "moderation/try.html", context)

    @admin.action(description=_("Export as CSV"), permissions=["view"])
    def export(self, request: HttpRequest, rows: QuerySet[ModerationWord]) -> HttpResponse:
        """Answer with the chosen words, in the form that pasting takes."""
        logger.info("moderation_words_exported", staff=request.user.pk, tenant_id=self._tenant_id(request))
        lines = rows.order_by("category", "word").values_list("word", "category", "action")
        return csv_response(name="moderation-words", head=(), rows=lines.iterator())

    def _add(self, request: HttpRequest, found: words.Preview) -> HttpResponse:
        """Add a preview's words; the history has one entry for them all."""
        count = words.add(found.new)
        tenant_id = self._tenant_id(request)
        said = _("Words added: %(count)d.") % {"count": count}
        LogEntry.objects.create(
            user_id=int(request.user.pk or 0),
            content_type=ContentType.objects.get_for_model(ModerationWord),
            object_repr=str(self.opts.verbose_name_plural),
            action_flag=ADDITION,
            change_message=str(said),
        )
        logger.info("moderation_words_pasted", staff=request.user.pk, tenant_id=tenant_id, count=count)
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(self._url("changelist"))

    def _show(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "back": self._url("changelist")}
        return TemplateResponse(request, template, {**shared, **context})

    def _url(self, name: str) -> str:
        return reverse(f"{self.admin_site.name}:chat_moderationword_{name}")


def _shown(places: Iterable[Place], text: str) -> list[dict[str, Any]]:
    """Return hits for people: a little of the text on both sides of each."""
    sources = dict(ModerationHit.Source.choices)
    categories, actions = dict(Category.choices), dict(Action.choices)
    around = 20
    return [
        {
            "before": text[max(0, place.start - around) : place.start],
            "hit": text[place.start : place.end],
            "after": text[place.end : place.end + around],
            "word": place.hit.word.word,
            "source": sources[place.hit.word.source],
            "category": categories[place.hit.word.category],
            "action": actions[place.hit.word.action],
        }
        for place in places
    ]


class ModerationSettingsAdmin(_Editing):
    """How a tenant's texts are checked by others."""

    list_display = ("id", "wechat", "account", "checks_output", "when_away")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "account")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let a tenant that has no settings yet add them."""
        return super().has_add_permission(request) and not self.has_its_row(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModerationSettings]:
        """Bring the account along: the platform's cannot be looked up from a tenant's scope."""
        rows: QuerySet[ModerationSettings] = super().get_queryset(request)
        return rows.select_related("account")

    def get_exclude(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Leave an account of the platform's to the operator."""
        excluded = tuple(super().get_exclude(request, obj) or ())
        account = obj.account if isinstance(obj, ModerationSettings) else None
        is_platforms = account is not None and account.tenant_id is None
        return (*excluded, "account") if is_platforms and not self._on_platform else excluded

    def get_list_display(self, request: HttpRequest) -> Any:
        """Name accounts where they are everybody's to see."""
        columns = tuple(super().get_list_display(request))
        return columns if self._on_platform else tuple(name for name in columns if name != "account")


class ModerationHitAdmin(ReadOnlyTenantModelAdmin):
    """Evidence. The text, which is stored encrypted, shows on a hit's own page only."""

    visible_to = frozenset({Role.OWNER, Role.CONTENT, Role.SUPPORT})
    list_display = ("id", "created_at", "user", "direction", "action", "source", "about", "word", "message_id")
    fields = ("created_at", "user", "message_id", "direction", "action", "source", "about", "word", "text")
    list_filter = ("direction", "action", "source")
    list_select_related = ("tenant", "user")
    search_fields = ("=message_id", "word", "category", "user__username")
    search_help_text = _("A message's id, a word, a category, or a user name.")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    show_full_result_count = False

    @admin.display(description=_("category"), ordering="category")
    def about(self, row: ModerationHit) -> str:
        """Name the category; a checker's label of its own as it is."""
        return str(dict(Category.choices).get(row.category, row.category))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the text, and note who read it."""
        logger.info("moderation_evidence_read", staff=request.user.pk, hit=object_id)
        return super().change_view(request, object_id, form_url, extra_context)


for _model, _admin in (
    (ModerationWord, ModerationWordAdmin),
    (ModerationSettings, ModerationSettingsAdmin),
    (ModerationHit, ModerationHitAdmin),
):
    register(_model, _admin)

"""A user's page for staff, and conversations, which nobody opens without a reason.

What a user said is shown by one page alone: it asks why, and each look leaves a row (`ConversationLook`), a line in
the log and one in the conversation's history. Lists name conversations by their time, not by what was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import structlog
from django import forms
from django.contrib import admin
from django.contrib.admin import EmptyFieldListFilter
from django.db.models import Count, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.dataclasses import UnfoldAction
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import ledger
from billing.admin.money import CreditedUserAdmin, button
from billing.models import Entry, Hold, Order, UsageRecord
from billing.models.account import USER_KINDS
from billing.yuan import show_money
from chat.attachments import data_url, listed
from chat.models import Attachment, Conversation, ConversationLook, Message
from tenants import avatars
from tenants.adminsite import ReadOnlyTenantModelAdmin, list_url
from tenants.exports import ExportsRows
from tenants.filters import DaysFilter
from tenants.models import EndUser, Membership, StaffUser

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

logger = structlog.get_logger(__name__)

Role = Membership.Role

_SUPPORT: Final = frozenset({Role.OWNER.value, Role.SUPPORT.value})
# Of each list so many rows are on a user's page; all are a click away.
SHOWN: Final = 8
# Of a conversation so many messages, the last ones, are shown at once.
MOST_MESSAGES: Final = 200
# And so many of the pictures in them, the last ones; the page holds them itself, so that a look at it is all there is.
MOST_PICTURES: Final = 20
_USED_DAYS: Final = 30


class ReasonForm(forms.Form):
    """Why something is done."""

    reason = forms.CharField(label=_("reason"), max_length=200, min_length=4, widget=UnfoldAdminTextInputWidget())


@dataclass(frozen=True, kw_only=True)
class Part:
    """A list on a user's page: its last rows, each a link and some words, and the way to all of them."""

    title: "_StrOrPromise"
    url: str
    rows: Sequence[tuple[str, Sequence[str]]]


class PersonAdmin(CreditedUserAdmin):
    """Users: found by name, phone, e-mail or number; blocked, credited, and looked at as a whole."""

    search_fields: ClassVar[Any] = ("=id", *CreditedUserAdmin.search_fields)
    actions_detail: Any = ("credit", "block", "unblock", "remove_avatar")
    change_form_outer_before_template = "people/person.html"  # type: ignore[assignment]  # unfold says None
    show_full_result_count = False
    ordering = ("-id",)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Offer to remove a picture where there is one."""
        offered: list[UnfoldAction] = super().get_actions_detail(request, object_id)
        is_there = request.__dict__.get("has_avatar", False)
        return [act for act in offered if is_there or not act.action_name.endswith("_remove_avatar")]

    def has_blocking_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """Let in who may block users."""
        return self._admits(request, _SUPPORT)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show what there is of the user above the form."""
        user = self.get_object(request, object_id)
        more = {} if user is None or not self.has_view_permission(request) else self._about(request, user)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})

    @button(description=_("Block"), url_path="block", permissions=["blocking"])
    def block(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let a user in no more, with a reason: tokens, keys and links of theirs stop at once."""
        return self._set_active(request, object_id, is_active=False)

    @button(description=_("Unblock"), url_path="unblock", permissions=["blocking"])
    def unblock(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let a user in again, with a reason."""
        return self._set_active(request, object_id, is_active=True)

    def has_avatar_permission(self, request: HttpRequest, _object_id: object = None) -> bool:
        """Let in who may remove users' pictures."""
        return self._admits(request, _SUPPORT)

    @button(description=_("Remove avatar"), url_path="remove-avatar", permissions=["avatar"])
    def remove_avatar(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Erase a user's picture, with a reason; nothing keeps them from another one."""
        user: EndUser = self._row(request, object_id)
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            return self.show_form(request, form, _("Remove avatar"), user)
        removed = avatars.remove(user)
        logger.info("avatar_removed", staff=request.user.pk, tenant_id=user.tenant_id, user=user.pk, removed=removed)
        said = (
            gettext("Avatar removed. Reason: %(reason)s")
            if removed
            else gettext("There was no avatar. Reason: %(reason)s")
        )
        return self._done(request, user, said % {"reason": form.cleaned_data["reason"]})

    def _set_active(self, request: HttpRequest, object_id: str, *, is_active: bool) -> HttpResponse:
        user: EndUser = self._row(request, object_id)
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            return self.show_form(request, form, _("Unblock") if is_active else _("Block"), user)
        changed = EndUser.objects.filter(pk=user.pk).exclude(is_active=is_active).update(is_active=is_active)
        reason = form.cleaned_data["reason"]
        logger.info(
            "user_unblocked" if is_active else "user_blocked",
            staff=request.user.pk,
            tenant_id=user.tenant_id,
            user=user.pk,
            changed=bool(changed),
        )
        said = gettext("Unblocked. Reason: %(reason)s") if is_active else gettext("Blocked. Reason: %(reason)s")
        return self._done(request, user, said % {"reason": reason})

    def _about(self, request: HttpRequest, user: EndUser) -> dict[str, Any]:
        parts = [
            _conversations(request, user),
            _orders(request, user),
            _entries(request, user),
            _answers(request, user),
        ]
        found = avatars.of(user)
        request.__dict__["has_avatar"] = found is not None
        return {
            "avatar": avatars.data_url(found) if found else "",
            "facts": _facts(user),
            "parts": [part for part in parts if part is not None],
        }


def _facts(user: EndUser) -> list[tuple["_StrOrPromise", str]]:
    has = ledger.balances(tenant_id=user.tenant_id, user_id=user.pk)
    since = timezone.localdate() - timedelta(days=_USED_DAYS)
    used = UsageRecord.objects.filter(tenant=user.tenant_id, user=user, day__gte=since)
    sums = used.aggregate(answers=Count("pk"), charge=Sum("charge"))
    return [
        (_("balance"), show_money(has.cash)),
        (_("gift balance"), show_money(has.gift)),
        (_("frozen"), show_money(has.pending)),
        (_("answers in 30 days"), str(sums["answers"])),
        (_("charged in 30 days"), show_money(sums["charge"] or 0)),
    ]


def _conversations(request: HttpRequest, user: EndUser) -> Part | None:
    if not (url := list_url(request, Conversation, user__id__exact=user.pk)):
        return None
    rows = Conversation.objects.filter(tenant=user.tenant_id, user=user).order_by("-updated_at")
    counted = rows.annotate(count=Count("messages"))[:SHOWN]
    return Part(
        title=_("Conversations"),
        url=url,
        rows=[(_page(url, row.pk), (_moment(row.updated_at), _messages(row.count))) for row in counted],
    )


def _orders(request: HttpRequest, user: EndUser) -> Part | None:
    if not (url := list_url(request, Order, user__id__exact=user.pk)):
        return None
    rows = Order.objects.filter(tenant=user.tenant_id, user=user).order_by("-id")[:SHOWN]
    return Part(
        title=_("Orders"),
        url=url,
        rows=[
            (
                _page(url, row.pk),
                (_moment(row.created_at), row.package_name, show_money(row.price), row.get_state_display()),
            )
            for row in rows
        ],
    )


def _entries(request: HttpRequest, user: EndUser) -> Part | None:
    if not (url := list_url(request, Entry, account__user__id__exact=user.pk)):
        return None
    rows = Entry.objects.filter(tenant=user.tenant_id, account__user=user, account__kind__in=USER_KINDS).select_related(
        "transfer", "account"
    )
    return Part(
        title=_("Ledger"),
        url=url,
        rows=[
            (
                _page(url, row.pk),
                (
                    _moment(row.transfer.created_at),
                    row.transfer.get_kind_display(),
                    show_money(row.amount),
                    row.transfer.reason,
                ),
            )
            for row in rows.order_by("-id")[:SHOWN]
        ],
    )


def _answers(request: HttpRequest, user: EndUser) -> Part | None:
    if not (url := list_url(request, Hold, user__id__exact=user.pk)):
        return None
    rows = Hold.objects.filter(tenant=user.tenant_id, user=user).order_by("-created_at")[:SHOWN]
    return Part(
        title=_("Answers"),
        url=url,
        rows=[
            (
                _page(url, row.pk),
                (_moment(row.created_at), row.sku, show_money(row.charge), row.get_state_display()),
            )
            for row in rows
        ],
    )


def _page(list_address: str, pk: object) -> str:
    return f"{list_address.partition('?')[0]}{pk}/change/"


def _moment(moment: Any) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


def _messages(count: int) -> str:
    return ngettext("%(count)d message", "%(count)d messages", count) % {"count": count}


class ConversationAdmin(ReadOnlyTenantModelAdmin):
    """Conversations, for support: by their time; what was said in one is shown for a reason."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "created_at", "updated_at", "deleted_at")
    list_filter = (("deleted_at", EmptyFieldListFilter), ("updated_at", DaysFilter))
    list_filter_submit = True
    list_select_related = ("tenant", "user")
    search_fields = ("user__username", "user__phone", "user__email", "user__nickname")
    ordering = ("-id",)  # they are numbered by their time
    show_full_result_count = False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask why, then show what was said; asked again for each look."""
        conversation: Conversation | None = self.get_object(request, object_id)
        if conversation is None or not self.has_view_permission(request, conversation):
            raise Http404
        form = ReasonForm(request.POST or None)
        said: list[Message] = []
        is_open = form.is_valid()
        if is_open:
            self._note(request, conversation, form.cleaned_data["reason"])
            messages = Message.objects.filter(tenant=conversation.tenant_id, conversation=conversation)
            said = _with_files(list(messages.order_by("-created_at", "-pk")[:MOST_MESSAGES])[::-1])
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Conversation"),
            "conversation": conversation,
            "form": form,
            "is_open": is_open,
            "said": said,
            "most": MOST_MESSAGES,
            "back": reverse(f"{self.admin_site.name}:chat_conversation_changelist"),
            "looks_url": list_url(request, ConversationLook, conversation__id__exact=conversation.pk),
        }
        return TemplateResponse(request, "people/conversation.html", context)

    def _note(self, request: HttpRequest, conversation: Conversation, reason: str) -> None:
        """Leave a trace, before anything is shown."""
        staff = cast("StaffUser", request.user)
        ConversationLook.objects.create(
            tenant_id=conversation.tenant_id,
            conversation=conversation,
            user_id=conversation.user_id,
            staff=staff,
            staff_name=staff.get_username(),
            reason=reason,
        )
        self.log_change(request, conversation, gettext("Looked at. Reason: %(reason)s") % {"reason": reason})
        logger.info(
            "conversation_looked_at",
            staff=staff.pk,
            tenant_id=conversation.tenant_id,
            conversation=str(conversation.pk),
        )


def _with_files(said: list[Message]) -> list[Message]:
    """Give each message its attachments, the last pictures to be seen and all texts to be read."""
    ids = [each for message in listed(said) for each in message.attachments]
    rows = Attachment.objects.filter(tenant=said[0].tenant_id, pk__in=ids) if ids else Attachment.objects.none()
    pictures = {row.pk: row for row in rows.filter(kind=Attachment.Kind.IMAGE).order_by("-pk")[:MOST_PICTURES]}
    texts = dict(rows.filter(kind=Attachment.Kind.TEXT).values_list("pk", "text"))
    for message in said:
        for file in message.files:  # type: ignore[attr-defined]  # `listed` put them there
            file.shown = data_url(pictures[file.pk]) if file.pk in pictures else ""
            file.read = texts.get(file.pk, "")
    return said


class ConversationLookAdmin(ExportsRows, ReadOnlyTenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Who has read which conversation, and why: for owners."""

    visible_to: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value})
    list_display = ("created_at", "staff_name", "reason", "user", "conversation_link")
    list_filter = (("created_at", DaysFilter),)
    list_filter_submit = True
    list_select_related = ("tenant", "user")
    search_fields = ("staff_name", "reason", "user__username", "user__nickname")
    ordering = ("-id",)
    fields = ("created_at", "staff_name", "reason", "user", "conversation_link")

    @admin.display(description=_("conversation"))
    def conversation_link(self, row: ConversationLook) -> str:
        """Lead to the conversation."""
        page = reverse(f"{self.admin_site.name}:chat_conversation_change", args=[row.conversation_id])
        return format_html('<a href="{}">{}</a>', page, row.conversation_id)


class MessageAdmin(ReadOnlyTenantModelAdmin):
    """Questions and answers with their receipts, for support: what they say is shown with their conversation alone."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "offer_slug", "api_key", "state", "finish_reason", "created_at", "ended_at")
    list_filter = ("state", ("created_at", DaysFilter))
    list_filter_submit = True
    list_select_related = ("tenant", "user", "api_key")
    search_fields = ("=id", "=conversation__id", "user__username")
    exclude = ("question", "attachments", "reasoning", "answer")
    ordering = ("-id",)  # they are numbered by their time
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave unread what is not shown."""
        return super().get_queryset(request).defer("question", "reasoning", "answer")

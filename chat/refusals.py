"""What a turn's people are told when it fails, in their language; the upstream's own words stay in the log."""

from datetime import datetime

from django.utils.translation import gettext_lazy as _

from chat.events import FailureKind
from tenants.errors import ErrorCode, ProductError


def upstream_failed(kind: FailureKind) -> ProductError:
    """500, or what the provider's refusal is to the person who asked; nothing was charged."""
    if kind is FailureKind.CONTEXT_TOO_LONG:
        return too_long()
    if kind is FailureKind.CONTENT:
        return ProductError(
            ErrorCode.MODERATED,
            _("The model refused this content. Please put it another way; nothing was charged."),
            type="content_refused",
            scope="message",
            action="rephrase",
        )
    return ProductError(
        ErrorCode.UPSTREAM,
        _("The model cannot answer at the moment. Nothing was charged; please try again."),
        type="upstream_failed",
        scope="model",
        action="retry",
    )


def too_long() -> ProductError:
    """10001: the text, or the conversation with it, does not fit the model's window."""
    return ProductError(
        ErrorCode.INVALID,
        _("The message is too long for this model. Please shorten it or split it up."),
        type="message_too_long",
        scope="message",
        action="shorten",
    )


def no_images(*, scope: str = "messages") -> ProductError:
    """10001: the model takes text only; `scope` is the parameter that has the images."""
    return ProductError(
        ErrorCode.INVALID,
        _("This model takes no images. Please choose another one."),
        type="images_not_taken",
        scope=scope,
        action="choose_model",
    )


def attachment_not_taken() -> ProductError:
    """10001: neither a picture nor a text that can be read here."""
    return ProductError(
        ErrorCode.INVALID,
        _("This file cannot be read here. Pictures (JPEG, PNG, WebP, GIF) and text files can be sent."),
        type="attachment_not_taken",
        scope="file",
        action="choose_file",
    )


def attachment_too_large(measure: str, *, limit: int) -> ProductError:
    """10001: the file has more than `limit` of a `measure`: "bytes", "pixels", "characters"."""
    return ProductError(
        ErrorCode.INVALID,
        _("This file is too large. Please choose a smaller one, or send a part of it."),
        type="attachment_too_large",
        scope="file",
        action="choose_file",
        measure=measure,
        limit=limit,
    )


def too_many_attachments(*, limit: int) -> ProductError:
    """10001: more than a message may have."""
    return ProductError(
        ErrorCode.INVALID,
        _("So many files cannot be sent at once. Please send some of them with another message."),
        type="too_many_attachments",
        scope="attachments",
        action="split",
        limit=limit,
    )


def attachments_full(*, used: int, limit: int) -> ProductError:
    """102: a user's attachments take as many bytes as one may have; conversations that are deleted free theirs."""
    return ProductError(
        ErrorCode.QUOTA,
        _("Your files take all the room that there is. Please delete conversations that you no longer need."),
        type="attachments_full",
        scope="user",
        action="delete_conversations",
        reset_at=None,
        used=used,
        limit=limit,
    )


def attachment_not_found() -> ProductError:
    """404: no such attachment of the user's, or one of another conversation; what was never sent goes after a day."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This file is no longer there. Please attach it again."),
        type="attachment_not_found",
        scope="attachments",
        action="attach_again",
    )


def cut_short() -> ProductError:
    """0: the upstream broke off after its first output; what came is kept and charged (docs/adr/0003)."""
    return ProductError(
        ErrorCode.OTHER,
        _("The answer broke off. Only what was generated has been charged; please send the message again."),
        type="answer_cut_short",
        scope="model",
        action="retry",
    )


def stopped() -> ProductError:
    """0: the answer was stopped before its first output."""
    return ProductError(
        ErrorCode.OTHER,
        _("The answer was stopped before it began. Nothing was charged."),
        type="answer_stopped",
        scope="message",
        action="resend",
    )


def gave_up() -> ProductError:
    """0: the turn could not be ended; its hold frees itself."""
    return ProductError(
        ErrorCode.OTHER,
        _("The answer could not be saved. Please look at your history in a few minutes."),
        type="turn_not_saved",
        scope="message",
        action="wait",
    )


def expired() -> ProductError:
    """0: the hold was freed before the answer was whole."""
    return ProductError(
        ErrorCode.OTHER,
        _("The answer took too long and was given up. Nothing was charged; please try again."),
        type="turn_expired",
        scope="message",
        action="retry",
    )


def too_many_answers(whose: str, *, used: int, limit: int, reset_at: datetime) -> ProductError:
    """102: as many answers are running as may, of the user, of this process, or on this socket, as `whose` says."""
    return ProductError(
        ErrorCode.QUOTA,
        _("Too many answers are being written at the moment. Please wait a few seconds and try again."),
        type="too_many_answers",
        scope=whose,
        action="wait",
        reset_at=reset_at,
        used=used,
        limit=limit,
    )


def nothing_to_share() -> ProductError:
    """10001: a conversation without an answer."""
    return ProductError(
        ErrorCode.INVALID,
        _("There is no answer in this conversation yet, so there is nothing to share."),
        type="nothing_to_share",
        scope="conversation",
        action="wait",
    )


def share_not_found() -> ProductError:
    """404: no such link, or message in it; one that was revoked or has expired is none either."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This shared conversation does not exist, or is shared no longer."),
        type="share_not_found",
        scope="share",
        action="ask_for_link",
    )


def announcement_not_found() -> ProductError:
    """404: no announcement that the user is told today."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This announcement does not exist."),
        type="announcement_not_found",
        scope="announcement",
        action="reload",
    )


def model_not_found() -> ProductError:
    """404: no such model is offered here, or not to this API key."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This model is not available. Please choose another one."),
        type="model_not_found",
        scope="model",
        action="choose_model",
    )


def request_refused() -> ProductError:
    """10001: the provider refuses a program's request for what is in it; its own words name the provider."""
    return ProductError(
        ErrorCode.INVALID,
        _("The model refused this request: it may not support one of the parameters. Nothing was charged."),
        type="request_refused",
        scope="model",
        action="correct",
    )


def api_key_invalid() -> ProductError:
    """-1: no API key that is good here."""
    return ProductError(
        ErrorCode.LOGIN,
        _("This API key is not valid. Please check it, or make a new one."),
        type="api_key_invalid",
        scope="api_key",
    )


def api_key_limit_reached(*, used: int, limit: int) -> ProductError:
    """102: the key's spending limit does not cover the call; amounts in micro-yuan, running calls included."""
    return ProductError(
        ErrorCode.QUOTA,
        _("The spending limit of this API key does not cover this request. Please raise it, or use another key."),
        type="api_key_limit_reached",
        scope="api_key",
        action="raise_limit",
        reset_at=None,
        used=str(used),
        limit=str(limit),
    )

"""What a person is told whose question, or whose answer, is refused."""

from enum import StrEnum

from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError


class Refused(StrEnum):
    """Which text was refused, and whether for what it holds or because nobody could say. NOTHING is no refusal."""

    NOTHING = ""
    QUESTION = "question"
    ANSWER = "answer"
    QUESTION_UNCHECKED = "question_unchecked"
    ANSWER_UNCHECKED = "answer_unchecked"


def refusal(refused: Refused, *, is_charged: bool) -> ProductError:
    """11000: the refusal of a text; `is_charged` where a part of the answer was shown before."""
    if refused in {Refused.QUESTION_UNCHECKED, Refused.ANSWER_UNCHECKED}:
        return _unchecked(is_charged=is_charged)
    if refused is Refused.QUESTION:
        return question_refused()
    message = (
        _("The answer was ended here because of content that is not allowed. Only what was generated is charged.")
        if is_charged
        else _("The answer holds content that is not allowed, so it is not shown. Nothing was charged.")
    )
    return ProductError(ErrorCode.MODERATED, message, type="answer_refused", scope="answer", action="rephrase")


def question_refused() -> ProductError:
    """11000: the question holds what the tenant or the platform does not allow; the model was not called."""
    return ProductError(
        ErrorCode.MODERATED,
        _("This message holds content that is not allowed here. Please put it another way; nothing was charged."),
        type="question_refused",
        scope="message",
        action="rephrase",
    )


def _unchecked(*, is_charged: bool) -> ProductError:
    message = (
        _("The rest of the answer could not be checked, so it is not shown. Only what was generated is charged.")
        if is_charged
        else _("The content could not be checked just now. Nothing was charged; please try again.")
    )
    return ProductError(ErrorCode.MODERATED, message, type="content_unchecked", scope="message", action="retry")

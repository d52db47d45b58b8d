"""What goes wrong with text messages, in words that every provider's are translated into."""

from enum import StrEnum


class SmsFailure(StrEnum):
    """Why a text message did not go out."""

    NUMBER = "number"  # the provider knows no such phone, or may not write to it
    TOO_OFTEN = "too_often"  # the provider's own limit for this phone
    AWAY = "away"  # no answer, or a fault there: worth another try
    SETUP = "setup"  # keys, signature, template or money: only whoever owns the account can mend it


class SmsFailedError(Exception):
    """A text message did not go out. Its text is for the log, and holds neither phone nor secret."""

    def __init__(self, failure: SmsFailure, said: str) -> None:
        super().__init__(f"{failure}: {said}")
        self.failure = failure
        self.said = said

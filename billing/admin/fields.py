"""A form field that takes an amount as people write it, in yuan, where a row has micro-yuan."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.ledger import MAX_AMOUNT
from billing.models.recharge import FEN
from billing.yuan import parse_yuan, show_yuan

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


class YuanField(forms.CharField):
    """Takes yuan; gives micro-yuan from `least` to `most`, in whole fen where `least` is one."""

    def __init__(
        self,
        *,
        label: "_StrOrPromise",
        help_text: "_StrOrPromise" = "",
        initial: str | None = None,
        least: int = 1,
        most: int = MAX_AMOUNT,
    ) -> None:
        widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
        super().__init__(label=label, help_text=help_text, initial=initial, max_length=16, widget=widget)
        self._least, self._most, self._step = least, most, FEN if least == FEN else 1

    def prepare_value(self, value: Any) -> Any:
        """Show a stored amount in yuan, and what was typed as it was typed."""
        return show_yuan(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int:
        """Return micro-yuan."""
        try:
            amount = parse_yuan(super().clean(value))
        except ValueError:
            amount = -1
        if not self._least <= amount <= self._most or amount % self._step:
            text = _(
                "An amount such as 10 or 0.50 is wanted, from %(least)s to %(most)s, with at most %(places)d decimals."
            )
            bounds = {"least": show_yuan(self._least), "most": show_yuan(self._most)}
            raise forms.ValidationError(text % {**bounds, "places": 2 if self._step == FEN else 6})
        return amount

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare amounts, not how they are written."""
        try:
            return bool(parse_yuan(str(data).strip()) != initial)
        except ValueError:
            return True

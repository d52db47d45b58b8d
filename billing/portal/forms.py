"""Forms of the portal: plain fields, amounts in yuan, shares in percent."""

from typing import TYPE_CHECKING, Any

from django import forms

from billing.admin.fields import YuanField
from billing.admin.resale import PercentField

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


def yuan(label: "_StrOrPromise", **fields: Any) -> YuanField:
    """Return a field that takes yuan and gives micro-yuan."""
    field = YuanField(label=label, **fields)
    field.widget = forms.TextInput(attrs={"inputmode": "decimal", "maxlength": 16})
    return field


def percent(label: "_StrOrPromise", **fields: Any) -> PercentField:
    """Return a field that takes percent and gives millionths."""
    return PercentField(label=label, max_length=10, widget=forms.TextInput(attrs={"inputmode": "decimal"}), **fields)

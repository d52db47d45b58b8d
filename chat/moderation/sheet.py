"""Words from a sheet; what the list has stays as it is there."""

from collections.abc import Sequence

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from chat.moderation import words
from chat.moderation.models import MAX_WORD_CHARACTERS, Action, Category, ModerationWord, key_of
from tenants import scope
from tenants.imports import Column, Fault, Line, Plan, Planned
from tenants.models import StaffUser, Tenant


class WordImporter:
    """Adds words, refused unless a line says otherwise."""

    columns: Sequence[Column] = (
        Column(name="word", label=gettext_lazy("word"), example=gettext_lazy("casino"), is_wanted=True),
        Column(
            name="category",
            label=gettext_lazy("category: politics, porn, violence, abuse, illegal, advertising, other"),
            example="illegal",
        ),
        Column(name="action", label=gettext_lazy("action: block, mask, flag, allow"), example="block"),
    )

    def plan(self, lines: Sequence[Line]) -> Plan:
        """Say what lines would do."""
        plan = Plan()
        tenant_id = scope.current_tenant_id()
        known = set(ModerationWord.objects.values_list("key", flat=True))
        for line in lines:
            word = line.cells["word"]
            category = line.cells["category"] or Category.OTHER.value
            action = line.cells["action"] or Action.BLOCK.value
            key = key_of(word)
            if not key.strip("*") or len(word) > MAX_WORD_CHARACTERS:
                plan.faults.append(
                    Fault(line.number, _("No word of 1 to 64 characters that could be found in a text."))
                )
            elif category not in Category.values or action not in Action.values:
                plan.faults.append(Fault(line.number, _("Category or action is none of those that there are.")))
            elif key in known:
                plan.same += 1
            else:
                known.add(key)
                row = ModerationWord(tenant_id=tenant_id, word=word, key=key, category=category, action=action)
                plan.adds.append(Planned(line.number, (word, category, action), row))
        return plan

    def write(self, plan: Plan, *, tenant: Tenant, staff: StaffUser) -> None:  # noqa: ARG002  # as the contract has it
        """Write."""
        words.add(planned.data for planned in plan.adds)

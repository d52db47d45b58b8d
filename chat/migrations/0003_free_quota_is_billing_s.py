"""What is free of a quota group is a rule of billing: the largest of its offers' numbers, for guests in all."""

from django.db import migrations

TO_RULES = """
INSERT INTO billing_freequota (tenant_id, quota_group, per_day, guest_allowance)
SELECT tenant_id, quota_group, max(free_per_day), max(free_per_day) FROM chat_modeloffer
GROUP BY tenant_id, quota_group HAVING max(free_per_day) > 0
ON CONFLICT DO NOTHING;
"""
TO_OFFERS = """
UPDATE chat_modeloffer SET free_per_day = rule.per_day FROM billing_freequota rule
WHERE rule.tenant_id = chat_modeloffer.tenant_id AND rule.quota_group = chat_modeloffer.quota_group;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0002_receipts_index"),
        ("billing", "0016_plans"),
    ]

    operations = [
        migrations.RunSQL(TO_RULES, TO_OFFERS),
        migrations.RemoveField(model_name="modeloffer", name="free_per_day"),
    ]

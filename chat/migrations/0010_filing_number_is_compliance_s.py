"""The filing number is the tenant's, beside all else that the law wants said: tenants.Compliance has it now."""

from django.db import migrations


def move(apps, schema_editor):
    rules, compliance = apps.get_model("chat", "ChatRules"), apps.get_model("tenants", "Compliance")
    for row in rules._base_manager.exclude(filing_number=""):
        compliance._base_manager.update_or_create(tenant_id=row.tenant_id, defaults={"model_filing": row.filing_number})


def move_back(apps, schema_editor):
    rules, compliance = apps.get_model("chat", "ChatRules"), apps.get_model("tenants", "Compliance")
    for row in compliance._base_manager.exclude(model_filing=""):
        rules._base_manager.update_or_create(tenant_id=row.tenant_id, defaults={"filing_number": row.model_filing})


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0009_looks"),
        ("tenants", "0011_compliance"),
    ]

    operations = [
        migrations.RunPython(move, move_back),
        migrations.RemoveField(model_name="chatrules", name="filing_number"),
    ]

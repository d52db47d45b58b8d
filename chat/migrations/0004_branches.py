import django.db.models.deletion
from django.db import migrations, models

import tenants.scope

# Until now a conversation was a row of turns: each follows the one before it.
PARENTS = """
    UPDATE chat_message SET parent_id = line.before
    FROM (
        SELECT id, lag(id) OVER (PARTITION BY tenant_id, conversation_id ORDER BY created_at, id) AS before
        FROM chat_message
    ) AS line
    WHERE chat_message.id = line.id AND line.before IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0003_free_quota_is_billing_s"),
        ("tenants", "0002_wechat_session_key"),
    ]

    operations = [
        migrations.AddField(
            model_name="message",
            name="parent",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.message",
                verbose_name="follows",
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="served_by",
            field=models.CharField(default="", editable=False, max_length=32, verbose_name="web process"),
        ),
        migrations.AddField(
            model_name="message",
            name="stop_asked_at",
            field=models.DateTimeField(editable=False, null=True, verbose_name="asked to stop"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("state", "running")), fields=["tenant", "user"], name="chat_message_running"
            ),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=tenants.scope.SameTenant(field="parent", name="chat_message_parent_fk"),
        ),
        migrations.RunSQL(PARENTS, migrations.RunSQL.noop),
    ]

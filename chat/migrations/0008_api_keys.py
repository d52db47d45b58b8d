import django.db.models.deletion
import tenants.scope
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_moderation"),
        ("tenants", "0002_wechat_session_key"),
    ]

    operations = [
        migrations.AddField(
            model_name="message",
            name="request_digest",
            field=models.CharField(default="", editable=False, max_length=64, verbose_name="digest of the request"),
        ),
        migrations.AddField(
            model_name="modeloffer",
            name="image_tokens",
            field=models.PositiveIntegerField(
                default=2000,
                help_text="For images that come by the API: so much is frozen for each. 0: the model takes none.",
                verbose_name="tokens that an image takes at most",
            ),
        ),
        migrations.AlterField(
            model_name="message",
            name="conversation",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="messages",
                to="chat.conversation",
                verbose_name="conversation",
            ),
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=64, verbose_name="name")),
                ("digest", models.CharField(editable=False, max_length=64, verbose_name="digest")),
                ("last4", models.CharField(editable=False, max_length=4, verbose_name="last four characters")),
                (
                    "allowed_models",
                    models.JSONField(
                        blank=True, default=list, help_text="Slugs; empty: all.", verbose_name="allowed models"
                    ),
                ),
                (
                    "spend_limit",
                    models.BigIntegerField(blank=True, null=True, verbose_name="spending limit, micro-yuan"),
                ),
                ("spent", models.BigIntegerField(default=0, editable=False, verbose_name="spent, micro-yuan")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                ("last_used_at", models.DateTimeField(blank=True, null=True, verbose_name="last used")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                        verbose_name="tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.enduser",
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "verbose_name_plural": "API keys",
                "abstract": False,
                "base_manager_name": "objects",
                "default_manager_name": "objects",
            },
        ),
        migrations.AddField(
            model_name="message",
            name="api_key",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="chat.apikey",
                verbose_name="API key",
            ),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["tenant", "user"], name="chat_apikey_user"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="chat_apikey_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=tenants.scope.SameTenant(field="user", name="chat_apikey_user_fk"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.UniqueConstraint(fields=("tenant", "digest"), name="chat_apikey_digest"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("digest__regex", "^[0-9a-f]{64}$")), name="chat_apikey_hashed"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("spent__gte", 0), models.Q(("spend_limit__isnull", True), ("spend_limit__gte", 0), _connector="OR")
                ),
                name="chat_apikey_amounts",
            ),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("api_key__isnull", False)),
                fields=["tenant", "user", "request_digest", "created_at"],
                name="chat_message_calls",
            ),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=tenants.scope.SameTenant(field="api_key", name="chat_message_api_key_fk"),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("api_key__isnull", True), ("conversation__isnull", False)),
                    models.Q(
                        ("answer", ""), ("api_key__isnull", False), ("conversation__isnull", True), ("question", "")
                    ),
                    _connector="OR",
                ),
                name="chat_message_calls_keep_no_text",
            ),
        ),
    ]

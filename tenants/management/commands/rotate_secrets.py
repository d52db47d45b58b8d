"""`manage.py rotate_secrets`: put every stored secret under the first of ENCRYPTION_KEYS."""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import connection, models
from psycopg import sql

from tenants.secrets import EncryptedTextField, reencrypt


def _encrypted_fields() -> Iterator[tuple[type[models.Model], EncryptedTextField]]:
    for model in apps.get_models():
        for field in model._meta.local_concrete_fields:
            if isinstance(field, EncryptedTextField):
                yield model, field


def _rotate(model: type[models.Model], field: EncryptedTextField) -> int:
    """Re-encrypt one column, by the ciphertext itself: a row that someone changes meanwhile is newer, and stays."""
    names = {
        "table": sql.Identifier(model._meta.db_table),
        "key": sql.Identifier(str(model._meta.pk.column)),
        "column": sql.Identifier(str(field.column)),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {key}, {column} FROM {table} WHERE {column} <> ''").format(**names))
        rows = cursor.fetchall()
        update = sql.SQL("UPDATE {table} SET {column} = %s WHERE {key} = %s AND {column} = %s").format(**names)
        for key, ciphertext in rows:
            cursor.execute(update, [reencrypt(ciphertext), key, ciphertext])
    return len(rows)


class Command(BaseCommand):
    """Rotate the encryption key. Every tenant's rows are touched by plain SQL, which no scope binds."""

    help = "Re-encrypt every stored secret with the first of ENCRYPTION_KEYS; run it before an old key is dropped."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate each encrypted column and say how many secrets it had."""
        for model, field in _encrypted_fields():
            self.stdout.write(f"{model._meta.label}.{field.name}: {_rotate(model, field)}")

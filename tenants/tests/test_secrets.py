"""Secrets at rest: ciphertext in the database, rotation, and clear words where a key is missing."""

from io import StringIO

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from pytest_django import Settings

from tenants import scope
from tenants.models import MiniProgram
from tenants.secrets import decrypt, encrypt
from tests.factories import make_mini_program, make_tenant

pytestmark = pytest.mark.django_db

SECRET = "a-secret-nobody-may-read-7f3a"


def key() -> str:
    return Fernet.generate_key().decode()


def stored(program: MiniProgram) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM tenants_miniprogram WHERE id = %s", [program.pk])
        return str(cursor.fetchone()[0])


def read(program: MiniProgram) -> str:
    with scope.tenant(program.tenant_id):
        return MiniProgram.objects.get(pk=program.pk).secret


def test_a_secret_is_readable_in_python_and_not_in_the_database(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [key()]
    program = make_mini_program(make_tenant(), secret=SECRET)
    assert read(program) == SECRET
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(t)::text FROM tenants_miniprogram t WHERE id = %s", [program.pk])
        assert SECRET not in cursor.fetchone()[0]
    assert stored(program).startswith("gAAAA")
    assert stored(make_mini_program(make_tenant(), secret=SECRET)) != stored(program)


def test_an_update_in_bulk_encrypts_too(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [key()]
    program = make_mini_program(make_tenant())
    with scope.tenant(program.tenant_id):
        MiniProgram.objects.update(secret=SECRET)
    assert (read(program), SECRET in stored(program)) == (SECRET, False)


def test_no_secret_needs_no_key(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = []
    program = make_mini_program(make_tenant())
    assert (read(program), stored(program)) == ("", "")


def test_without_a_key_nothing_is_stored_in_clear(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = []
    tenant = make_tenant()
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS is empty"), transaction.atomic():
        make_mini_program(tenant, secret=SECRET)
    with scope.tenant(tenant.pk):
        assert MiniProgram.objects.count() == 0


def test_a_key_that_is_none(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = ["short"]
    with pytest.raises(ImproperlyConfigured, match="32 bytes"):
        encrypt(SECRET)


def test_a_dropped_key_is_named_as_the_cause_without_the_ciphertext(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [key()]
    ciphertext = encrypt(SECRET)
    settings.ENCRYPTION_KEYS = [key()]
    with pytest.raises(ImproperlyConfigured, match="opens with none") as caught:
        decrypt(ciphertext)
    assert ciphertext not in str(caught.value)


def test_a_secret_cannot_be_searched_for(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [key()]
    program = make_mini_program(make_tenant(), secret=SECRET)
    with scope.tenant(program.tenant_id):
        for lookup in ("secret", "secret__contains", "secret__in", "secret__startswith"):
            with pytest.raises(FieldError, match="cannot be searched"):
                MiniProgram.objects.filter(**{lookup: SECRET})
        assert MiniProgram.objects.filter(secret__isnull=False).count() == 1


def test_rotation(settings: Settings) -> None:
    old, new = key(), key()
    settings.ENCRYPTION_KEYS = [old]
    programs = [make_mini_program(make_tenant(), secret=f"{SECRET}{number}") for number in range(3)]
    empty = make_mini_program(make_tenant())
    settings.ENCRYPTION_KEYS = [new, old]
    assert [read(program) for program in programs] == [f"{SECRET}{number}" for number in range(3)]

    out = StringIO()
    call_command("rotate_secrets", stdout=out)

    assert "tenants.MiniProgram.secret: 3" in out.getvalue().splitlines()
    settings.ENCRYPTION_KEYS = [new]
    assert [read(program) for program in programs] == [f"{SECRET}{number}" for number in range(3)]
    assert stored(empty) == ""


def test_a_rotation_that_cannot_read_changes_nothing(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [key()]
    program = make_mini_program(make_tenant(), secret=SECRET)
    before = stored(program)
    settings.ENCRYPTION_KEYS = [key()]
    with pytest.raises(ImproperlyConfigured, match="opens with none"):
        call_command("rotate_secrets", stdout=StringIO())
    assert stored(program) == before

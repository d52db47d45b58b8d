"""Unsafe settings are refused, each by its own check."""

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core import checks
from pytest_django import Settings


def errors(*, deploy: bool) -> list[str]:
    found = checks.run_checks(include_deployment_checks=deploy)
    return [str(problem.id) for problem in found if str(problem.id).startswith("saas.E")]


@pytest.fixture
def safe(settings: Settings) -> Settings:
    settings.DEBUG = False
    settings.SECRET_KEY = "k" * 25 + "0123456789" * 3
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    return settings


def test_safe_settings_pass(safe: Settings) -> None:
    assert errors(deploy=True) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEBUG", True, ["saas.E001"]),
        ("SECRET_KEY", "insecure-only-for-tests-and-checks-never-for-people", ["saas.E002"]),
        ("SECRET_KEY", "short", ["saas.E002"]),
        ("ENCRYPTION_KEYS", [], ["saas.E005"]),
        ("ENCRYPTION_KEYS", ["no key"], ["saas.E006"]),
        ("ENCRYPTION_KEYS", [Fernet.generate_key().decode(), "", "x"], ["saas.E006", "saas.E006"]),
    ],
)
def test_an_unsafe_setting_is_found_before_production(
    safe: Settings, name: str, value: object, expected: list[str]
) -> None:
    setattr(safe, name, value)

    assert (errors(deploy=True), errors(deploy=False)) == (expected, [])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ATOMIC_REQUESTS": True}, "saas.E003"),
        ({"CONN_MAX_AGE": 60}, "saas.E004"),
        ({"CONN_MAX_AGE": None}, "saas.E004"),
        ({"ENGINE": "django.db.backends.sqlite3"}, "saas.E007"),
    ],
)
def test_an_unfit_database_setting_is_found_by_every_command(
    safe: Settings, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: str
) -> None:
    # Within the one dictionary, not through the fixture: Django warns of DATABASES that are replaced.
    for name, value in change.items():
        monkeypatch.setitem(safe.DATABASES["default"], name, value)

    assert errors(deploy=False) == [expected]


def test_a_message_names_the_bad_key_and_never_shows_it(safe: Settings) -> None:
    safe.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), "my-secret-but-malformed"]
    (problem,) = [found for found in checks.run_checks(include_deployment_checks=True) if found.id == "saas.E006"]

    assert problem.msg == "ENCRYPTION_KEYS: key 2 is not a key."
    assert "my-secret" not in str(problem)

"""One URL says how mail is sent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("BACKEND", "HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_TLS", "USE_SSL")


def mail_settings(url: str | None) -> dict[str, object]:
    """Read the settings in a process of its own, which has this EMAIL_URL or none."""
    code = f"""import json
from django.conf import settings
print(json.dumps({{name: getattr(settings, "EMAIL_" + name) for name in {NAMES!r}}}))"""
    environment = {name: value for name, value in os.environ.items() if name != "EMAIL_URL"}
    if url is not None:
        environment["EMAIL_URL"] = url
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(run.stdout)
    return found


def test_by_default_mail_is_printed() -> None:
    assert mail_settings(None) == {
        "BACKEND": "django.core.mail.backends.console.EmailBackend",
        "HOST": None,
        "PORT": None,
        "HOST_USER": None,
        "HOST_PASSWORD": None,
        "USE_TLS": False,
        "USE_SSL": False,
    }


@pytest.mark.parametrize(
    ("scheme", "tls", "ssl"), [("smtp", False, False), ("smtp+tls", True, False), ("smtp+ssl", False, True)]
)
def test_a_url_names_the_server(scheme: str, tls: bool, ssl: bool) -> None:  # noqa: FBT001  # from the table above
    assert mail_settings(f"{scheme}://ops%40example.com:a%23b@mail.example.com:587") == {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "HOST": "mail.example.com",
        "PORT": 587,
        "HOST_USER": "ops@example.com",
        "HOST_PASSWORD": "a#b",
        "USE_TLS": tls,
        "USE_SSL": ssl,
    }

"""The OpenAPI document says what is served, and the one in the repository is the one that is served."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from saas.openapi import as_text, document
from tests.factories import host_of, make_tenant

KEPT = Path(__file__).resolve().parent.parent.parent / "docs" / "openapi.json"


def test_the_document_in_the_repository_is_todays() -> None:
    assert KEPT.read_text("utf-8") == as_text(), "run `make openapi`"


@pytest.mark.django_db
def test_it_is_served_on_a_tenants_host() -> None:
    answer = Client(headers={"Host": host_of(make_tenant())}).get("/api/openapi.json")
    assert (answer.status_code, answer.json()) == (200, document())


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = document()["paths"]
    return [(path, method, operation) for path, methods in paths.items() for method, operation in methods.items()]


def test_whoever_needs_a_token_is_told_so() -> None:
    public = {path for path, _method, operation in operations() if "security" not in operation}
    assert public == {
        "/api/auth/avatars/{avatar}",
        "/api/auth/code",
        "/api/auth/code/login",
        "/api/auth/email/register",
        "/api/auth/guest",
        "/api/auth/login",
        "/api/auth/methods",
        "/api/auth/password/reset",
        "/api/auth/register",
        "/api/auth/wechat",
        "/api/auth/wechat/h5/back",
        "/api/auth/wechat/h5/finish",
        "/api/auth/wechat/h5/start",
        "/api/chat/front",
        "/api/chat/shared/{token}",
        "/api/chat/shared/{token}/attachments/{attachment_id}",
        "/api/chat/shared/{token}/report",
        "/api/opening/proof",
        "/api/payments/{slug}/{channel}/{account_id}/notify",
        "/api/site",
    }


def test_every_operation_and_schema_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _path, _method, operation in operations()]
    assert len(names) == len(set(names))
    told = json.dumps(document())
    named = {name.split('"')[0] for name in told.split('"#/components/schemas/')[1:]}
    assert named - set(document()["components"]["schemas"]) == set()


def test_every_json_operation_says_what_a_refusal_is() -> None:
    silent = [path for path, _method, operation in operations() if "default" not in operation["responses"]]
    assert silent == ["/api/chat/stream", "/api/chat/stream"]  # its status is always 200

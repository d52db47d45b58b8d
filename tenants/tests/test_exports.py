"""Lists as files: whose rows are in them, who may take them along, and what a spreadsheet makes of them."""

import csv
from io import StringIO
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tenants import exports
from tenants.tests.conftest import House
from tests.factories import make_operator, make_staff, make_user

pytestmark = pytest.mark.django_db


def client_of(house: House, role: str = "owner") -> Client:
    client = Client(headers={"host": house.host})
    client.force_login(make_staff(house.tenant, role=role))
    return client


def ask(client: Any, site: str = "admin", model: str = "tenants/enduser", query: str = "", **more: str) -> Any:
    form = {"action": "export_csv", "select_across": "1", "_selected_action": "0", **more}
    return client.post(f"/{site}/{model}/{query}", form)


def rows_of(response: Any) -> list[list[str]]:
    text = b"".join(response.streaming_content).decode()
    assert text[0] == "\ufeff"
    return list(csv.reader(StringIO(text[1:])))


@pytest.mark.parametrize("role", ["owner", "finance"])
def test_a_tenants_file_has_its_own_rows_and_the_lists_columns(aurora: House, lotus: House, role: str) -> None:
    make_user(aurora.tenant, username="zoe", nickname="=1+1", phone="+8613900000000")
    response = ask(client_of(aurora, role))
    assert response["Content-Disposition"] == f'attachment; filename="enduser-{timezone.localdate():%Y-%m-%d}.csv"'
    head, *rows = rows_of(response)
    assert head[1:6] == ["user name", "phone", "e-mail", "nickname", "guest"]
    assert (rows[0][1], rows[0][2], rows[0][4], rows[0][5]) == ("zoe", "+8613900000000", "'=1+1", "no")
    assert (len(rows), lotus.alice.nickname in {row[4] for row in rows}) == (2, False)


def test_the_filters_and_the_selection_say_which(aurora: House) -> None:
    zoe = make_user(aurora.tenant, username="zoe")
    client = client_of(aurora)
    assert [row[1] for row in rows_of(ask(client, query="?q=zoe"))[1:]] == ["zoe"]
    chosen = ask(client, select_across="0", _selected_action=str(zoe.pk))
    assert [row[1] for row in rows_of(chosen)[1:]] == ["zoe"]
    nothing = rows_of(ask(client, query="?created_at_from=2100-01-01"))
    assert len(nothing) == 1


def test_several_batches_are_one_file(aurora: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "BATCH", 2)
    made = [make_user(aurora.tenant).username for _ in range(3)]
    names = [row[1] for row in rows_of(ask(client_of(aurora)))[1:]]
    assert names[:3] == made[::-1]
    assert len(names) == 4


@pytest.mark.parametrize("role", ["support", "content"])
def test_other_roles_get_no_file(aurora: House, role: str) -> None:
    response = ask(client_of(aurora, role))
    # Support may see the list, and its form knows no such action.
    assert (response.status_code, response.streaming) == (200 if role == "support" else 403, False)


def test_the_operators_file_has_everybodys_rows_and_whose_they_are(aurora: House, lotus: House) -> None:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    head, *rows = rows_of(ask(client, site="platform"))
    names = {aurora.tenant.name, lotus.tenant.name}
    assert (head[-1], names <= {row[-1] for row in rows} or len(rows) > 1) == ("tenant", True)


def test_other_tenants_staff_get_nothing(aurora: House, lotus: House) -> None:
    client = Client(headers={"host": aurora.host})
    client.force_login(make_staff(lotus.tenant))
    response = ask(client)
    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/tenants/enduser/")

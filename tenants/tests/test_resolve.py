"""Which tenant a request is for, in every combination of host, app id and referer."""

from dataclasses import dataclass
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from tenants import resolve
from tenants.errors import ErrorCode, ProductError
from tenants.models import Tenant
from tenants.resolve import host_name, resolve_tenant
from tests.factories import host_of, make_mini_program, make_tenant

pytestmark = pytest.mark.django_db

NOT_FOUND = "tenant_not_found"
SUSPENDED = "tenant_suspended"


@dataclass
class Place:
    tenant: Tenant
    host: str
    app_id: str


def place(**fields: Any) -> Place:
    tenant = make_tenant(**fields)
    return Place(tenant, host_of(tenant), make_mini_program(tenant).app_id)


def referer(app_id: str) -> str:
    return f"https://servicewechat.com/{app_id}/17/page-frame.html"


def outcome(**asked: Any) -> Tenant | str:
    try:
        return resolve_tenant(**asked)
    except ProductError as refusal:
        if refusal.code != ErrorCode.NOT_FOUND:
            raise
        return refusal.type


@pytest.mark.parametrize("spelling", ["{}", "{}:8000", "{}.", "{}.:443", " {} "])
def test_by_host_in_any_spelling(spelling: str) -> None:
    aurora = place()
    assert outcome(host=spelling.format(aurora.host)) == aurora.tenant
    assert outcome(host=spelling.format(aurora.host.upper())) == aurora.tenant


@pytest.mark.parametrize(
    "host", ["nobody.test", "", ":80", "localhost", "127.0.0.1:8000", "[::1]:80", "a\x00b", "x" * 300, "%", "aurora_x"]
)
def test_hosts_that_are_no_tenants(host: str) -> None:
    assert outcome(host=host) == NOT_FOUND


def test_by_app_id_on_a_host_that_is_no_tenants() -> None:
    aurora = place()
    for host in ("localhost:8000", "api.nobody.test"):
        assert outcome(host=host, app_id=aurora.app_id) == aurora.tenant
        assert outcome(host=host, referer=referer(aurora.app_id)) == aurora.tenant
        assert outcome(host=host, app_id=aurora.app_id, referer=referer(aurora.app_id)) == aurora.tenant


def test_names_that_agree() -> None:
    aurora = place()
    assert outcome(host=aurora.host, app_id=aurora.app_id, referer=referer(aurora.app_id)) == aurora.tenant


def test_names_that_contradict_each_other_name_nobody() -> None:
    aurora, lotus = place(), place()
    assert outcome(host=aurora.host, app_id=lotus.app_id) == NOT_FOUND
    assert outcome(host=aurora.host, referer=referer(lotus.app_id)) == NOT_FOUND
    assert outcome(host=aurora.host, app_id=aurora.app_id, referer=referer(lotus.app_id)) == NOT_FOUND
    assert outcome(host="localhost", app_id=aurora.app_id, referer=referer(lotus.app_id)) == NOT_FOUND


def test_two_mini_programs_of_one_tenant_still_contradict() -> None:
    aurora = place()
    second = make_mini_program(aurora.tenant).app_id
    assert outcome(host="localhost", app_id=aurora.app_id, referer=referer(second)) == NOT_FOUND


@pytest.mark.parametrize("app_id", ["wx0000000000000000", "nonsense", "wx\x00", "' OR 1=1", "x" * 5000])
def test_an_unknown_app_id_is_not_outvoted_by_the_host(app_id: str) -> None:
    assert outcome(host=place().host, app_id=app_id) == NOT_FOUND


@pytest.mark.parametrize(
    "shape",
    [
        "https://example.com/{}/17/page-frame.html",
        "http://servicewechat.com/{}/17/page-frame.html",
        "https://servicewechat.com.evil.test/{}/17/page-frame.html",
        "https://evil.test/?https://servicewechat.com/{}/17/page-frame.html",
        "https://servicewechat.com/{}/17/other.html",
        "https://servicewechat.com/{}/17/page-frame.html?x",
        "{}",
        "",
    ],
)
def test_only_wechats_own_referer_counts(shape: str) -> None:
    aurora, lotus = place(), place()
    assert outcome(host=aurora.host, referer=shape.format(lotus.app_id)) == aurora.tenant
    assert outcome(host="localhost", referer=shape.format(lotus.app_id)) == NOT_FOUND


@pytest.mark.parametrize("version", ["0", "devtools", "17"])
def test_wechats_versions(version: str) -> None:
    aurora = place()
    theirs = f"https://servicewechat.com/{aurora.app_id}/{version}/page-frame.html"
    assert outcome(host="localhost", referer=theirs) == aurora.tenant


@pytest.mark.parametrize(
    ("status", "wanted"), [("trial", None), ("active", None), ("suspended", SUSPENDED), ("closed", NOT_FOUND)]
)
def test_only_tenants_in_service_answer(status: str, wanted: str | None) -> None:
    aurora = place(status=status)
    assert outcome(host=aurora.host) == (wanted or aurora.tenant)
    assert outcome(host="localhost", app_id=aurora.app_id) == (wanted or aurora.tenant)


def test_a_refusal_names_nobody() -> None:
    aurora, lotus = place(status="suspended"), place(status="closed")
    for house in (aurora, lotus):
        with pytest.raises(ProductError) as refused:
            resolve_tenant(host=house.host)
        body = str(refused.value.body("id"))
        assert [word for word in (house.tenant.slug, house.tenant.name, house.app_id) if word in body] == []


def test_a_platform_host_is_never_a_tenants(settings: Settings) -> None:
    aurora = place()
    settings.PLATFORM_HOSTS = [aurora.host]
    assert outcome(host=aurora.host) == NOT_FOUND


def test_a_look_up_is_remembered_for_a_moment_only(
    django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    aurora = place()
    monkeypatch.setattr(resolve, "REMEMBER_SECONDS", 3600.0)
    with django_assert_num_queries(1):
        assert outcome(host=aurora.host) == outcome(host=aurora.host) == aurora.tenant
    Tenant.objects.filter(pk=aurora.tenant.pk).update(status="suspended")
    assert outcome(host=aurora.host) == aurora.tenant
    monkeypatch.setattr(resolve, "REMEMBER_SECONDS", 0.0)
    assert outcome(host=aurora.host) == SUSPENDED


def test_strangers_hosts_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "REMEMBER_MOST", 3)
    aurora = place()
    outcomes = [outcome(host=f"h{number}.test") for number in range(9)]
    assert (set(outcomes), len(resolve._remembered)) == ({NOT_FOUND}, 3)  # noqa: SLF001  # what the bound is about
    assert outcome(host=aurora.host) == aurora.tenant


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.Test:80", "a.test"), ("a.test.", "a.test"), ("[::1]:80", "[::1]"), ("a.test:", "a.test"), ("", "")],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name

"""The commands, as someone at a terminal meets them."""

import re
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from tenants import scope
from tenants.login import user_of_token
from tenants.models import Branding, Domain, Tenant
from tenants.onboarding import open_tenant
from tenants.tests.conftest import House
from tests.factories import host_of, make_reseller, make_tenant, unique

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("issue_token", *arguments, stdout=out)
    return out.getvalue()


def test_issue_token_prints_the_token_and_nothing_else(aurora: House, lotus: House) -> None:
    printed = run("--tenant", aurora.tenant.slug, "--user", "alice")
    assert re.fullmatch(r"bny_[A-Za-z0-9_-]{43}\n", printed)
    with scope.tenant(aurora.tenant.pk):
        assert user_of_token(tenant_id=aurora.tenant.pk, token=printed.strip()) == aurora.alice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tenant", "nobody", "--user", "alice"], "there is no tenant “nobody”"),
        (["--tenant", "{slug}", "--user", "eve"], "tenant “{slug}” has no user “eve”"),
        (["--tenant", "{slug}", "--user", "alice", "--days", "0"], "--days must be 1 or more"),
        (["--user", "alice"], "Error: the following arguments are required: --tenant"),
    ],
)
def test_issue_token_says_what_is_wrong(arguments: list[str], message: str, aurora: House) -> None:
    slug = aurora.tenant.slug
    with pytest.raises(CommandError) as caught:
        run(*(argument.format(slug=slug) for argument in arguments))
    assert str(caught.value) == message.format(slug=slug)


def test_issue_token_does_not_find_another_tenants_user(aurora: House) -> None:
    with pytest.raises(CommandError, match="has no user"):
        run("--tenant", make_tenant().slug, "--user", "alice")


def test_opening_a_tenant() -> None:
    slug, reseller = unique("opened"), make_reseller()
    tenant = open_tenant(
        slug=slug,
        name="Opened",
        hosts=[f"{slug}.Test", f"www.{slug}.test"],
        reseller=reseller,
        language="en",
        welcome="Hello",
    )
    tenant.refresh_from_db()
    assert (tenant.status, tenant.reseller, tenant.timezone) == ("trial", reseller, "Asia/Shanghai")
    with scope.tenant(tenant.pk):
        assert list(Domain.objects.order_by("id").values_list("host", flat=True)) == [
            f"{slug}.test",
            f"www.{slug}.test",
        ]
        assert (Branding.objects.get().title, Branding.objects.get().welcome) == ("Opened", "Hello")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"slug": "not a slug"}, "slug"),
        ({"slug": "{slug}"}, "slug"),
        ({"language": "fr"}, "language"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"hosts": ["http://x.test"]}, "host"),
        ({"hosts": ["a_b.test"]}, "host"),
        ({"hosts": ["{host}"]}, "host"),
        ({"primary_color": "red"}, "primary_color"),
    ],
)
def test_a_tenant_that_cannot_be_opened_leaves_nothing(wrong: dict[str, Any], field: str) -> None:
    taken = make_tenant()
    names = {"slug": taken.slug, "host": host_of(taken)}
    before = set(Tenant.objects.all())
    filled: dict[str, Any] = {
        name: [item.format(**names) for item in value] if isinstance(value, list) else value.format(**names)
        for name, value in wrong.items()
    }
    values: dict[str, Any] = {"slug": unique("new"), "name": "New", "hosts": ["fine.test"], **filled}
    with pytest.raises(ValidationError) as caught:
        open_tenant(**values)
    assert list(caught.value.message_dict) == [field]
    assert set(Tenant.objects.all()) == before

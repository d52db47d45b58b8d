"""Domains that a tenant's owner adds alone: refused, waiting, proven by a real name server, or somebody else's."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.core import mail
from django.test import Client
from django.utils import timezone, translation
from pytest_django import Settings

from billing.tests.test_concurrency import together
from lifecycle import checks, claims, erasure, opening
from lifecycle.addresses import own_host, spoken, typed_host
from lifecycle.models import Check, DomainClaim, TenantDeletion, TenantEvent
from lifecycle.tests.conftest import make_template
from tenants import noticeboard, resolve, scope
from tenants.errors import ProductError
from tenants.models import ChangeEntry, Domain, Membership, StaffUser, Tenant
from tests.doubles.dns import NameServer, running_name_server
from tests.factories import host_of, make_operator, make_reseller, make_staff, make_tenant, unique

db = pytest.mark.django_db


@pytest.fixture
def dns(settings: Settings) -> Iterator[NameServer]:
    with running_name_server() as server:
        settings.DNS_RESOLVERS = [("127.0.0.1", server.port)]
        yield server


def make_customer() -> Tenant:
    """Return a tenant with a subdomain of the operator's."""
    slug = unique("tenant")
    return make_tenant(slug=slug, host=own_host(slug))


def owner(tenant: Tenant, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def hosts(tenant: Tenant) -> list[str]:
    with scope.tenant(tenant.pk):
        return list(Domain.objects.order_by("pk").values_list("host", flat=True))


def waiting(tenant: Tenant) -> list[str]:
    return [row.host for row in claims.waiting(tenant=tenant)]


def claim(tenant: Tenant, host: str) -> DomainClaim:
    return claims.claim(tenant=tenant, typed=host, actor="test")


def serves(host: str) -> str:
    """Return the slug of the tenant that a host leads to, empty if to none."""
    resolve.forget()
    with suppress(ProductError):
        return resolve.resolve_tenant(host=host).slug
    return ""


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        (" https://Chat.Example.NET:8443/path?x ", "chat.example.net"),
        ("chat.example.net.", "chat.example.net"),
        ("聊天.例子.中国", "xn--rss932g.xn--fsqu00a.xn--fiqs8s"),
        ("ｃｈａｔ．ｅｘａｍｐｌｅ．ｎｅｔ", "chat.example.net"),
        ("r3---sn.example.net", "r3---sn.example.net"),
        ("", ""),
    ],
)
def test_names_are_taken_as_people_paste_them(typed: str, host: str) -> None:
    assert typed_host(typed) == host


def test_a_name_in_other_letters_is_shown_in_them() -> None:
    assert spoken("xn--fsqu00a.xn--fiqs8s") == "例子.中国 (xn--fsqu00a.xn--fiqs8s)"
    assert spoken("chat.example.net") == "chat.example.net"


@db
def test_what_nobody_may_claim_is_refused_in_words(settings: Settings) -> None:
    settings.PLATFORM_HOSTS = ["console.banyan-operator.net"]
    tenant, other = make_customer(), make_customer()
    theirs = f"{unique('chat')}.example.net"
    with scope.tenant(other.pk):
        Domain.objects.create(tenant=other, host=theirs)
    number = "A host name such as chat.example.com is wanted, no address in numbers."
    wrong = "A host name in lower case without a port, such as chat.example.com, is wanted."
    ours = "This name is the platform's own. Please choose another."
    refused = {
        "": number,
        "10.1.2.3": number,
        "1.2.3.999": number,
        "[::1]": wrong,
        "under_score.example.net": wrong,
        "-a.example.net": wrong,
        "com.cn": "“com.cn” is no name that somebody can own: it needs a public ending and a name before it.",
        "github.io": "“github.io” is no name that somebody can own: it needs a public ending and a name before it.",
        "intranet": "“intranet” is no name that somebody can own: it needs a public ending and a name before it.",
        "chat.corp": "“chat.corp” is no name that somebody can own: it needs a public ending and a name before it.",
        "console.banyan-operator.net": ours,
        "example.com": ours,
        f"{other.slug}.example.com": ours,
        "not-there-yet.example.com": ours,
        theirs: f"{theirs} is in use by somebody else already. Please ask who runs the platform.",
        host_of(tenant): ours,
        f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.net": number,
    }
    said = {}
    for typed in refused:
        with pytest.raises(ProductError) as refusal, translation.override("en"):
            claim(tenant, typed)
        said[typed] = str(refusal.value.msg)
        assert refusal.value.type == "domain_unfit"
    assert said == refused
    assert waiting(tenant) == []


@db
def test_a_cname_to_the_own_subdomain_proves_a_name(dns: NameServer) -> None:
    tenant, other = make_customer(), make_customer()
    host = f"{unique('chat')}.example.net"
    row, rival = claim(tenant, host), claim(other, host)
    assert (serves(host), hosts(tenant)) == ("", [host_of(tenant)])
    assert claims.look(row, actor="test").word == "claim_waits"
    dns.set("CNAME", host, "elsewhere.example.org")
    looked = claims.look(row, actor="test")
    assert (looked.word, looked.facts["found"]) == ("claim_elsewhere", "elsewhere.example.org")
    dns.set("CNAME", host, host_of(tenant).upper())
    # It names one tenant: another's claim of the same name is no nearer to its proof.
    assert claims.look(rival, actor="test").word == "claim_elsewhere"
    assert claims.look(row, actor="test").is_proven
    assert (serves(host), hosts(tenant), waiting(tenant)) == (tenant.slug, [host_of(tenant), host], [])
    dns.set("CNAME", host, host_of(other))
    assert claims.look(rival, actor="test").word == "claim_taken"
    assert (serves(host), hosts(other), waiting(other)) == (tenant.slug, [host_of(other)], [host])
    with scope.tenant(tenant.pk):
        event = TenantEvent.objects.get()
    assert (event.kind, event.actor, event.facts) == ("domain_proven", "test", {"host": host})


@db
def test_the_name_of_a_zone_is_proven_by_a_text(dns: NameServer) -> None:
    tenant, other = make_customer(), make_customer()
    zone = f"{unique('brand')}.com.cn"
    row, rival = claim(tenant, zone), claim(other, zone)
    [record] = claims.records(row)
    assert (record.kind, record.name) == ("TXT", f"_banyan.{zone}")
    assert record.value != claims.records(rival)[0].value
    # A CNAME of the whole zone is none that DNS allows, and not asked for.
    dns.set("CNAME", zone, host_of(tenant))
    dns.set("TXT", record.name, '"v=spf1 -all"')
    assert claims.look(row, actor="test").word == "claim_text_waits"
    dns.set("TXT", record.name, '"v=spf1 -all"', f'"{claims.records(rival)[0].value}"')
    assert claims.look(row, actor="test").word == "claim_other_text"
    # A long text comes in pieces.
    dns.set("TXT", record.name, '"v=spf1 -all"', f'"{record.value[:20]}" "{record.value[20:]}"')
    assert claims.look(row, actor="test").is_proven
    assert (serves(zone), hosts(other)) == (tenant.slug, [host_of(other)])


@db
def test_a_text_where_the_name_leads_to_is_no_proof(dns: NameServer) -> None:
    tenant = make_customer()
    host = f"{unique('chat')}.example.net"
    text = claims.records(claim(tenant, host))[1]
    # Whoever has the whole zone lead to a host of somebody else's has not said that this one may have it.
    dns.set("CNAME", text.name, "txt.example.org")
    dns.set("TXT", "txt.example.org", '"banyan-domain=somebody-elses"')
    [row] = claims.waiting(tenant=tenant)
    assert claims.look(row, actor="test").word != claims.PROVEN
    assert hosts(tenant) == [host_of(tenant)]


def delete(tenant: Tenant) -> None:
    erasure.ask(tenant_id=tenant.pk, reason="closed", actor="o")
    with scope.tenant(tenant.pk):
        TenantDeletion.objects.update(due_at=timezone.now())
    erasure.erase(tenant_id=tenant.pk, actor="o")


@db
def test_a_record_that_leads_to_a_deleted_tenant_proves_nothing_for_whoever_comes_after(dns: NameServer) -> None:
    gone, host = make_customer(), f"{unique('chat')}.example.net"
    once_theirs = host_of(gone)
    dns.set("CNAME", host, once_theirs)
    delete(gone)
    # Its slug is nobody's any more, ever.
    application = opening.Application(name="Next", slug=gone.slug, template=make_template().slug)
    with pytest.raises(ProductError) as refused:
        opening.open_for(application=application, reseller=make_reseller(), actor="test")
    assert (refused.value.type, refused.value.facts["fields"]) == ("tenant_unfit", ["slug"])
    operator = Client(headers={"host": "localhost", "accept-language": "en"})
    operator.force_login(make_operator())
    renamed = {"slug": unique("renamed"), "name": "x", "timezone": "UTC", "language": "en", "on_disconnect": "stop"}
    assert operator.post(f"/platform/tenants/tenant/{gone.pk}/change/", renamed).status_code == 302
    assert Tenant.objects.values_list("slug", "name").get(pk=gone.pk) == (gone.slug, "x")
    # Its subdomain, where the operator gives it away, serves the next one, who has no target but its own.
    heir, bare = make_customer(), make_tenant()
    rows = {tenant: claim(tenant, host) for tenant in (heir, bare)}
    for tenant, first in ((heir, "CNAME"), (bare, "TXT")):
        with scope.platform("the operator's hand"):
            Domain.objects.filter(host=once_theirs).delete()
            Domain.objects.create(tenant=tenant, host=once_theirs)
        assert claims.records(rows[tenant])[0].kind == first
        assert (serves(once_theirs), claims.look(rows[tenant], actor="test").is_proven) == (tenant.slug, False)
    assert (hosts(heir), waiting(heir)) == ([host_of(heir)], [host])


@db
def test_name_servers_that_are_away_are_named_as_such(dns: NameServer) -> None:
    tenant = make_customer()
    row = claim(tenant, f"{unique('chat')}.example.net")
    dns.rcode = 2
    assert claims.look(row, actor="test").word == "claim_dns_away"
    dns.rcode, dns.is_silent = 0, True
    assert claims.look(row, actor="test").word == "claim_dns_away"
    assert waiting(tenant) == [row.host]


@db
def test_a_page_waits_for_name_servers_no_longer_than_it_has_time(dns: NameServer) -> None:
    tenant = make_customer()
    rows = [claim(tenant, f"{unique('chat')}.example.net") for _ in range(3)]
    with scope.tenant(tenant.pk):
        DomainClaim.objects.update(watched_until=timezone.now())
    dns.is_silent = True
    silent = claims.look_at_waiting(tenant=tenant, actor="test", within=0.3)
    # The first one's answer did not come in time, the others were not asked for.
    assert [look.word for look in silent] == ["claim_not_looked"] * 3
    with scope.tenant(tenant.pk):
        kept = DomainClaim.objects.order_by("pk")
        assert [(row.word, row.checked_at is None) for row in kept] == [
            ("claim_not_looked", False),
            ("", True),
            ("", True),
        ]
        assert all(row.watched_until > timezone.now() for row in kept)
    with translation.override("en"):
        assert str(silent[1]) == (
            f"{rows[1].host} was not looked up yet: its name servers take long. It is looked at again within minutes."
        )
    dns.is_silent = False
    for row in rows:
        dns.set("CNAME", row.host, host_of(tenant))
    # Those that had to wait come first.
    assert [look.facts["host"] for look in claims.look_at_waiting(tenant=tenant, actor="test", within=30)] == [
        row.host for row in (*rows[1:], rows[0])
    ]
    assert waiting(tenant) == []


@db
def test_so_many_names_wait_at_once() -> None:
    tenant = make_customer()
    [first, *_rest] = [claim(tenant, f"{unique('chat')}.example.net") for _ in range(claims.MOST)]
    with pytest.raises(ProductError) as refused:
        claim(tenant, f"{unique('chat')}.example.net")
    assert (refused.value.type, refused.value.facts) == ("domain_claims_limit", {"used": 10, "limit": 10})
    assert claim(tenant, first.host).pk == first.pk


@db
def test_beat_looks_for_a_while_and_tells_of_the_proof(dns: NameServer) -> None:
    tenant, host, old = make_customer(), f"{unique('chat')}.example.net", f"{unique('old')}.example.net"
    person = make_staff(tenant)
    StaffUser.objects.filter(pk=person.pk).update(email="owner@example.net", language="en")
    claim(tenant, host)
    late = claim(tenant, old)
    with scope.tenant(tenant.pk):
        DomainClaim.objects.filter(pk=late.pk).update(watched_until=timezone.now() - timedelta(hours=1))
    for name in (host, old):
        dns.set("CNAME", name, host_of(tenant))
    assert claims.sweep() == 1
    assert (hosts(tenant), waiting(tenant)) == ([host_of(tenant), host], [old])
    assert [letter.subject for letter in mail.outbox] == [f"{host} is proven"]
    with scope.tenant(tenant.pk), translation.override("en"):
        [notice] = noticeboard.notices_of(tenant_id=tenant.pk, role="owner")
        assert (notice.kind, notice.subject) == ("domain", f"{host} is proven")
    assert claims.sweep() == 0
    # Whoever asks gets an answer all the same, and beat looks on.
    with scope.tenant(tenant.pk):
        late.refresh_from_db()
    dns.set("CNAME", old, "elsewhere.example.org")
    assert claims.look_again(late, actor="test").word == "claim_elsewhere"
    with scope.tenant(tenant.pk):
        assert DomainClaim.objects.get().watched_until > timezone.now()


@pytest.mark.usefixtures("committed_db")
def test_two_tenants_that_prove_at_once_are_one_owner(dns: NameServer) -> None:
    zone = f"{unique('brand')}.com.cn"
    rows = [claim(make_customer(), zone) for _ in range(4)]
    dns.set("TXT", f"_banyan.{zone}", *(f'"{claims.records(row)[0].value}"' for row in rows))
    found = together([partial(claims.look, row, actor="test") for row in rows])
    assert sorted(look.word for look in found) == ["claim_proven", *["claim_taken"] * 3]
    assert sorted(len(hosts(row.tenant)) for row in rows) == [1, 1, 1, 2]


@pytest.mark.usefixtures("committed_db")
def test_one_name_that_is_looked_at_twice_at_once_is_proven_once(dns: NameServer) -> None:
    tenant, host = make_customer(), f"{unique('chat')}.example.net"
    row = claim(tenant, host)
    dns.set("CNAME", host, host_of(tenant))
    found = together([partial(claims.look, row, actor="test") for _ in range(4)])
    assert [look.word for look in found] == ["claim_proven"] * 4
    with scope.tenant(tenant.pk):
        assert TenantEvent.objects.count() == 1


# --- in the admin


def said(answer: Any) -> list[str]:
    return [str(one) for one in get_messages(answer.wsgi_request)]


@db
def test_an_owner_adds_a_domain_and_takes_it_away_again(dns: NameServer) -> None:
    tenant, host = make_customer(), f"{unique('chat')}.example.net"
    client = owner(tenant)
    assert "/admin/lifecycle/domainclaim/add/" in client.get("/admin/tenants/domain/").content.decode()
    page = client.post("/admin/lifecycle/domainclaim/add/", {"host": f"https://{host.upper()}/"}, follow=True)
    [row] = claims.waiting(tenant=tenant)
    shown = page.content.decode()
    assert page.redirect_chain[-1][0] == f"/admin/lifecycle/domainclaim/{row.pk}/change/"
    assert [record.value in shown for record in claims.records(row)] == [True, True]
    assert f"/admin/lifecycle/domainclaim/{row.pk}/change/" in client.get("/admin/tenants/domain/").content.decode()
    path = f"/admin/lifecycle/domainclaim/{row.pk}/try/"
    told = client.post(path, follow=True)
    text = claims.records(row)[1]
    wanted = f"Set a CNAME to {host_of(tenant)}, or a TXT record at {text.name} with the text {text.value}."
    assert said(told) == [f"{host} is not proven yet. {wanted}"]
    # What somebody else's name server says is text.
    dns.set("CNAME", host, "x<b>.example.org")
    assert "x<b>" not in client.post(path, follow=True).content.decode()
    dns.set("CNAME", host, host_of(tenant))
    done = client.post(path, follow=True)
    assert done.redirect_chain[-1][0] == "/admin/tenants/domain/"
    assert said(done)[0].startswith(f"{host} is proven, and leads to this service as soon as its DNS record does.")
    with scope.tenant(tenant.pk):
        own, new = Domain.objects.order_by("pk")
        noted = [(entry.model, entry.action) for entry in ChangeEntry.objects.order_by("pk")]
    assert noted == [("lifecycle.DomainClaim", "added"), ("lifecycle.DomainClaim", "changed")]
    # What the owner added is the owner's to delete, what the operator gave is not.
    assert client.post(f"/admin/tenants/domain/{own.pk}/delete/", {"post": "yes"}).status_code == 403
    picked = {"action": "delete_selected", "_selected_action": [own.pk, new.pk], "post": "yes"}
    client.post("/admin/tenants/domain/", picked)
    assert hosts(tenant) == [own.host, host]
    assert client.post(f"/admin/tenants/domain/{new.pk}/delete/", {"post": "yes"}).status_code == 302
    assert (hosts(tenant), serves(host)) == ([own.host], "")
    with scope.tenant(tenant.pk):
        last = ChangeEntry.objects.latest("pk")
        assert (last.model, last.action, last.changes["host"]) == ("tenants.Domain", "deleted", [host, None])


@db
def test_claims_are_owners_and_nobody_elses(dns: NameServer) -> None:
    tenant, other, host = make_customer(), make_customer(), f"{unique('chat')}.example.net"
    row = claim(tenant, host)
    dns.set("CNAME", host, host_of(tenant))
    page = f"/admin/lifecycle/domainclaim/{row.pk}"
    for role in set(Membership.Role.values) - {"owner"}:
        client = owner(tenant, role)
        assert (role, client.get("/admin/lifecycle/domainclaim/add/").status_code) == (role, 403)
        assert (role, client.get(f"{page}/change/").status_code) == (role, 403)
        assert (role, client.post(f"{page}/try/").status_code) == (role, 404)
        assert host not in client.get("/admin/tenants/domain/").content.decode()
        assert client.post(f"/admin/tenants/domain/{row.pk}/delete/", {"post": "yes"}).status_code in {403, 404}
    stranger = owner(other)
    assert [stranger.get(f"{page}/change/").status_code, stranger.post(f"{page}/try/").status_code] == [404, 404]
    assert host not in stranger.get("/admin/tenants/domain/").content.decode()
    operator = Client(headers={"host": "localhost", "accept-language": "en"})
    operator.force_login(make_operator())
    assert operator.get("/platform/lifecycle/domainclaim/add/").status_code == 403
    assert operator.get(f"/platform/lifecycle/domainclaim/{row.pk}/change/").status_code == 200
    assert hosts(tenant) == [host_of(tenant)]
    # The operator may look at DNS for somebody who rings up.
    assert operator.post(f"/platform/lifecycle/domainclaim/{row.pk}/try/").status_code == 302
    assert hosts(tenant) == [host_of(tenant), host]


@db
def test_what_is_wrong_is_said_at_the_field() -> None:
    tenant = make_customer()
    client = owner(tenant)
    answer = client.post("/admin/lifecycle/domainclaim/add/", {"host": "com.cn"})
    assert (answer.status_code, "is no name that somebody can own" in answer.content.decode()) == (200, True)
    for number in range(claims.MOST):
        claim(tenant, f"{unique('chat')}-{number}.example.net")
    full = client.post("/admin/lifecycle/domainclaim/add/", {"host": f"{unique('chat')}.example.net"}, follow=True)
    assert said(full) == ["10 domains wait for their proof. Prove or delete some of them first."]
    assert len(waiting(tenant)) == claims.MOST


# --- where tenants are opened


@db
def test_a_resellers_word_is_proven_too_and_the_operators_is_taken(dns: NameServer) -> None:
    template, host, vouched = make_template(), f"{unique('chat')}.example.net", f"{unique('chat')}.example.net"
    application = opening.Application(name="Bamboo", template=template.slug, host=host)
    made = opening.open_for(application=application, reseller=make_reseller(), actor="test").tenant
    assert (hosts(made), waiting(made), serves(host)) == ([own_host(made.slug)], [host], "")
    trusted = opening.Application(name="Bamboo", template=template.slug, host=f"https://{vouched}/")
    known = opening.open_for(application=trusted, reseller=None, actor="test", is_vouched=True).tenant
    assert (hosts(known), waiting(known)) == ([own_host(known.slug), vouched], [])
    # The checklist says what to set, and proves.
    checks.run(tenant=made, actor="test", kind="domain")
    with scope.tenant(made.pk):
        assert Check.objects.get(kind="domain").state == "red"
    dns.set("CNAME", host, own_host(made.slug))
    checks.run(tenant=made, actor="test", kind="domain")
    assert (hosts(made), serves(host)) == ([own_host(made.slug), host], made.slug)

"""The page that the client runs in: whose brand it shows, what it lets run, and which files it begins with."""

import json
import os
import re
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from chat.models import ModelOffer, Role, UpstreamAccount
from saas.local.client import CLIENT
from tenants import scope
from tenants.models import Branding, Compliance, Embedding, Tenant
from tests.factories import host_of, make_tenant, make_token, make_user

pytestmark = pytest.mark.django_db

CHUNKS = {
    "index.html": {"file": "assets/index-AAAAAAAA.js", "isEntry": True, "css": ["assets/index-BBBBBBBB.css"]},
    "src/pages/chat/index.vue": {
        "file": "assets/pages-chat-index.CCCCCCCC.js",
        "imports": ["index.html", "_shared.js"],
        "css": ["assets/chat-DDDDDDDD.css"],
    },
    "_shared.js": {"file": "assets/shared.EEEEEEEE.js", "imports": ["index.html"]},
    "src/pages/login/index.vue": {"file": "assets/login.FFFFFFFF.js", "css": ["assets/login-GGGGGGGG.css"]},
    # As vite lists a file that login alone begins with.
    "_Field.!~{006}~.js": {"file": "assets/field-22222222.css", "src": "_Field.!~{006}~.js"},
    "src/uni.css": {"file": "assets/uni.11111111.css", "src": "src/uni.css"},
}


@pytest.fixture(autouse=True)
def built(settings: Settings, tmp_path: Path) -> Path:
    """Put a built client there, of which only the list of files matters here."""
    manifest = tmp_path / ".vite" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps(CHUNKS))
    settings.CLIENT_DIR = tmp_path
    return manifest


def branded(title: str, colour: str) -> Tenant:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        Branding.objects.filter(tenant=tenant).update(title=title, primary_color=colour, slogan=f"{title} for all")
    return tenant


def front_in(page: str) -> dict[str, object]:
    """Return the brand that the page hands to the client."""
    found = re.search(r'<script id="banyan-front" type="application/json">(.*?)</script>', page)
    assert found is not None
    front: dict[str, object] = json.loads(found[1])
    return front


def test_each_host_shows_its_own_brand_and_nothing_of_another() -> None:
    ours, theirs = branded("Ours </script><b>", "#123456"), branded("Theirs & co", "#abcdef")
    pages = {tenant.pk: Client(headers={"Host": host_of(tenant)}).get("/") for tenant in (ours, theirs)}
    for tenant, other, shown in ((ours, theirs, "Ours &lt;/script&gt;&lt;b&gt;"), (theirs, ours, "Theirs &amp; co")):
        page = pages[tenant.pk].content.decode()
        with scope.tenant(tenant.pk):
            brand = Branding.objects.get()
        with scope.tenant(other.pk):
            foreign = Branding.objects.get()
        front = front_in(page)
        assert (front["title"], front["primary_color"]) == (brand.title, brand.primary_color)
        assert (f"<title>{shown}</title>" in page, f"--shell-brand: {brand.primary_color}" in page) == (True, True)
        assert [word in page for word in (foreign.primary_color, foreign.slogan, other.slug)] == [False] * 3


def test_the_page_begins_with_the_entry_and_the_chat_and_asks_for_nothing_else() -> None:
    page = Client(headers={"Host": host_of(make_tenant())}).get("/").content.decode()
    assert re.findall(r'<script type="module" src="([^"]+)"', page) == ["/static/client/assets/index-AAAAAAAA.js"]
    assert re.findall(r'<link rel="modulepreload" href="([^"]+)"', page) == [
        "/static/client/assets/pages-chat-index.CCCCCCCC.js",
        "/static/client/assets/shared.EEEEEEEE.js",
    ]
    assert re.findall(r'<link rel="stylesheet" href="([^"]+)"', page) == [
        "/static/client/assets/uni.11111111.css",
        "/static/client/assets/index-BBBBBBBB.css",
        "/static/client/assets/chat-DDDDDDDD.css",
    ]


def test_only_scripts_of_ours_may_run() -> None:
    client = Client(headers={"Host": host_of(make_tenant())})
    first, second = client.get("/"), client.get("/")
    rules = dict(rule.split(" ", 1) for rule in first["Content-Security-Policy"].split("; "))
    nonces = [re.search(r"'nonce-([^']+)'", page["Content-Security-Policy"]) for page in (first, second)]
    assert nonces[0] is not None
    assert nonces[1] is not None
    assert nonces[0][1] != nonces[1][1]
    assert rules["script-src"] == f"'self' 'nonce-{nonces[0][1]}'"
    # And style sheets of ours; a formula's parts have styles of their own.
    assert rules["style-src-elem"] == f"'self' 'nonce-{nonces[0][1]}'"
    assert (rules["style-src"], rules["style-src-attr"]) == ("'self' 'unsafe-inline'", "'unsafe-inline'")
    assert (rules["default-src"], rules["object-src"], rules["frame-ancestors"]) == ("'self'", "'none'", "'none'")
    for tag in re.findall(r"<style\b[^>]*>", first.content.decode()):
        assert tag == f'<style nonce="{nonces[0][1]}">'
    # Whatever runs has the nonce or an address of ours; the brand is data.
    for tag in re.findall(r"<script\b[^>]*>", first.content.decode()):
        assert f'nonce="{nonces[0][1]}"' in tag or 'src="/static/' in tag or 'type="application/json"' in tag
    assert re.findall(r'\son\w+="', first.content.decode()) == []
    assert "no-cache" in first["Cache-Control"]


def test_the_page_speaks_the_readers_language() -> None:
    client = Client(headers={"Host": host_of(make_tenant())})
    languages = {}
    for wanted in ("zh-CN", "en"):
        page = client.get("/", headers={"Accept-Language": wanted}).content.decode()
        found = re.search(r'<html lang="([^"]+)">', page)
        languages[wanted] = (found and found[1], front_in(page)["label"])
    assert languages == {
        "zh-CN": ("zh-CN", "内容由 AI 生成，仅供参考。"),
        "en": ("en", "Generated by AI, for reference only."),
    }


@pytest.mark.parametrize(("wanted", "catalogue"), [("zh-CN", "zh"), ("en", "en")])
def test_the_greeting_is_painted_before_the_client_runs_in_its_own_words(wanted: str, catalogue: str) -> None:
    words = re.search(r"^  welcome: '([^']+)',$", (CLIENT / "src/locale" / f"{catalogue}.ts").read_text(), re.MULTILINE)
    assert words is not None
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        Branding.objects.filter(tenant=tenant).update(slogan="Of <all> things")
    client = Client(headers={"Host": host_of(tenant), "Accept-Language": wanted})
    assert (greeting(client), slogan(client)) == (words[1], "Of &lt;all&gt; things")
    with scope.tenant(tenant.pk):
        Branding.objects.filter(tenant=tenant).update(welcome="Ask <us>\nanything")
    assert greeting(client) == "Ask &lt;us&gt;\nanything"


def painted(client: Client, name: str) -> str:
    found = re.search(f'<div class="{name}">(.*?)</div>', client.get("/").content.decode(), re.DOTALL)
    assert found is not None
    return found[1]


def greeting(client: Client) -> str:
    return painted(client, "shell-title")


def slogan(client: Client) -> str:
    return painted(client, "shell-more")


def test_a_new_build_is_seen_at_once(built: Path) -> None:
    client = Client(headers={"Host": host_of(make_tenant())})
    assert "index-AAAAAAAA.js" in client.get("/").content.decode()
    built.write_text(json.dumps(CHUNKS).replace("AAAAAAAA", "ZZZZZZZZ"))
    later = built.stat().st_mtime + 1
    os.utime(built, (later, later))
    assert "index-ZZZZZZZZ.js" in client.get("/").content.decode()


def test_without_a_build_the_plain_page_stands_there(settings: Settings, tmp_path: Path) -> None:
    settings.CLIENT_DIR = tmp_path / "nothing"
    page = Client(headers={"Host": host_of(branded("Plain", "#123456"))}).get("/").content.decode()
    assert ("<h1>Plain</h1>" in page, "banyan-front" in page) == (True, False)


def test_the_installed_page_has_the_tenants_name_and_icon() -> None:
    client = Client(headers={"Host": host_of(branded("<Q>", "#123456"))})
    told = client.get("/manifest.webmanifest")
    assert (told["Content-Type"], told.json()["name"], told.json()["theme_color"]) == (
        "application/manifest+json",
        "<Q>",
        "#123456",
    )
    drawn = client.get("/icon.svg")
    assert drawn["Content-Type"] == "image/svg+xml"
    assert ('fill="#123456"' in drawn.content.decode(), ">&lt;</text>" in drawn.content.decode()) == (True, True)
    for path in ("/manifest.webmanifest", "/icon.svg"):
        assert Client(headers={"Host": "localhost"}).get(path).status_code == 404


def test_the_front_names_what_is_on_sale_here_and_nothing_of_another(settings: Settings) -> None:
    settings.ATTACHMENTS_PER_MESSAGE = 7
    ours, theirs = branded("Ours", "#123456"), branded("Theirs", "#abcdef")
    for tenant in (ours, theirs):
        with scope.tenant(tenant.pk):
            account = UpstreamAccount.objects.create(tenant=tenant, name="A", base_url="https://models.example.com/v1")
            names = {"sku": "s", "upstream_model": "m", "account": account}
            ModelOffer.objects.create(
                tenant=tenant, slug=f"m-{tenant.slug}"[:60], name=f"Model of {tenant.slug}", is_default=True, **names
            )
            ModelOffer.objects.create(tenant=tenant, slug="off", name="Off", is_enabled=False, **names)
            suggestions = f" {tenant.slug}? \n\n"
            Role.objects.create(
                tenant=tenant, slug="a", name="A", instructions="secret", suggestions=suggestions, is_default=True
            )
            Compliance.objects.create(tenant=tenant, model_filing=f"No {tenant.slug}")
    told = Client(headers={"Host": host_of(ours)}).get("/api/chat/front").json()["data"]
    assert told == {
        "title": "Ours",
        "slogan": "Ours for all",
        "logo_url": "",
        "primary_color": "#123456",
        "welcome": "",
        "label": f"Generated by AI, for reference only. Filing number: No {ours.slug}.",
        "suggestions": [f"{ours.slug}?"],
        "models": [
            {
                "slug": f"m-{ours.slug}"[:60],
                "name": f"Model of {ours.slug}",
                "is_default": True,
                "images": True,
                "files": True,
            }
        ],
        "attachments": {"per_message": 7, "file_bytes": 8 * 1024 * 1024},
    }


def test_one_may_change_ones_own_name_and_language_and_nobody_elses() -> None:
    tenant = make_tenant()
    user, other = make_user(tenant), make_user(tenant)
    client = Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(user)}"})
    kept = client.get("/api/auth/me").json()["data"]
    changed = client.post("/api/auth/me", {"nickname": " Ann "}, content_type="application/json").json()["data"]
    assert changed == {**kept, "nickname": "Ann"}
    changed = client.post("/api/auth/me", {"language": "zh-hans"}, content_type="application/json").json()["data"]
    assert changed == {**kept, "nickname": "Ann", "language": "zh-hans"} == client.get("/api/auth/me").json()["data"]
    refused = client.post("/api/auth/me", {"language": "xx"}, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (400, 10001)
    with scope.tenant(tenant.pk):
        untouched = type(other).objects.get(pk=other.pk)
    assert (untouched.nickname, untouched.language) == (other.nickname, other.language)


def test_the_client_stands_in_the_frames_that_its_tenant_names() -> None:
    tenant = branded("Ours", "#123456")
    with scope.tenant(tenant.pk):
        Embedding.objects.create(tenant=tenant, origins=["https://shop.example"])
    page = Client(headers={"Host": host_of(tenant)}).get("/")
    rules = page["Content-Security-Policy"].split("; ")
    assert [rule for rule in rules if rule.startswith("frame-")] == ["frame-ancestors 'self' https://shop.example"]
    assert "X-Frame-Options" not in page

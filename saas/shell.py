"""The page that the client runs in: a tenant's brand and the first files of the built client, and nothing else.

The brand stands in the page itself, so no other one is seen for a moment. Scripts are those that were built, and the
one that sets the theme before the first paint, which carries the nonce of the content security policy.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.utils import translation
from django.utils.cache import patch_cache_control
from django.utils.html import escape
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from chat.front import front_of
from tenants import captcha, embedding
from tenants.models import Tenant

MANIFEST = Path(".vite") / "manifest.json"
ENTRY = "index.html"
# Where the chat begins: its files are asked for along with the entry's, not after it.
FIRST_PAGE = "src/pages/chat/index.vue"
ICON_SECONDS = 60 * 60


@dataclass(frozen=True, kw_only=True)
class Assets:
    """What the page begins with: addresses under `/static/`."""

    script: str
    preloads: tuple[str, ...]
    styles: tuple[str, ...]


_known: dict[str, tuple[float, Assets]] = {}


def assets() -> Assets | None:
    """Return what was built; None where nothing was. A new build is seen at once."""
    path = settings.CLIENT_DIR / MANIFEST
    try:
        changed = path.stat().st_mtime
    except OSError:
        return None
    at, found = _known.get(str(path), (0.0, None))
    if found is None or at != changed:
        found = _read(path)
        _known[str(path)] = (changed, found)
    return found


def _read(path: Path) -> Assets:
    chunks: dict[str, Any] = json.loads(path.read_text("utf-8"))
    first = _reach(chunks, FIRST_PAGE) if FIRST_PAGE in chunks else []
    needed = [chunks[name] for name in dict.fromkeys([*_reach(chunks, ENTRY), *first])]
    # uni-app's own; a name that begins with "_" is a chunk's, and stands at the chunk that wants it.
    styles = [chunk["file"] for name, chunk in chunks.items() if name.endswith(".css") and not name.startswith("_")]
    styles += [name for chunk in needed for name in chunk.get("css", ())]
    entry = chunks[ENTRY]["file"]
    return Assets(
        script=_address(entry),
        preloads=tuple(_address(chunk["file"]) for chunk in needed if chunk["file"] != entry),
        styles=tuple(_address(name) for name in dict.fromkeys(styles)),
    )


def _reach(chunks: dict[str, Any], name: str) -> list[str]:
    """Return a chunk's name and those of all that it imports from the start."""
    found = [name]
    for reached in found:
        found += [more for more in chunks[reached].get("imports", ()) if more not in found]
    return found


def _address(file: str) -> str:
    return static(f"client/{file}")


def show(request: HttpRequest, tenant: Tenant, built: Assets) -> HttpResponse:
    """Return the page in the tenant's brand. In the tenant's scope."""
    front = front_of(tenant)
    nonce = secrets.token_urlsafe(16)
    chinese = (translation.get_language() or "").startswith("zh")
    context = {
        "front": front,
        "built": built,
        "nonce": nonce,
        "lang": "zh-CN" if chinese else "en",
        "letter": front["title"][:1],
        # The client's own words where the tenant has none (client/src/locale): they are painted before it runs.
        "welcome": _("Hello! What is on your mind?"),
    }
    page = render(request, "client/shell.html", context)
    page["Content-Security-Policy"] = _policy(nonce, tenant)
    page["Referrer-Policy"] = "same-origin"
    # The files behind it are kept for good, the page is asked for each time: a new build shows at once.
    patch_cache_control(page, no_cache=True, private=True)
    return page


def _policy(nonce: str, tenant: Tenant) -> str:
    """Return the policy: our own files and this host only, but for pictures, which tenants may keep anywhere.

    Style sheets are those that were built, and the shell's own by its nonce. `style` attributes stay allowed: KaTeX
    places the parts of a formula by them. Browsers from before 2022 know neither word, and go by `style-src`.
    """
    # A captcha's widget, where the operator has set one up that comes from elsewhere.
    others = " ".join(["", *captcha.page_hosts()])
    rules = {
        "default-src": "'self'",
        "script-src": f"'self' 'nonce-{nonce}'{others}",
        "style-src": "'self' 'unsafe-inline'",
        "style-src-elem": f"'self' 'nonce-{nonce}'{others}",
        "style-src-attr": "'unsafe-inline'",
        "img-src": "'self' data: blob: https:",
        "font-src": "'self' data:",
        "connect-src": f"'self'{others}",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }
    if others:
        rules["frame-src"] = f"'self'{others}"
    return "; ".join([*(f"{name} {value}" for name, value in rules.items()), embedding.frame_ancestors(tenant)])


@require_safe
def web_manifest(request: HttpRequest) -> HttpResponse:
    """Say what the page is called and looks like where it is installed, in the tenant's brand."""
    front = front_of(_tenant(request))
    shown = {
        "name": front["title"],
        "short_name": front["title"][:12],
        "description": front["slogan"],
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": front["primary_color"],
        "icons": [{"src": "/icon.svg", "sizes": "any", "type": "image/svg+xml", "purpose": "any"}],
    }
    return JsonResponse(shown, content_type="application/manifest+json", headers=_briefly())


@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """Draw the tenant's icon: the first letter of its name on its colour."""
    front = front_of(_tenant(request))
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 512 512"><rect width="512" height="512" rx="112" '
        f'fill="{front["primary_color"]}"/><text x="256" y="256" dy=".35em" text-anchor="middle" fill="#fff" '
        f'font-family="system-ui, sans-serif" font-size="280" font-weight="600">{escape(front["title"][:1])}</text>'
        "</svg>"
    )
    return HttpResponse(drawing, content_type="image/svg+xml", headers=_briefly())


def _briefly() -> dict[str, str]:
    return {"Cache-Control": f"private, max-age={ICON_SECONDS}"}


def _tenant(request: HttpRequest) -> Tenant:
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    if tenant is None:
        raise Http404
    return tenant

"""The admin's own pages look as they were meant to, though unfold's style sheet is made for its own templates."""

import re
from pathlib import Path

import pytest
import unfold
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import reverse

SHEET = Path(unfold.__file__).parent / "static/unfold/css/styles.css"
TEMPLATES = Path(settings.BASE_DIR) / "templates"
# What unfold shows within its own pages; other templates bring a style sheet of their own.
IN_THE_ADMIN = [
    *sorted((TEMPLATES / "admin").rglob("*.html")),
    *sorted((TEMPLATES / "domains").rglob("*.html")),
    *sorted((TEMPLATES / "doors").rglob("*.html")),
    *sorted((TEMPLATES / "moderation").rglob("*.html")),
    *sorted((TEMPLATES / "people").rglob("*.html")),
    *sorted((TEMPLATES / "unfold").rglob("*.html")),
    *sorted((TEMPLATES / "prices").rglob("*.html")),
    *sorted((TEMPLATES / "upstreams").rglob("*.html")),
    *sorted((TEMPLATES / "branding").rglob("*.html")),
    *sorted((TEMPLATES / "imports").rglob("*.html")),
    TEMPLATES / "statements/so_far.html",
]


@pytest.mark.parametrize("template", IN_THE_ADMIN, ids=lambda path: path.name)
def test_every_class_is_in_unfolds_style_sheet(template: Path) -> None:
    sheets = SHEET.read_text() + Path(str(finders.find("banyan/admin.css"))).read_text()
    known = {re.sub(r"\\(.)", r"\1", name) for name in re.findall(r"\.((?:\\.|[\w-])+)", sheets)}
    said = re.sub(r"{%.*?%}|{{.*?}}", "", template.read_text())
    used = {name for names in re.findall(r'class="([^"]*)"', said) for name in names.split()}
    assert ("mb-4" in known, used - known) == (True, set())


@pytest.mark.django_db
def test_what_has_no_place_to_break_at_breaks_all_the_same() -> None:
    page = Client(headers={"host": "localhost"}).get(reverse("admin:login")).content.decode()
    assert re.findall(r'<link href="/static/(banyan/admin\.[^"]*css)"', page) == ["banyan/admin.css"]
    found = finders.find("banyan/admin.css")
    assert re.search(r"\.readonly \{\s+overflow-wrap: anywhere;", Path(str(found)).read_text())

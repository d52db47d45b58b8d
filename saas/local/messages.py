"""Brings locale/*.po up to date with the source: `make messages`, after a text for people was added or changed.

New texts come in without a translation, dropped ones move to the end of the file as obsolete, and
tests/test_translations.py fails until a person has seen to both.

The catalogue also holds what unfold, the admin's theme, says: it has no Chinese of its own.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import django
import unfold
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir, extract_python
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from saas.local.translations import LOCALE

ROOT: Final = LOCALE.parent
OURS: Final = ("saas", "tenants", "billing", "chat", "lifecycle", "templates")
THEME: Final = Path(unfold.__file__).parent
DJANGO: Final = Path(django.__file__).parent

# Which arguments hold the texts; `c` marks the context. The names are Django's.
_KEYWORDS: Final[dict[str, Any]] = {
    name + lazy: arguments
    for lazy in ("", "_lazy", "_noop")
    for name, arguments in {
        "gettext": None,
        "ngettext": (1, 2),
        "pgettext": ((1, "c"), 2),
        "npgettext": ((1, "c"), 2, 3),
    }.items()
} | {"_": None}
_NOT_OURS_TO_SHOW: Final = frozenset({"tests", "migrations", "__pycache__"})
_USED_OF_DJANGO: Final = ("conf", "contrib/admin", "contrib/auth", "contrib/contenttypes", "contrib/sessions")
# Neither is installed: what other packages bring for unfold, and forms made with crispy-forms.
_NOT_USED_OF_THEME: Final = frozenset({"contrib", "unfold_crispy", "__pycache__"})


def texts_of_source(language: str) -> Catalog:
    """Return every text that the source shows to people; of the theme's, those that Django has not in `language`."""
    catalogue = Catalog(locale=language)
    for app in OURS:
        for file, text, context in _texts(ROOT / app, skipping=_NOT_OURS_TO_SHOW):
            catalogue.add(text, context=context, locations=[(f"{app}/{file}", 0)])
    known = _texts_of_django(language)
    for file, text, context in _texts(THEME, skipping=_NOT_USED_OF_THEME):
        if (context, forms(text)[0]) not in known:
            catalogue.add(text, context=context, locations=[(f"unfold/{file}", 0)])
    return catalogue


def update(catalogue: Path) -> None:
    """Bring one .po file up to date, keeping its translations."""
    language = catalogue.parent.parent.name
    with catalogue.open("rb") as source:
        present = read_po(source, locale=language)
    # A guess at a translation by a similar text is more often wrong than right where texts are two words long.
    present.update(texts_of_source(language), no_fuzzy_matching=True, update_creation_date=False)
    with catalogue.open("wb") as target:
        write_po(target, present, width=120, include_lineno=False)


def _texts(folder: Path, *, skipping: Collection[str]) -> Iterator[tuple[str, str | tuple[str, ...], str | None]]:
    """Yield file, text (or its singular and plural) and context, by file name."""
    found = extract_from_dir(
        folder,
        method_map=[
            ("**.py", "python"),
            ("**.html", f"{__name__}:extract_template"),
            ("**.txt", f"{__name__}:extract_template"),
        ],
        keywords=_KEYWORDS,
        directory_filter=lambda path: Path(path).name not in skipping,
    )
    for file, _line, text, _comments, context in found:
        yield file, text, context


def extract_template(
    file: IO[bytes], keywords: Mapping[str, Any], comment_tags: Collection[str], options: Any
) -> Iterable[Any]:
    """Extract from a Django template, for babel: read as Django reads it, as calls, without their indentation."""
    calls = "\n".join(line.strip() for line in templatize(file.read().decode()).split("\n"))
    return extract_python(BytesIO(calls.encode()), keywords, comment_tags, options)


def _texts_of_django(language: str) -> set[tuple[str | None, str]]:
    known = set()
    for part in _USED_OF_DJANGO:
        with (DJANGO / part / "locale" / language / "LC_MESSAGES" / "django.po").open("rb") as source:
            known |= {
                (text.context, forms(text.id)[0])
                for text in read_po(source)
                if all(forms(text.string)) and not text.fuzzy
            }
    return known


def forms(text: str | Iterable[str] | None) -> list[str]:
    """Return a text, or its singular and plural, as babel has them."""
    return [text or ""] if isinstance(text, str | None) else list(text)


if __name__ == "__main__":
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/django.po")):
        update(path)

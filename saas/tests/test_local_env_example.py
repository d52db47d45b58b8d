"""Every variable that is read is explained in .env.example, and the other way round."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def read_by_settings() -> set[str]:
    return set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "saas/settings.py").read_text()))


def test_every_setting_is_explained() -> None:
    named = re.findall(r"^# ([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(read_by_settings() | {"PORT"})  # PORT is read by saas.local.launch


def test_a_copy_of_the_example_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()

    assert [line for line in lines if line and not line.startswith("#")] == []


def test_every_variable_has_words_above_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    variable = re.compile(r"# [A-Z][A-Z_]+=")
    bare = []
    for number, line in enumerate(lines):
        above = number - 1
        while variable.match(line) and variable.match(lines[above]):
            above -= 1
        if variable.match(line) and not re.match(r"# +(\w|…)", lines[above]):
            bare.append(line)

    assert bare == []

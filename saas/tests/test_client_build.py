"""What builds the client's page, and what makes of the built mini-program a tenant's."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from pytest_django import Settings

from saas.local import client
from tests.factories import host_of, make_mini_program, make_tenant


def test_the_digest_follows_every_source_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "package.json").write_text("{}")
    page = tmp_path / "src" / "page.vue"
    page.write_text("a")
    first = client.digest_of(tmp_path)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "new.js").write_text("new")
    assert client.digest_of(tmp_path) == first
    page.write_text("b")
    second = client.digest_of(tmp_path)
    page.rename(tmp_path / "src" / "other.vue")
    assert len({first, second, client.digest_of(tmp_path)}) == 3


def copied(tmp_path: Path) -> Path:
    """Copy the script into a project of its own, where nothing is built and no .venv is."""
    script = tmp_path / "saas" / "local" / "client.py"
    script.parent.mkdir(parents=True)
    script.write_bytes(Path(client.__file__).read_bytes())
    (tmp_path / "client" / "src").mkdir(parents=True)
    return script


@pytest.mark.parametrize(("wanted", "code"), [("--lenient", 0), ("test", 0), ("", 1)])
def test_without_node_it_says_what_to_do(tmp_path: Path, wanted: str, code: int) -> None:
    command = [sys.executable, "-I", str(copied(tmp_path)), *filter(None, [wanted])]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    what = "TESTED" if wanted == "test" else "BUILT"
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines() == [
        f"SKIPPED, THE CLIENT IS NOT {what}: Node 18 or newer with npm was not found.",
        "Tenants' hosts show a plain page without it. With Node 20 and a package registry at hand: make client",
    ]


def test_what_is_worth_it_is_compressed_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "big.js").write_text("x" * 5000)
    (tmp_path / "small.js").write_text("x")
    (tmp_path / "big.png").write_bytes(b"x" * 5000)
    client.compress(tmp_path)
    first = (tmp_path / "big.js.gz").read_bytes()
    client.compress(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.js", "big.js.gz", "big.png", "small.js"]
    assert (tmp_path / "big.js.gz").read_bytes() == first


def written(tmp_path: Path, slug: str, *options: str) -> tuple[dict[str, object], dict[str, object]]:
    """Write a tenant's mini-program from a built one; return its project settings and ext.json."""
    built, folder = tmp_path / "built", tmp_path / "out"
    built.mkdir(exist_ok=True)
    (built / "project.config.json").write_text(json.dumps({"appid": "touristappid", "libVersion": "3.0.0"}))
    (built / "app.json").write_text("{}")
    out = StringIO()
    call_command("mini_program", "--tenant", slug, "--built", built, "--to", folder, *options, stdout=out)
    assert (out.getvalue().strip(), (folder / "app.json").exists()) == (str(folder), True)
    return json.loads((folder / "project.config.json").read_text()), json.loads((folder / "ext.json").read_text())


@pytest.mark.django_db
def test_a_tenants_mini_program_has_its_own_id_and_server(tmp_path: Path, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant, other = make_tenant(), make_tenant()
    make_mini_program(other)
    program = make_mini_program(tenant)
    project, ext = written(tmp_path, tenant.slug)
    assert project == {"appid": program.app_id, "libVersion": "3.0.0", "projectname": tenant.slug}
    assert ext == {
        "extEnable": True,
        "extAppid": program.app_id,
        "ext": {"server": f"https://{host_of(tenant)}", "appid": program.app_id},
    }
    _project, ext = written(tmp_path, tenant.slug, "--server", "http://127.0.0.1:8000/", "--app-id", "wx123")
    assert ext["ext"] == {"server": "http://127.0.0.1:8000", "appid": "wx123"}


@pytest.mark.django_db
def test_a_mini_program_without_an_id_or_a_tenant_is_refused(tmp_path: Path) -> None:
    tenant = make_tenant()
    with pytest.raises(CommandError, match="enter its app id"):
        written(tmp_path, tenant.slug)
    with pytest.raises(CommandError, match="there is no tenant"):
        written(tmp_path, "nobody")

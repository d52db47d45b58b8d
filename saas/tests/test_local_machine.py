"""Folders, ports, keys, messages: what the launcher finds and keeps on this machine."""

import gettext
import os
import socket
import subprocess
import sys
from pathlib import Path

import environ
import pytest
from cryptography.fernet import Fernet

from saas.local.environment import LocalEnv, kept_secret, key_files, password
from saas.local.folders import Account, Folders, open_folders, require_disk
from saas.local.launch import require_database, require_redis, require_url
from saas.local.ports import PortBook, is_free, web_port
from saas.local.problem import StartError
from saas.local.screen import Screen, curl_line
from saas.local.translations import compile_catalogues

OURSELVES = Account(uid=None)


def test_the_folders_are_closed_to_others_but_for_the_way_through(tmp_path: Path) -> None:
    folders = open_folders(tmp_path / "var", OURSELVES)

    modes = [folder.stat().st_mode & 0o777 for folder in (folders.var, folders.logs, folders.run, folders.secrets)]
    assert folders == Folders(var=tmp_path / "var", servers=tmp_path / "var")
    assert modes == [0o711, 0o700, 0o700, 0o700]


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError) as problem:
        open_folders(tmp_path / "file" / "var", OURSELVES)
    assert str(problem.value) == f"The data folder {tmp_path}/file/var cannot be made: Not a directory."


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^There is no room on the disk of .*: \d+ MB are free, 10{15} MB are"):
        require_disk(tmp_path, needed=10**21)


@pytest.mark.parametrize("text", ["", "0", "65536", "eighty", "-1", "80.5"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError) as problem:
        web_port(text)
    assert str(problem.value) == f"PORT must be a number from 1 to 65535, not {text!r}."


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError) as problem:
            web_port(str(port))
    assert str(problem.value) == (
        f"Port {port} of 127.0.0.1 is in use or not allowed; stop what listens there, or set another PORT."
    )
    assert web_port(str(port)) == port


def test_a_server_keeps_its_port_while_it_is_free(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")
    first = book.port("postgres")
    other = book.port("valkey")

    assert PortBook(book.path).port("postgres") == first
    assert first != other
    with socket.create_server(("127.0.0.1", first)):
        moved = book.port("postgres")
    assert (moved != first, is_free(moved), book.port("postgres")) == (True, True, moved)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"postgres": "x"}'])
def test_a_broken_port_book_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)

    assert is_free(PortBook(tmp_path / "ports.json").port("postgres"))


def test_settings_read_what_the_launcher_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"BANYAN_TEST_A": "redis://:a#b@h:1/0", "BANYAN_TEST_B": "/a folder/with $HOME \\ and #"}
    for name in values:
        monkeypatch.delenv(name, raising=False)
    local = LocalEnv(tmp_path / "local.env")
    local.write(values)
    environ.Env.read_env(local.path)

    assert {name: environ.Env().str(name) for name in values} == values
    assert local.path.stat().st_mode & 0o777 == 0o600


def test_what_the_last_run_wrote_is_not_taken_for_the_persons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalEnv(tmp_path / "local.env").write({"BANYAN_TEST_A": "embedded", "BANYAN_TEST_B": "embedded"})
    monkeypatch.setenv("BANYAN_TEST_A", "embedded")
    monkeypatch.setenv("BANYAN_TEST_B", "my own")
    monkeypatch.setenv("BANYAN_TEST_C_FILE", "/my/own")
    local = LocalEnv(tmp_path / "local.env")

    assert [local.own(f"BANYAN_TEST_{letter}") for letter in "ABC"] == [False, True, True]
    assert ("BANYAN_TEST_A" in os.environ, os.environ["BANYAN_TEST_B"]) == (False, "my own")


def test_a_path_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a quote or a line break"):
        LocalEnv(tmp_path / "local.env").write({"SECRET_KEY_FILE": "/it's/here"})


def test_keys_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    files = key_files(tmp_path)
    first = {name: Path(path).read_text() for name, path in files.items()}
    again = {name: Path(path).read_text() for name, path in key_files(tmp_path).items()}

    assert sorted(files) == ["ENCRYPTION_KEYS_FILE", "SECRET_KEY_FILE"]
    assert again == first
    assert [Path(path).stat().st_mode & 0o777 for path in files.values()] == [0o600, 0o600]
    assert Fernet(first["ENCRYPTION_KEYS_FILE"]).decrypt(Fernet(first["ENCRYPTION_KEYS_FILE"]).encrypt(b"x")) == b"x"
    assert len(first["SECRET_KEY_FILE"]) >= 50


def test_a_kept_secret_is_never_overwritten(tmp_path: Path) -> None:
    kept_secret(tmp_path, "name", "first")

    assert kept_secret(tmp_path, "name", "second").read_text() == "first"
    assert password(tmp_path, "other") == password(tmp_path, "other")


def test_messages_are_compiled_where_they_are_stale(tmp_path: Path) -> None:
    po = tmp_path / "zh_Hans" / "LC_MESSAGES" / "django.po"
    po.parent.mkdir(parents=True)
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    po.write_text(head + 'msgid "Hello"\nmsgstr "你好"\n')

    assert [compile_catalogues(tmp_path), compile_catalogues(tmp_path)] == [1, 0]
    with po.with_suffix(".mo").open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("Hello") == "你好"


def test_the_curl_lines_survive_a_shell() -> None:
    screen = Screen(hosts=["aurora.localhost", "lotus.localhost"], logins=[], token="bny_x")
    said = subprocess.run(
        ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}; {curl_line(screen, port=8000, mini_program=True)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [
        *("-sSN", "--noproxy", "*"),
        *("-H", "Host: aurora.localhost", "-H", "Authorization: Bearer bny_x"),
        *("--data-urlencode", "message=Who are you?", "-d", "is_wxapp=1"),
        "http://127.0.0.1:8000/api/chat/stream",
    ]


@pytest.mark.parametrize("url", ["", "banyan", "mysql://u:p4ssw0rd@127.0.0.1/x", "postgres://", "postgres://h:x/y"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StartError, match=r"^DATABASE_URL must be a URL such as postgres://host/…") as problem:
        require_url(url, "DATABASE_URL", schemes=("postgres",))
    assert "p4ssw0rd" not in str(problem.value)


def test_servers_that_nobody_runs_are_one_sentence_without_the_password() -> None:
    with pytest.raises(StartError) as database:
        require_database("postgres://banyan:p4ssw0rd@127.0.0.1:1/banyan")
    with pytest.raises(StartError) as valkey:
        require_redis("redis://:p4ssw0rd@127.0.0.1:1/0")

    said = [str(database.value), str(valkey.value)]
    assert [line.split(" cannot be used: ")[0] for line in said] == [
        "DATABASE_URL: the database at 127.0.0.1:1",
        "REDIS_URL: the server at 127.0.0.1:1",
    ]
    assert ["p4ssw0rd" in line or "\n" in line for line in said] == [False, False]


def test_the_test_runner_passes_the_commands_exit_code_on_and_cleans_up() -> None:
    source = "import os, sys; print(os.environ['BANYAN_VAR']); sys.exit(7)"
    done = subprocess.run(
        [sys.executable, "-m", "saas.local.testing", "--", sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert not Path(done.stdout.strip()).exists()

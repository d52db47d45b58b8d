"""docker-compose.yml, the Dockerfile, deploy/ and the settings held against each other: no container runs here."""

import importlib
import os
import re
import shlex
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import click
import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.management import get_commands
from django.urls import resolve

from chat.views import CHAT_PATH
from tests.deployment import (
    ROOT,
    Block,
    Stage,
    compose,
    compose_variables,
    dockerfile,
    image_command,
    let_into_the_image,
    nginx,
    option,
    seconds,
    settings_variables,
)
from tests.nginx import TEMPLATE, template_variables

APP_SERVICES = ("web", "worker", "beat", "migrate")
SECRETS_FOLDER = "/run/secrets/"
STREAMING = [("location", "=", CHAT_PATH), ("location", "/v1/"), ("location", "/ws/")]


@cache
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


@cache
def configuration() -> Block:
    return nginx(TEMPLATE.read_text())


def http() -> Block:
    return configuration().one("http")


def server() -> Block:
    return http().one("server")


def final_stage() -> Stage:
    return list(dockerfile().values())[-1]


def health_check(service: str) -> str:
    kind, *words = services()[service]["healthcheck"]["test"]
    return " ".join(words) if kind == "CMD-SHELL" else shlex.join(words)


def port_of_web() -> int:
    return int(option(services()["web"]["command"], "--port"))


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "deploy" / "make-secrets.sh")
    return subprocess.run([script, str(folder)], capture_output=True, text=True, check=True)


def imports(target: str) -> bool:
    """Import "module:attribute" as uvicorn does, in a process of its own: it sets up Django once more."""
    code = f"from uvicorn.importer import import_from_string as load; load({target!r})"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def unknown_options(command: click.Command, arguments: list[str]) -> list[str]:
    known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
    given = [argument.split("=", 1)[0] for argument in arguments if argument.startswith("-")]
    return [name for name in given if name not in known]


# Commands


@pytest.mark.parametrize("command", [services()["web"]["command"], image_command()], ids=["compose", "image"])
def test_the_web_s_command_exists(command: list[str]) -> None:
    from uvicorn.main import main  # noqa: PLC0415  `uvicorn.main` is a module and a function

    program, target, *arguments = command
    assert program == "uvicorn"
    assert imports(target)
    assert unknown_options(main, arguments) == []


@pytest.mark.parametrize("service", ["worker", "beat"])
def test_celery_s_commands_exist(service: str) -> None:
    program, app, subcommand, *arguments = services()[service]["command"]
    assert (program, app, subcommand) == ("celery", "--app=saas", service)
    module = importlib.import_module(f"celery.bin.{service}")
    assert unknown_options(getattr(module, service), arguments) == []
    assert imports("saas.celery:app")


def test_the_worker_s_health_check_asks_for_the_worker_s_own_name() -> None:
    from celery.bin.control import inspect  # noqa: PLC0415  `celery.bin.inspect` does not exist

    words = shlex.split(health_check("worker"))
    assert words[:5] == ["celery", "--app", "saas", "inspect", "ping"]
    assert unknown_options(inspect, words[5:]) == []
    name = option(services()["worker"]["command"], "--hostname")
    assert option(words, "--destination") == name.replace("%h", "$(hostname)")


def test_the_management_commands_exist() -> None:
    shell = services()["migrate"]["command"]
    assert shell[:2] == ["sh", "-c"]
    named = re.findall(r"manage\.py (\w+)", f"{shell[2]} {' '.join(dockerfile()['build'].all('RUN'))}")
    assert named == ["check", "migrate", "collectstatic"]
    assert [name for name in named if name not in get_commands()] == []


# Ports and names


def test_the_web_s_port_is_the_same_everywhere() -> None:
    port = port_of_web()
    assert option(services()["web"]["command"], "--host") == "0.0.0.0"  # noqa: S104  inside its own container
    assert final_stage().all("EXPOSE") == [str(port)]
    assert option(image_command(), "--port") == str(port)
    assert services()["web"]["expose"] == [str(port)]
    assert template_variables()["BANYAN_UPSTREAM"] == f"web:{port}"
    assert f"http://127.0.0.1:{port}/" in health_check("web")


def test_nginx_s_port_is_the_same_everywhere_and_the_only_one_published() -> None:
    port = services()["nginx"]["environment"]["BANYAN_LISTEN"]
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    # On the loopback unless told otherwise: there is no TLS here.
    assert published == {"nginx": [f"127.0.0.1:8080:{port}"]}
    assert f"http://127.0.0.1:{port}/" in health_check("nginx")


@pytest.mark.parametrize("service", ["web", "nginx"])
def test_the_pages_that_health_checks_ask_for_exist(service: str) -> None:
    found = re.search(r"http://[\d.:]+(/\w+)", health_check(service))
    assert found is not None
    assert resolve(found[1]).url_name == "healthz"


def test_services_that_talk_share_a_network() -> None:
    networks = {name: set(service["networks"]) for name, service in services().items()}
    assert networks == {
        "web": {"front", "data"},
        "worker": {"front", "data"},
        "beat": {"data"},
        "migrate": {"data"},
        "postgres": {"data"},
        "redis": {"data"},
        "nginx": {"front"},
    }
    assert compose()["networks"] == {"front": None, "data": {"internal": True}}


def test_what_is_waited_for_can_come() -> None:
    waits = [
        (name, how["condition"])
        for service in services().values()
        for name, how in service.get("depends_on", {}).items()
    ]
    assert set(waits) == {
        ("migrate", "service_completed_successfully"),
        ("postgres", "service_healthy"),
        ("redis", "service_healthy"),
        # A web is healthy when it can serve a chat; a model that is missing is set up through nginx.
        ("web", "service_started"),
    }
    assert services()["migrate"]["restart"] == "no"


def test_everything_that_stays_is_watched_and_started_again() -> None:
    staying = {name: service for name, service in services().items() if name != "migrate"}
    assert [name for name, service in staying.items() if "healthcheck" not in service] == []
    assert {service["restart"] for service in staying.values()} == {"unless-stopped"}


# The environment


@pytest.mark.parametrize("service", APP_SERVICES)
def test_settings_read_every_variable_that_the_application_is_given(service: str) -> None:
    given = {name.removesuffix("_FILE") for name in services()[service]["environment"]}
    assert given - settings_variables() == set()


def test_settings_read_every_variable_of_the_image() -> None:
    given = set().union(*(set(stage.environment()) for stage in dockerfile().values()))
    not_ours = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "DJANGO_SETTINGS_MODULE"}
    assert given - not_ours - settings_variables() == set()
    assert final_stage().environment()["DJANGO_SETTINGS_MODULE"] == os.environ["DJANGO_SETTINGS_MODULE"]


def test_a_variable_that_must_be_set_says_so_in_a_sentence() -> None:
    demanded = {variable.name: variable.complaint for variable in compose_variables() if variable.default is None}
    assert demanded == {
        "BANYAN_SECRETS": "Run deploy/make-secrets.sh and set BANYAN_SECRETS in .env to the folder it names",
        "PLATFORM_HOSTS": "Set PLATFORM_HOSTS in .env to the operator's own host names, with commas between",
    }


def test_the_documentation_names_every_variable() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    assert [variable.name for variable in compose_variables() if f"`{variable.name}`" not in text] == []


def test_the_template_uses_the_variables_it_is_given_and_no_other() -> None:
    text = TEMPLATE.read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(template_variables())
    # A variable of nginx's own must not be taken for one of them.
    assert re.findall(r"\$BANYAN_\w+", text) == []


# Secrets


def test_secrets_are_files_and_nothing_else_is_one() -> None:
    sensitive = re.compile(r"secret|password|key|token$|_url$", re.IGNORECASE)
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if name.endswith("_FILE"):
                assert value.startswith(SECRETS_FOLDER)
                assert value.removeprefix(SECRETS_FOLDER) in service["secrets"]
            elif sensitive.search(name):
                assert (name, value) == ("OPENAI_BASE_URL", "")
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\w+://[^/\s]*:[^/\s]*@", text) == []  # a password in a URL
    assert re.findall(r"[A-Za-z0-9+_=-]{32,}", re.sub(r"\$\{[^}]*\}", "", text)) == []  # a key


def test_the_script_makes_just_the_secrets_that_are_declared_and_used(tmp_path: Path) -> None:
    make_secrets(tmp_path / "made")
    declared = compose({"BANYAN_SECRETS": "/somewhere", "PLATFORM_HOSTS": "x"})["secrets"]
    assert {name: secret["file"] for name, secret in declared.items()} == {
        path.name: f"/somewhere/{path.name}" for path in (tmp_path / "made").iterdir()
    }
    used = {name for service in services().values() for name in service.get("secrets", [])}
    assert used == set(declared)


def test_secrets_fit_what_they_open(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert f"BANYAN_SECRETS={folder}\n" in make_secrets(folder).stdout
    secret = {path.name: path.read_text() for path in folder.iterdir()}
    assert [name for name, text in secret.items() if text != text.strip()] == []
    assert len(secret["secret_key"]) >= 50
    Fernet(secret["encryption_keys"])  # raises ValueError if it is no key

    postgres = services()["postgres"]["environment"]
    database = urlsplit(secret["database_url"])
    assert (database.hostname, database.username, database.path, database.password) == (
        "postgres",
        postgres["POSTGRES_USER"],
        f"/{postgres['POSTGRES_DB']}",
        secret["postgres_password"],
    )
    words = shlex.split(health_check("postgres"))
    assert [option(words, f"--{name}") for name in ("port", "username", "dbname")] == [
        str(database.port),
        postgres["POSTGRES_USER"],
        postgres["POSTGRES_DB"],
    ]

    redis = urlsplit(secret["redis_url"])
    assert (redis.hostname, f"requirepass {redis.password}") == ("redis", secret["valkey.conf"])
    assert option(services()["redis"]["command"], "--port") == str(redis.port)
    assert f"-p {redis.port} " in health_check("redis")
    assert services()["redis"]["command"][1] == f"{SECRETS_FOLDER}valkey.conf"


def test_secrets_are_made_once_and_are_the_owner_s(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    make_secrets(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "openai_api_key").write_text("sk-mine")
    (folder / "redis_url").unlink()
    make_secrets(folder)
    second = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert second == {**first, "openai_api_key": b"sk-mine"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    # A container's user is neither owner nor group; on the host the folder's own mode keeps others out.
    assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o700, {0o644})


def test_production_settings_pass_the_checks_that_guard_the_migration(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    given = {name: str(value) for name, value in services()["migrate"]["environment"].items()}
    environment = {name: value.replace(SECRETS_FOLDER, f"{tmp_path}/") for name, value in given.items()}
    environment |= {"PATH": os.environ["PATH"], "BANYAN_VAR": str(tmp_path / "var")}
    check = re.search(r"manage\.py (check [^&]+) &&", services()["migrate"]["command"][2])
    assert check is not None
    command = [sys.executable, "manage.py", *check[1].split()]

    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr if run.returncode else "") == (0, "")

    del environment["ENCRYPTION_KEYS_FILE"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1


# The image


def test_what_is_copied_exists_and_is_let_in() -> None:
    sources = [
        source for stage in dockerfile().values() for where, found, _ in stage.copies() if not where for source in found
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not let_into_the_image(source)] == []


def test_every_part_of_the_application_is_copied() -> None:
    copies = dockerfile()["build"].copies()
    sources = {source for stage, found, _ in copies for source in found if stage != "client"}
    named_in_settings = [*cast("list[Path]", settings.TEMPLATES[0]["DIRS"]), *settings.LOCALE_PATHS]
    ours = {app.split(".")[0] for app in settings.INSTALLED_APPS if (ROOT / app.split(".")[0]).is_dir()}
    folders = {folder.name for folder in named_in_settings}
    assert ours | folders | {"manage.py", "requirements.txt"} == sources
    assert final_stage().copies() == [("build", ["/opt/venv"], "/opt/venv"), ("build", ["/app"], "/app")]
    # The client is built in a stage of its own, and lies where the shell looks for it.
    page = settings.CLIENT_DIR.relative_to(ROOT).as_posix()
    assert [copy for copy in copies if copy[0] == "client"] == [("client", [f"/{page}"], page)]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        "var/local.env",
        "secrets/secret_key",
        "chat/tests/test_views.py",
        "tests/nginx.py",
        "deploy",
    ],
)
def test_what_must_not_be_in_the_image_is_kept_out(path: str) -> None:
    assert not let_into_the_image(path)


def test_only_pinned_packages_go_in_and_no_tools_stay() -> None:
    installs = [
        line
        for stage in dockerfile().values()
        for line in stage.all("RUN")
        if re.search(r"\bpip [^&]*\binstall\b", line)
    ]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0].split()
    assert option(installs[0].split(), "-r") == "requirements.txt"
    assert "--without-pip" in " ".join(dockerfile()["build"].all("RUN"))
    assert "pip uninstall --yes pip" in " ".join(final_stage().all("RUN"))


def test_the_image_is_made_for_the_python_that_is_checked() -> None:
    version = re.search(r'^python_version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert dockerfile()["base"].base.startswith(f"python:{version[1]}-slim-")


def test_images_are_pinned_by_tag() -> None:
    bases = [stage.base for stage in dockerfile().values() if stage.base not in dockerfile()]
    images = bases + [service["image"] for service in services().values() if "build" not in service]
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


def test_static_files_are_collected_to_where_they_are_served_from() -> None:
    folder = final_stage().environment()["STATIC_ROOT"]
    assert f"STATIC_ROOT={folder} python manage.py collectstatic" in " ".join(dockerfile()["build"].all("RUN"))
    assert folder.startswith("/app/")


# Least privilege


def test_no_service_runs_as_root_or_may_become_it() -> None:
    (user,) = final_stage().all("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert {name: service["user"] for name, service in services().items() if "build" not in service} == {
        "postgres": "postgres",
        "redis": "valkey",
        "nginx": "nginx",
    }
    for service in services().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True


def test_what_is_written_lies_on_a_volume_or_in_memory() -> None:
    mounts = {
        name: [volume.split(":")[1] for volume in service.get("volumes", [])] for name, service in services().items()
    }
    assert option(services()["beat"]["command"], "--schedule").startswith(f"{mounts['beat'][0]}/")
    assert mounts["beat"] == [final_stage().environment()["BANYAN_VAR"]]
    # Where PostgreSQL's image keeps its data from version 18 on, and Valkey's.
    assert services()["postgres"]["image"].startswith("postgres:18")
    assert (mounts["postgres"], mounts["redis"]) == (["/var/lib/postgresql"], ["/data"])
    nginx_service = services()["nginx"]
    assert nginx_service["environment"]["NGINX_ENVSUBST_OUTPUT_DIR"] in nginx_service["tmpfs"]
    assert option(nginx_service["command"], "-p") in nginx_service["tmpfs"]


def test_volumes_are_declared_and_files_that_are_mounted_exist() -> None:
    sources = [volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])]
    named = {source for source in sources if not source.startswith(".")}
    assert named == set(compose()["volumes"])
    assert [source for source in sources if source.startswith(".") and not (ROOT / source).is_file()] == []


def test_the_template_becomes_the_file_that_nginx_reads() -> None:
    (volume,) = services()["nginx"]["volumes"]
    source, target, mode = volume.split(":")
    assert ((ROOT / source).resolve(), mode) == (TEMPLATE, "ro")
    rendered = target.removeprefix("/etc/nginx/templates/").removesuffix(".template")
    assert option(services()["nginx"]["command"], "-c") == rendered


# Time: who waits for whom


def test_an_answer_is_finished_before_the_web_is_stopped() -> None:
    web = services()["web"]
    graceful = float(option(web["command"], "--timeout-graceful-shutdown"))
    assert graceful >= settings.UPSTREAM_TOTAL_TIMEOUT
    assert seconds(web["stop_grace_period"]) >= graceful + settings.DRAIN_SECONDS
    assert seconds(services()["nginx"]["stop_grace_period"]) >= graceful


def test_a_task_is_finished_before_its_worker_is_stopped() -> None:
    assert seconds(services()["worker"]["stop_grace_period"]) >= settings.CELERY_TASK_TIME_LIMIT


def test_nginx_waits_longer_than_the_longest_answer() -> None:
    for path in STREAMING:
        (timeout,) = server().one(*path).get("proxy_read_timeout")
        assert seconds(timeout) > settings.UPSTREAM_TOTAL_TIMEOUT


def test_nginx_closes_an_idle_connection_before_the_web_does() -> None:
    (idle,) = http().one("upstream", "web").get("keepalive_timeout")
    assert float(option(services()["web"]["command"], "--timeout-keep-alive")) > seconds(idle)


# Size


def test_the_database_has_a_connection_for_every_pool() -> None:
    (limit,) = [word for word in services()["postgres"]["command"] if word.startswith("max_connections=")]
    processes = int(option(services()["web"]["command"], "--workers"))
    processes += int(option(services()["worker"]["command"], "--concurrency")) + 3  # the worker's parent, beat, migrate
    pool = int(services()["web"]["environment"]["DATABASE_POOL"])
    assert int(limit.split("=")[1]) > processes * pool


def test_nginx_may_open_a_file_for_each_of_its_connections() -> None:
    (connections,) = configuration().one("events").get("worker_connections")
    assert services()["nginx"]["ulimits"]["nofile"] > 2 * int(connections)


# nginx's file; what it does is seen in test_nginx.py


@pytest.mark.parametrize("path", STREAMING, ids=lambda path: str(path[-1]))
def test_streaming_paths_are_unbuffered_and_uncompressed(path: tuple[str, ...]) -> None:
    location = server().one(*path)
    assert [location.get(name) for name in ("proxy_buffering", "proxy_cache", "gzip")] == [("off",)] * 3


def test_every_location_sends_the_same_headers_to_the_same_web() -> None:
    forwarding = [block for block in server().blocks if not block.head[1].startswith("@")]
    assert {block.get("proxy_pass") for block in forwarding} == {("http://web",)}
    # One header set in a location would drop all those of the server, the tenant's host among them.
    assert [
        block.head for block in forwarding if any(name == "proxy_set_header" for name, *_ in block.directives)
    ] == []
    assert http().one("upstream", "web").get("server") == ("${BANYAN_UPSTREAM}",)


def test_every_host_is_a_tenant_s() -> None:
    assert (server().get("server_name"), server().get("listen")) == (("_",), ("${BANYAN_LISTEN}", "default_server"))


def test_the_web_believes_nginx_because_only_nginx_reaches_it() -> None:
    web = services()["web"]
    assert web["environment"]["BEHIND_PROXY"] == "true"
    assert "--proxy-headers" in web["command"]
    assert option(web["command"], "--forwarded-allow-ips") == "*"
    assert "ports" not in web
    assert ("proxy_set_header", "X-Forwarded-For", "$remote_addr") in server().directives
    assert ("proxy_set_header", "X-Forwarded-Proto", "$client_scheme") in server().directives


def test_the_access_log_holds_nothing_that_may_carry_a_token() -> None:
    (_, name, _, *parts) = next(found for found in http().directives if found[0] == "log_format")
    logged = set(re.findall(r"\$(\w+)", "".join(parts)))
    assert http().get("access_log") == ("/dev/stdout", name)
    assert {
        found for found in logged if re.match(r"args?$|arg_|request$|request_uri|query_string|http_|cookie_", found)
    } == set()

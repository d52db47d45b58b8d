"""The other ways through: nginx, which only forwards, and the two gateways of the field, each as its makers install it.

They are installed once, at the versions below, into environments of their own under `var/bench`.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.load import Target
from bench.processes import SERVER_CORE, process
from bench.product import ROOT, post
from saas.local.ports import free_port
from tests.nginx import find_nginx

# Any will do for the upstream; LiteLLM does not start without one that is hard to guess.
KEY: Final = "sk-" + secrets.token_hex(24)
LITELLM, PORTKEY = "1.108.7", "1.15.2"
# With the newer server that the gateway's own ranges bring, it answers 500 to every call ("TypeError: immutable").
_PORTKEY_PACKAGES: Final = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": PORTKEY},
    "overrides": {"hono": "4.9.7", "@hono/node-server": "1.12.0"},
}
HOME: Final = ROOT / "var" / "bench"

_NGINX: Final = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr emerg;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream provider {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A running gateway: its port, its processes, and the headers that it wants besides."""

    port: int
    process: psutil.Process
    headers: Mapping[str, str] | None = None

    def ask(self, model: str, count: int) -> Target:
        """Return so many questions."""
        return _questions(self.port, model, count, headers=self.headers)


def _body(model: str) -> dict[str, object]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "How is the weather up there?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def direct(upstream_port: int, model: str, count: int) -> Target:
    """Return so many questions to the upstream itself."""
    return _questions(upstream_port, model, count)


def _questions(port: int, model: str, count: int, *, headers: Mapping[str, str] | None = None) -> Target:
    return Target(port, [post("/v1/chat/completions", _body(model), token=KEY, headers=headers)] * count)


@contextmanager
def nginx(folder: Path, upstream_port: int, _models: Sequence[str]) -> Iterator[Peer]:
    """Run nginx before the upstream: what forwarding costs at the least."""
    port = free_port()
    binary = find_nginx(HOME / "nginx")
    home = folder / "nginx"
    home.mkdir(exist_ok=True)
    home.chmod(0o777)  # started by root, its worker is another user
    (home / "nginx.conf").write_text(_NGINX.format(port=port, upstream=upstream_port))
    command = [str(binary.path), "-p", str(home), "-c", "nginx.conf"]
    with process(
        command, port=port, cores=SERVER_CORE, log=folder / "nginx.log", environment=dict(binary.environment)
    ) as running:
        yield Peer(port=port, process=running)


@contextmanager
def litellm(folder: Path, upstream_port: int, models: Sequence[str]) -> Iterator[Peer]:
    """Run LiteLLM's proxy with one worker, without a database of its own: one key, no spending."""
    home = HOME / f"litellm-{LITELLM}"
    if not (home / "bin" / "litellm").exists():
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "pip"), "install", "--quiet", f"litellm[proxy]=={LITELLM}")
    entries = "".join(
        f"  - model_name: '{model}'\n    litellm_params:\n      model: 'openai/{model}'\n"
        f"      api_base: http://127.0.0.1:{upstream_port}/v1\n      api_key: sk-x\n"
        for model in models
    )
    configuration = folder / "litellm.yaml"
    configuration.write_text(f"model_list:\n{entries}litellm_settings:\n  telemetry: false\n")
    port = free_port()
    command = [
        str(home / "bin" / "litellm"),
        "--config",
        str(configuration),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
    with process(
        command, port=port, cores=SERVER_CORE, log=folder / "litellm.log", environment=environment, folder=folder
    ) as running:
        yield Peer(port=port, process=running)


@contextmanager
def portkey(folder: Path, upstream_port: int, _models: Sequence[str]) -> Iterator[Peer]:
    """Run Portkey's gateway, on Node."""
    home = HOME / f"portkey-{PORTKEY}"
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(json.dumps(_PORTKEY_PACKAGES))
        _run("npm", "install", "--silent", "--ignore-scripts", "--prefix", str(home))
    port = free_port()
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
    }
    with process(
        ["node", str(program), f"--port={port}", "--headless"],
        port=port,
        cores=SERVER_CORE,
        log=folder / "portkey.log",
        environment={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"},
    ) as running:
        yield Peer(port=port, process=running, headers=headers)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

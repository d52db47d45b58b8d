"""Background work about people, and imports of long files."""

import uuid

import structlog
from celery import shared_task

from tenants import codes, import_jobs, scope, webauth

log = structlog.get_logger(__name__)


@shared_task(name="tenants.tasks.forget_codes")
def forget_codes() -> int:
    """Delete codes and ways to WeChat that no limit looks at any more; return how many."""
    with scope.platform("what no tenant needs any more"):
        forgotten = codes.forget() + webauth.forget()
    log.info("codes_forgotten", rows=forgotten)
    return forgotten


@shared_task(name=import_jobs.TASK, time_limit=3600)
def work_on_import(job_id: str, tenant_id: int) -> str:
    """Look at a long file, or write it. Delivered twice, no line is written twice."""
    return import_jobs.work(tenant_id=tenant_id, job_id=uuid.UUID(job_id))


@shared_task(name="tenants.tasks.sweep_imports")
def sweep_imports() -> int:
    """Go on with imports whose worker died, and throw away what nobody confirmed; return how many."""
    return import_jobs.sweep()

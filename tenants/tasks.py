"""Background work about people."""

import structlog
from celery import shared_task

from tenants import codes, scope, webauth

log = structlog.get_logger(__name__)


@shared_task(name="tenants.tasks.forget_codes")
def forget_codes() -> int:
    """Delete codes and ways to WeChat that no limit looks at any more; return how many."""
    with scope.platform("what no tenant needs any more"):
        forgotten = codes.forget() + webauth.forget()
    log.info("codes_forgotten", rows=forgotten)
    return forgotten

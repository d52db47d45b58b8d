"""What beat runs for billing: read by `saas.celery` before Django's models are there, so nothing is imported here.

Seconds between two runs. A run that is late costs nothing but time: each finds what is due by itself.
"""

from typing import Any, Final

BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "billing-expire-holds": {"task": "billing.tasks.expire_holds", "schedule": 30.0, "options": {"expires": 30}},
    "billing-sweep-unrecorded": {
        "task": "billing.tasks.sweep_unrecorded",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
}

"""The Celery application and what beat starts: `celery -A saas worker`, `celery -A saas beat`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

app = Celery("banyan")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# Seconds between runs. Every task here is idempotent: a second beat, or a late one, does no harm.
app.conf.beat_schedule = {
    "record usage that the broker lost": {"task": "billing.tasks.sweep_unrecorded", "schedule": 30.0},
    "ask for payments that nobody told of": {"task": "billing.tasks.poll_orders", "schedule": 10.0},
    "free expired holds": {"task": "billing.tasks.expire_holds", "schedule": 60.0},
    "close messages whose process died": {"task": "chat.tasks.close_orphans", "schedule": 60.0},
}

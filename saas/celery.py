"""The Celery application: `celery -A saas worker`, `celery -A saas beat`. Beat's schedule is in the settings."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

app = Celery("banyan")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

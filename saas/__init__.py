"""The shell: wiring, no business rule."""

from saas.celery import app as celery_app

__all__ = ["celery_app"]

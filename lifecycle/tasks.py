"""Celery's side of tenants' lives."""

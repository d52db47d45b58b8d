"""The embedded default: PostgreSQL, Valkey and a model from wheels, under one supervisor (`manage.py up`)."""

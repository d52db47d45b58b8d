"""Breaks the running product and counts the money: `make chaos`, or `python -m tests.chaos --short`.

Real servers, a real upstream over HTTP (scripted, so that it breaks where we want), real signals. After each row the
audit of every tenant must find nothing, and the row's own promise must hold.
"""

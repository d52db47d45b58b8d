"""Migrates an empty database and opens tenants in it: run by `bench.product`, prints who may ask as JSON."""

import json
import sys
from dataclasses import asdict

import django

django.setup()

from django.core.management import call_command  # noqa: E402  needs the app registry

from bench.product import Customer  # noqa: E402
from tests.shop import YUAN, open_shop  # noqa: E402


def main() -> None:
    """Do it."""
    wanted = json.loads(sys.argv[1])
    call_command("migrate", verbosity=0)
    tenants = []
    for _ in range(wanted["tenants"]):
        shop = open_shop(f"http://127.0.0.1:{wanted['upstream_port']}/v1", wallet=1_000_000 * YUAN)
        for model in wanted["models"]:
            shop.offer(model, slug=model.replace(":", "-"), max_output_tokens=8192, context_window=16384)
        people = [shop.person(cash=1000 * YUAN) for _ in range(wanted["customers"])]
        tenants.append([asdict(Customer(host=shop.host, token=person.token)) for person in people])
    sys.stdout.write(json.dumps(tenants))


if __name__ == "__main__":
    main()

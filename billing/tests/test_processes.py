"""Real processes on one database, at the same users and codes, in any order: the books are right at the end."""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any

from cryptography.fernet import Fernet

from billing import audit, holds, usage
from billing.models import Hold, RedeemCode, Transfer, UsageAdjustment
from billing.tests.conftest import Shop
from billing.tests.workload import START
from tenants import scope
from tests.factories import make_codes, set_free_quota
from tests.servers import ROOT, database_url_of_this_test

PROCESSES, STEPS = 4, 150


def test_processes_at_the_same_users_and_codes_leave_the_books_right(committed_shop: Shop, settings: Any) -> None:
    set_free_quota(committed_shop.tenant.pk, group="free", per_day=2)
    shop, key = committed_shop, Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [key]
    what = {
        "tenant_id": shop.tenant.pk,
        "sku": shop.sku,
        "users": [shop.user.pk, *[shop.open_more().pk for _ in range(2)]],
        "codes": make_codes(shop.tenant, 6, amount=30_000),
    }
    inherited = {name: value for name, value in os.environ.items() if name != "ENCRYPTION_KEYS_FILE"}
    environment = {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "saas.settings",
        "DATABASE_URL": database_url_of_this_test(),
        "ENCRYPTION_KEYS": key,
    }
    came = Counter[str]()
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", START, json.dumps(what), "--seed", str(seed), "--steps", str(STEPS)],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for seed in range(PROCESSES)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in running:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0
            came += Counter(json.loads(said))
    assert came.total() == PROCESSES * STEPS
    with scope.tenant(shop.tenant.pk):
        states = Counter(Hold.objects.values_list("state", flat=True))
        assert states.total() == came["admitted"] + came["free"]
        assert Hold.objects.filter(reason="stop").count() == came["settled"]
        assert Hold.objects.filter(reason="failed").count() == came["voided"]
        assert UsageAdjustment.objects.count() == came["adjusted"]
        assert RedeemCode.objects.exclude(redeemed_at=None).count() == came["redeemed"]
        assert Transfer.objects.filter(kind="redeem").count() == came["redeemed"]
        open_holds = list(Hold.objects.filter(state="held"))
        posted = list(Hold.objects.filter(state="posted", recorded_at=None))
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    for hold in open_holds:
        assert holds.void(tenant_id=shop.tenant.pk, hold_id=hold.pk, reason="failed")
    for hold in posted:
        assert usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)

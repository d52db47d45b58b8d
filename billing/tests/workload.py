"""One process of many that do whatever they like with the same users and codes.

It is started as `START`, since Django must be set up before this is read. It prints how often each thing came about, as
JSON. A deadlock, a broken constraint or a balance below zero ends it.
"""

import argparse
import json
import random
import sys
import uuid
from collections import Counter
from datetime import timedelta

from django.db.models.functions import Now

from billing import adjustments, holds, ledger, redeem, usage
from billing.models import Hold
from billing.pricing import Quantities
from tenants import scope
from tenants.errors import ProductError

START = "import django; django.setup(); from billing.tests.workload import main; main()"


class Workload:
    """Steps at random, the same ones for the same seed; what comes of them depends on the others."""

    def __init__(self, *, tenant_id: int, sku: str, users: list[int], codes: list[str], seed: int) -> None:
        self.tenant_id, self.sku, self.users, self.codes = tenant_id, sku, users, codes
        self.random = random.Random(seed)
        self.mine: list[uuid.UUID] = []
        self.came = Counter[str]()

    def run(self, steps: int) -> dict[str, int]:
        """Do so many things, then leave what is open, as a process that dies does."""
        todo = [
            *[self.admit] * 5,
            *[self.settle] * 4,
            *[self.late] * 2,
            self.void,
            self.expire,
            self.credit,
            self.redeem,
            self.fill,
        ]
        for _ in range(steps):
            self.came[self.random.choice(todo)()] += 1
        return dict(self.came)

    def admit(self) -> str:
        request = holds.HoldRequest(
            tenant_id=self.tenant_id,
            user_id=self.random.choice(self.users),
            # Few enough that processes meet at the same key.
            key=f"key {self.random.randrange(400)}",
            sku=self.sku,
            prompt_tokens=self.random.randrange(1000),
            max_completion_tokens=1000,
            min_completion_tokens=10,
            quota_group=self.random.choice(["default", "free"]),
            paid_way=True,
            is_guest=False,
        )
        try:
            hold = holds.admit(request)
        except holds.DuplicateKeyError as known:
            self.mine.append(known.hold_id)  # two processes now end the same hold
            return "duplicate"
        except ProductError as refusal:
            return refusal.type
        self.mine.append(hold.pk)
        if self.random.random() < 0.8:
            holds.dispatch(tenant_id=self.tenant_id, hold_id=hold.pk)
        return "free" if hold.free else "admitted"

    def one(self) -> uuid.UUID:
        return self.random.choice(self.mine) if self.mine else uuid.uuid4()

    def usage(self) -> holds.Usage:
        return holds.Usage(
            prompt=self.random.randrange(1500), completion=self.random.randrange(1500), source="upstream"
        )

    def settle(self) -> str:
        pk = self.one()
        receipt = holds.settle(tenant_id=self.tenant_id, hold_id=pk, usage=self.usage(), reason="stop")
        if self.random.random() < 0.5:
            usage.record(tenant_id=self.tenant_id, hold_id=pk)
        return "settled" if receipt else "ended before"

    def void(self) -> str:
        return "voided" if holds.void(tenant_id=self.tenant_id, hold_id=self.one(), reason="failed") else "ended before"

    def expire(self) -> str:
        pk = self.one()
        counted = Quantities(prompt=self.random.randrange(1000), completion=self.random.randrange(1000))
        holds.checkpoint(tenant_id=self.tenant_id, hold_id=pk, quantities=counted)
        with scope.tenant(self.tenant_id):
            Hold.objects.filter(pk=pk).update(expires_at=Now() - timedelta(seconds=1))
        return f"expired {min(holds.expire_holds(), 1)}"

    def late(self) -> str:
        receipt = adjustments.adjust(tenant_id=self.tenant_id, hold_id=self.one(), usage=self.usage())
        return "adjusted" if receipt else "not to be adjusted"

    def credit(self) -> str:
        ledger.credit_user(
            tenant_id=self.tenant_id,
            user_id=self.random.choice(self.users),
            amount=5_000,
            kind=self.random.choice(["cash", "gift"]),
            ref=uuid.uuid4().hex,
            reason="",
            actor="test",
        )
        return "credited"

    def redeem(self) -> str:
        try:
            redeem.redeem(
                tenant_id=self.tenant_id, user_id=self.random.choice(self.users), code=self.random.choice(self.codes)
            )
        except ProductError as refusal:
            return refusal.type
        return "redeemed"

    def fill(self) -> str:
        ledger.credit_tenant_wallet(
            tenant_id=self.tenant_id, amount=2_000, ref=uuid.uuid4().hex, reason="", actor="test"
        )
        return "filled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", type=json.loads)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # all begin at once
    sys.stdout.write(json.dumps(Workload(**options.what, seed=options.seed).run(options.steps)))

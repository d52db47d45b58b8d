"""A form that is sent twice at once, by two real threads on a real database."""

from functools import partial

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from pytest_django import Settings

from billing import audit
from billing.models import RedeemBatch, RedeemCode
from billing.tests.test_concurrency import together
from tenants import scope
from tests.factories import make_tenant
from tests.test_import_jobs import job_of, nicknames, people, planned, work
from tests.test_imports import BATCHES, confirm, staff_of, upload


@pytest.mark.usefixtures("committed_db")
def test_two_confirmations_at_once_make_the_codes_once(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant()
    clients = [staff_of(tenant), staff_of(tenant, "finance")]
    page = upload(clients[0], BATCHES, "Spring,10,3,gift,,")

    def send(client: Client) -> int:
        return int(confirm(client, BATCHES, page).status_code)

    assert sorted(together([partial(send, client) for client in clients])) == [200, 302]
    with scope.tenant(tenant.pk):
        assert (RedeemBatch.objects.count(), RedeemCode.objects.count()) == (1, 3)


@pytest.mark.usefixtures("committed_db")
def test_two_deliveries_at_once_write_each_line_once(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant()
    client = staff_of(tenant)
    page, job = planned(client, tenant, people(450, gift="0.01"))
    client.post(page, {"confirmed": "yes"})
    together([partial(work, job) for _ in range(3)])
    done = job_of(tenant)
    assert (done.state, done.added, len(nicknames(tenant))) == ("done", 450, 450)
    assert audit.audit_tenant(tenant_id=tenant.pk) == []

"""Two owners at once, with real connections."""

from threading import Barrier, Thread

from django.db import connection

from tenants import scope, staffing
from tenants.errors import ProductError
from tenants.models import Membership
from tenants.tests.conftest import make_house
from tests.factories import make_staff


def test_two_owners_who_take_each_other_out_leave_one(committed_db: None) -> None:
    house = make_house()
    make_staff(house.tenant)
    make_staff(house.tenant)
    barrier = Barrier(2)
    refused: list[str] = []

    def take_out(pk: int) -> None:
        try:
            with scope.tenant(house.tenant.pk):
                row = Membership.objects.get(pk=pk)
                barrier.wait(timeout=30)
                staffing.remove(membership=row)
        except ProductError as failure:
            refused.append(failure.type)
        finally:
            connection.close()

    with scope.tenant(house.tenant.pk):
        threads = [Thread(target=take_out, args=(row.pk,)) for row in Membership.objects.all()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with scope.tenant(house.tenant.pk):
        assert (Membership.objects.count(), refused) == (1, ["last_owner"])

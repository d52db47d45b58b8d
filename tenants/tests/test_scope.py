"""No scope, no rows; one scope, one tenant's rows: sync and async, reads and writes."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest
from asgiref.sync import async_to_sync
from django.db import IntegrityError, connection, models
from django.db.models.constraints import BaseConstraint
from django.test.utils import isolate_apps
from django.utils import timezone

from tenants import scope
from tenants.models import AccessToken, Domain, EndUser, Tenant, WeChatIdentity
from tenants.tests.conftest import House
from tests.factories import make_tenant, make_user

pytestmark = pytest.mark.django_db

T = TypeVar("T")
Use = Callable[[], Any]
AsyncUse = Callable[[], Awaitable[Any]]


async def _names(rows: Any) -> list[str]:
    return [row.nickname async for row in rows]


SYNC: dict[str, Use] = {
    "all": lambda: list(EndUser.objects.all()),
    "get": lambda: EndUser.objects.get(username="alice"),
    "count": EndUser.objects.count,
    "exists": EndUser.objects.exists,
    "first": EndUser.objects.first,
    "values": lambda: list(EndUser.objects.values_list("nickname")),
    "aggregate": lambda: EndUser.objects.aggregate(models.Count("id")),
    "in_bulk": EndUser.objects.in_bulk,
    "filter": lambda: list(EndUser.objects.filter(username="alice")),
    "exclude": lambda: list(EndUser.objects.exclude(username="bob")),
    "select_related": lambda: list(AccessToken.objects.select_related("user")),
    "prefetch_related": lambda: list(EndUser.objects.prefetch_related("access_tokens")),
    "iterator": lambda: list(EndUser.objects.iterator()),
    "base manager": lambda: list(EndUser._base_manager.all()),
    "default manager": lambda: list(EndUser._default_manager.all()),
    "using": lambda: list(EndUser.objects.using("default")),
    "raw": lambda: EndUser.objects.raw("SELECT * FROM tenants_enduser"),
    "create": lambda: EndUser.objects.create(tenant_id=1, username="eve"),
    "save": lambda: EndUser(tenant_id=1, username="eve").save(),
    "delete": lambda: EndUser(pk=1, tenant_id=1).delete(),
    "bulk_create": lambda: EndUser.objects.bulk_create([EndUser(tenant_id=1)]),
    "bulk_update": lambda: EndUser.objects.bulk_update([EndUser(pk=1, tenant_id=1)], ["nickname"]),
    "update": lambda: EndUser.objects.update(nickname="eve"),
    "queryset delete": lambda: EndUser.objects.filter(username="alice").delete(),
    "get_or_create": lambda: EndUser.objects.get_or_create(tenant_id=1, username="eve"),
    "update_or_create": lambda: EndUser.objects.update_or_create(tenant_id=1, username="eve"),
    "tenant's related manager": lambda: list(Tenant(pk=1).domains.all()),
    "user's related manager": lambda: list(EndUser(pk=1, tenant_id=1).access_tokens.all()),
    "forward key": lambda: AccessToken(tenant_id=1, user_id=1).user,
    "refresh": lambda: EndUser(pk=1, tenant_id=1).refresh_from_db(),
}

ASYNC: dict[str, AsyncUse] = {
    "aget": lambda: EndUser.objects.aget(username="alice"),
    "acount": EndUser.objects.acount,
    "aexists": EndUser.objects.aexists,
    "afirst": EndUser.objects.afirst,
    "async for": lambda: _names(EndUser.objects.all()),
    "async for filter": lambda: _names(EndUser.objects.filter(username="alice")),
    "async for exclude": lambda: _names(EndUser.objects.exclude(username="bob")),
    "async for select_related": lambda: _names(EndUser.objects.select_related("tenant")),
    "async for prefetch_related": lambda: _names(EndUser.objects.prefetch_related("access_tokens")),
    "acreate": lambda: EndUser.objects.acreate(tenant_id=1, username="eve"),
    "asave": lambda: EndUser(tenant_id=1, username="eve").asave(),
    "adelete": lambda: EndUser(pk=1, tenant_id=1).adelete(),
    "abulk_create": lambda: EndUser.objects.abulk_create([EndUser(tenant_id=1)]),
    "abulk_update": lambda: EndUser.objects.abulk_update([EndUser(pk=1, tenant_id=1)], ["nickname"]),
    "aupdate": lambda: EndUser.objects.aupdate(nickname="eve"),
    "aget_or_create": lambda: EndUser.objects.aget_or_create(tenant_id=1, username="eve"),
    "aupdate_or_create": lambda: EndUser.objects.aupdate_or_create(tenant_id=1, username="eve"),
    "arefresh": lambda: EndUser(pk=1, tenant_id=1).arefresh_from_db(),
}


def run(coroutine_function: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on an event loop whose thread hops come back to this thread, and so to this transaction."""

    async def main() -> T:
        return await coroutine_function()

    return async_to_sync(main)()


@pytest.mark.parametrize("use", SYNC.values(), ids=SYNC.keys())
def test_without_a_scope_nothing_is_read_or_written(use: Use, aurora: House) -> None:
    with pytest.raises(scope.NoScopeError):
        use()


@pytest.mark.parametrize("use", ASYNC.values(), ids=ASYNC.keys())
def test_without_a_scope_nothing_is_read_or_written_in_async_code(use: AsyncUse, aurora: House) -> None:
    with pytest.raises(scope.NoScopeError):
        run(use)


def test_without_a_scope_the_refused_writes_left_nothing(aurora: House) -> None:
    def rows() -> set[tuple[object, ...]]:
        with scope.platform("look"):
            return set(EndUser.objects.values_list("id", "tenant", "username", "nickname"))

    before = rows()
    for use in SYNC.values():
        with pytest.raises(scope.NoScopeError):
            use()
    assert (rows(), (aurora.alice.pk, aurora.tenant.pk, "alice", aurora.alice.nickname) in before) == (before, True)


READS: dict[str, Callable[[], list[str]]] = {
    "all": lambda: [user.nickname for user in EndUser.objects.all()],
    "filter": lambda: [user.nickname for user in EndUser.objects.filter(username="alice")],
    "exclude": lambda: [user.nickname for user in EndUser.objects.exclude(username="bob")],
    "get": lambda: [EndUser.objects.get(username="alice").nickname],
    "values": lambda: list(EndUser.objects.values_list("nickname", flat=True)),
    "base manager": lambda: [user.nickname for user in EndUser._base_manager.all()],
    "select_related": lambda: [token.user.nickname for token in AccessToken.objects.select_related("user")],
    "forward key": lambda: [token.user.nickname for token in AccessToken.objects.all()],
    "prefetch_related": lambda: [
        token.user.nickname
        for user in EndUser.objects.prefetch_related("access_tokens__user")
        for token in user.access_tokens.all()
    ],
    "or": lambda: [u.nickname for u in EndUser.objects.filter(username="alice") | EndUser.objects.filter(phone="1")],
    "union": lambda: [u.nickname for u in EndUser.objects.all().union(EndUser.objects.filter(username="alice"))],
    "async for": lambda: run(lambda: _names(EndUser.objects.all())),
    "async for exclude": lambda: run(lambda: _names(EndUser.objects.exclude(username="bob"))),
    "async for prefetch_related": lambda: run(lambda: _names(EndUser.objects.prefetch_related("access_tokens"))),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_scope_shows_its_own_tenants_rows(read: Callable[[], list[str]], aurora: House, lotus: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        assert read() == [aurora.alice.nickname]
    with scope.tenant(lotus.tenant.pk):
        assert read() == [lotus.alice.nickname]


def test_async_counts_see_one_tenant(aurora: House, lotus: House) -> None:
    make_user(lotus.tenant, username="bob")
    with scope.tenant(aurora.tenant.pk):
        assert run(EndUser.objects.acount) == 1
        assert run(lambda: EndUser.objects.filter(username="bob").aexists()) is False
        assert run(lambda: EndUser.objects.aget(username="alice")) == aurora.alice
        with pytest.raises(EndUser.DoesNotExist):
            run(lambda: EndUser.objects.aget(pk=lotus.alice.pk))


def test_another_tenants_row_in_hand_opens_nothing(aurora: House, lotus: House) -> None:
    with scope.tenant(lotus.tenant.pk):
        token = AccessToken.objects.get()
    with scope.tenant(aurora.tenant.pk):
        assert list(lotus.alice.access_tokens.all()) == []
        assert list(lotus.tenant.domains.all()) == []
        with pytest.raises(EndUser.DoesNotExist):
            _ = token.user
        with pytest.raises(EndUser.DoesNotExist):
            lotus.alice.refresh_from_db()


def test_a_query_set_keeps_the_scope_in_which_it_was_begun(aurora: House, lotus: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        rows = EndUser.objects.all()
    with scope.tenant(lotus.tenant.pk):
        assert list(rows.exclude(username="bob")) == [aurora.alice]


def _row(house: House) -> EndUser:
    return EndUser(tenant=house.tenant, username="eve")


FOREIGN_WRITES: dict[str, Callable[[House], Any]] = {
    "save": lambda other: other.alice.save(),
    "save some fields": lambda other: other.alice.save(update_fields=["nickname"]),
    "delete": lambda other: other.alice.delete(),
    "create": lambda other: EndUser.objects.create(tenant=other.tenant, username="eve"),
    "create with no tenant": lambda _: EndUser.objects.create(username="eve"),
    "bulk_create": lambda other: EndUser.objects.bulk_create([_row(other)]),
    "bulk_update": lambda other: EndUser.objects.bulk_update([other.alice], ["nickname"]),
    "get_or_create": lambda other: EndUser.objects.get_or_create(tenant=other.tenant, username="eve"),
    "update tenant": lambda other: EndUser.objects.update(tenant=other.tenant),
    "update tenant_id": lambda other: EndUser.objects.update(tenant_id=other.tenant.pk),
    "related create": lambda other: other.tenant.domains.create(host="eve.test"),
    "asave": lambda other: run(other.alice.asave),
    "adelete": lambda other: run(other.alice.adelete),
    "abulk_create": lambda other: run(lambda: EndUser.objects.abulk_create([_row(other)])),
}


@pytest.mark.parametrize("write", FOREIGN_WRITES.values(), ids=FOREIGN_WRITES.keys())
def test_a_scope_refuses_to_write_another_tenants_rows(
    write: Callable[[House], Any], aurora: House, lotus: House
) -> None:
    with scope.tenant(aurora.tenant.pk), pytest.raises(scope.WrongScopeError):
        write(lotus)
    with scope.platform("look"):
        rows = EndUser.objects.filter(tenant__in=[aurora.tenant, lotus.tenant])
        assert set(rows.values_list("tenant", "username", "nickname")) == {
            (aurora.tenant.pk, "alice", aurora.alice.nickname),
            (lotus.tenant.pk, "alice", lotus.alice.nickname),
        }


def test_bulk_update_may_not_move_a_row(aurora: House, lotus: House) -> None:
    with scope.tenant(aurora.tenant.pk), pytest.raises(scope.WrongScopeError):
        EndUser.objects.bulk_update([aurora.alice], ["tenant"])


def test_bulk_writes_in_the_tenants_own_scope_work(aurora: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        EndUser.objects.bulk_create([EndUser(tenant=aurora.tenant, username="bob")])
        aurora.alice.nickname = "new"
        assert EndUser.objects.bulk_update([aurora.alice], ["nickname"]) == 1
        assert set(EndUser.objects.values_list("username", "nickname")) == {("alice", "new"), ("bob", "")}


def test_an_update_in_bulk_stays_with_the_tenant(aurora: House, lotus: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        assert EndUser.objects.update(nickname="changed") == 1
        assert EndUser.objects.filter(pk=lotus.alice.pk).update(nickname="changed") == 0
        assert EndUser.objects.filter(pk=lotus.alice.pk).delete() == (0, {})
    with scope.tenant(lotus.tenant.pk):
        assert EndUser.objects.get().nickname == lotus.alice.nickname


def test_an_upsert_cannot_overwrite_another_tenants_row(aurora: House, lotus: House) -> None:
    """The host is unique everywhere: ON CONFLICT (host) would find, and change, the other tenant's row."""
    mine = Domain(tenant=aurora.tenant, host=lotus.host)
    with scope.tenant(aurora.tenant.pk), pytest.raises(scope.WrongScopeError):
        Domain.objects.bulk_create([mine], update_conflicts=True, unique_fields=["host"], update_fields=["created_at"])


def test_an_upsert_by_tenant_works(aurora: House) -> None:
    row = EndUser(tenant=aurora.tenant, username="alice", nickname="upserted")
    with scope.tenant(aurora.tenant.pk):
        EndUser.objects.bulk_create(
            [row], update_conflicts=True, unique_fields=["tenant", "username"], update_fields=["nickname"]
        )
        assert EndUser.objects.get().nickname == "upserted"


def test_raw_sql_is_refused_in_any_scope(aurora: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        for rows in (EndUser.objects, EndUser.objects.all()):
            with pytest.raises(scope.ScopeError, match="raw"):
                rows.raw("SELECT * FROM tenants_enduser")


def test_the_platforms_scope_sees_every_tenant(aurora: House, lotus: House) -> None:
    with scope.platform("the test looks at both"):
        assert set(EndUser.objects.all()) >= {aurora.alice, lotus.alice}
        assert scope.current_tenant_id() is None


def test_the_platforms_scope_wants_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"), scope.platform(""):
        pass


def test_scopes_nest_downwards_only(aurora: House, lotus: House) -> None:
    with scope.platform("sweep"), scope.tenant(aurora.tenant.pk):
        assert list(EndUser.objects.all()) == [aurora.alice]
        with scope.tenant(aurora.tenant.pk):
            assert scope.current_tenant_id() == aurora.tenant.pk
        with pytest.raises(scope.WrongScopeError), scope.tenant(lotus.tenant.pk):
            pass
        with pytest.raises(scope.WrongScopeError), scope.platform("wider"):
            pass
        assert list(EndUser.objects.all()) == [aurora.alice]
    with pytest.raises(scope.NoScopeError):
        scope.current_tenant_id()


def test_the_scope_of_several_tenants_shows_theirs_and_nobody_elses(aurora: House, lotus: House) -> None:
    other = make_user(make_tenant())
    with scope.several([aurora.tenant.pk, lotus.tenant.pk]):
        assert set(EndUser.objects.all()) == {aurora.alice, lotus.alice}
        assert EndUser.objects.filter(pk=other.pk).count() == 0
        with scope.tenant(aurora.tenant.pk):
            assert list(EndUser.objects.all()) == [aurora.alice]
        with scope.several([lotus.tenant.pk]):
            assert list(EndUser.objects.all()) == [lotus.alice]
    with scope.several([]):
        assert list(EndUser.objects.all()) == []


def test_the_scope_of_several_tenants_is_to_look_at_only(aurora: House, lotus: House) -> None:
    with scope.several([aurora.tenant.pk, lotus.tenant.pk]):
        row = EndUser.objects.get(pk=aurora.alice.pk)
        new = EndUser(tenant=aurora.tenant, username="bob")
        for write in (
            row.save,
            row.delete,
            lambda: EndUser.objects.update(nickname="x"),
            lambda: EndUser.objects.filter(pk=row.pk).delete(),
            lambda: EndUser.objects.bulk_create([new]),
            lambda: EndUser.objects.bulk_update([row], ["nickname"]),
            scope.current_tenant_id,
        ):
            with pytest.raises(scope.WrongScopeError):
                write()


def test_the_scope_of_several_tenants_does_not_widen(aurora: House, lotus: House) -> None:
    with scope.several([aurora.tenant.pk]):
        for wider in (
            scope.tenant(lotus.tenant.pk),
            scope.several([aurora.tenant.pk, lotus.tenant.pk]),
            scope.platform("wider"),
        ):
            with pytest.raises(scope.WrongScopeError), wider:
                pass
    with (
        scope.tenant(aurora.tenant.pk),
        pytest.raises(scope.WrongScopeError),
        scope.several([aurora.tenant.pk]),
    ):
        pass


def test_a_scope_ends_with_its_block_even_when_that_fails(aurora: House) -> None:
    with pytest.raises(KeyError), scope.tenant(aurora.tenant.pk):
        raise KeyError
    with pytest.raises(scope.NoScopeError):
        EndUser.objects.count()


def test_the_database_refuses_a_key_to_another_tenants_row(aurora: House, lotus: House) -> None:
    token = AccessToken(
        tenant=aurora.tenant, user=lotus.alice, digest="0" * 64, expires_at=timezone.now() + timedelta(days=1)
    )
    with scope.platform("past the guards of Python"):
        token.save()
    with pytest.raises(IntegrityError, match="tenants_accesstoken_user_same_tenant"):
        connection.check_constraints()


def test_the_database_refuses_to_move_a_row_that_others_point_at(aurora: House, lotus: House) -> None:
    with connection.cursor() as cursor:
        statement = "UPDATE tenants_enduser SET tenant_id = %s, username = 'moved' WHERE id = %s"
        cursor.execute(statement, [lotus.tenant.pk, aurora.alice.pk])
    with pytest.raises(IntegrityError, match="tenants_accesstoken_user_same_tenant"):
        connection.check_constraints()


def test_a_users_rows_go_with_the_user(aurora: House, lotus: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        WeChatIdentity.objects.create(tenant=aurora.tenant, user=aurora.alice, app_id="wx1", openid="o1")
        aurora.alice.delete()
        assert (AccessToken.objects.count(), WeChatIdentity.objects.count()) == (0, 0)
        connection.check_constraints()
    with scope.tenant(lotus.tenant.pk):
        assert AccessToken.objects.count() == 1


def _found(config: Any) -> list[tuple[str, str]]:
    return [
        (message.id or "", message.obj.__name__)
        for message in scope.check_tenant_owned(app_configs=[config])
        if isinstance(message.obj, type)
    ]


@isolate_apps("tenants")
def test_the_check_finds_models_that_escape_the_scope() -> None:
    class Loose(models.Model):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")

        class Meta:
            app_label = "tenants"

    class OwnManager(scope.TenantOwned):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
        everything = models.Manager()

        class Meta(scope.TenantOwned.Meta):
            app_label = "tenants"

    class OwnMeta(scope.TenantOwned):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")

        class Meta:
            app_label = "tenants"

    class PlainKey(scope.TenantOwned):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
        user = models.ForeignKey(EndUser, models.CASCADE, related_name="+")

        class Meta(scope.TenantOwned.Meta):
            app_label = "tenants"

    class Beside(models.Model):
        user = models.ForeignKey(EndUser, models.CASCADE, related_name="+")

        class Meta:
            app_label = "tenants"

    class Fine(scope.TenantOwned):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
        user = models.ForeignKey(EndUser, models.CASCADE, related_name="+", db_constraint=False)

        class Meta(scope.TenantOwned.Meta):
            app_label = "tenants"
            constraints: ClassVar[list[BaseConstraint]] = [
                *scope.TenantOwned.Meta.constraints,
                scope.SameTenant(field="user", name="fine_user_same_tenant"),
            ]

    assert _found(Loose._meta.app_config) == [
        ("tenants.E001", "Loose"),
        ("tenants.E002", "OwnManager"),
        ("tenants.E005", "OwnMeta"),
        ("tenants.E003", "PlainKey"),
        ("tenants.E004", "Beside"),
    ]


def test_the_check_finds_nothing_in_the_project() -> None:
    assert scope.check_tenant_owned(app_configs=None) == []

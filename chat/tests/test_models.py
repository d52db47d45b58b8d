"""What chat's rows refuse."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from chat.models import Conversation, Message, ModelOffer, UpstreamAccount
from tenants import scope
from tests.factories import make_tenant, make_user

pytestmark = pytest.mark.django_db


def offer_on(account: UpstreamAccount, tenant_id: int, **fields: object) -> ModelOffer:
    values = {"slug": "m", "name": "M", "sku": "m", "upstream_model": "m", **fields}
    return ModelOffer(tenant_id=tenant_id, account=account, **values)


def test_an_offer_may_use_the_platforms_accounts_and_its_own_tenants_only() -> None:
    ours, theirs = make_tenant(), make_tenant()
    with scope.platform("test"):
        shared = UpstreamAccount.objects.create(name="shared", base_url="https://api.example.com/v1")
        foreign = UpstreamAccount.objects.create(tenant=theirs, name="foreign", base_url="https://api.example.com/v1")
        own = UpstreamAccount.objects.create(tenant=ours, name="own", base_url="https://api.example.com/v1")
        offer_on(shared, ours.pk, slug="a").save()
        offer_on(own, ours.pk, slug="b").save()
        with pytest.raises(scope.WrongScopeError):
            offer_on(foreign, ours.pk, slug="c").save()
        with pytest.raises(ValidationError):
            offer_on(foreign, ours.pk, slug="c").full_clean()
    with scope.tenant(ours.pk):
        assert list(ModelOffer.objects.order_by("slug").values_list("slug", flat=True)) == ["a", "b"]
        assert list(UpstreamAccount.objects.values_list("name", flat=True)) == ["own"]


def test_a_tenant_has_one_default_offer() -> None:
    tenant = make_tenant()
    with scope.platform("test"):
        account = UpstreamAccount.objects.create(name="shared", base_url="https://api.example.com/v1")
        offer_on(account, tenant.pk, slug="a", is_default=True).save()
        with pytest.raises(IntegrityError, match="chat_offer_one_default"), transaction.atomic():
            offer_on(account, tenant.pk, slug="b", is_default=True).save()


def test_a_key_of_an_upstream_is_not_stored_in_clear() -> None:
    with scope.platform("test"):
        made = UpstreamAccount.objects.create(name="x", base_url="https://a.example/v1", api_key="sk-in-the-clear")
        assert UpstreamAccount.objects.get(pk=made.pk).api_key == "sk-in-the-clear"
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key FROM chat_upstreamaccount WHERE id = %s", [made.pk])
        assert "in-the-clear" not in cursor.fetchone()[0]
    assert "in-the-clear" not in repr(made)


def test_a_message_cannot_be_in_another_tenants_conversation() -> None:
    ours, theirs = make_tenant(), make_tenant()
    user, stranger = make_user(ours), make_user(theirs)
    with scope.tenant(theirs.pk):
        foreign = Conversation.objects.create(tenant=theirs, user=stranger, title="theirs")
    with scope.tenant(ours.pk):
        Message.objects.create(tenant=ours, user=user, conversation=foreign, offer_slug="m", question="q")
    # The key is checked at commit; this asks for it now.
    with pytest.raises(IntegrityError, match="chat_message_conversation_fk"), transaction.atomic():
        connection.check_constraints()
    with scope.tenant(ours.pk):
        Message.objects.all().delete()

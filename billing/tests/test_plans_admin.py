"""Plans, free quota and caps in the admin: who may edit, in yuan, within the tenant; each change leaves its trace."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import translation
from structlog.testing import capture_logs

from billing.models import Cap, FreeQuota, Plan, Subscription
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.models import Membership
from tests.factories import host_of, make_cap, make_operator, make_plan, make_staff, set_free_quota, subscribe

Role = Membership.Role
Rule = type[Cap | FreeQuota | Plan | Subscription]


@pytest.fixture
def ours(db: None) -> Shop:
    return open_shop()


@pytest.fixture
def theirs(db: None) -> Shop:
    return open_shop()


def client_of(shop: Shop, role: str = Role.FINANCE) -> Client:
    client = Client(headers={"host": host_of(shop.tenant), "accept-language": "en"})
    client.force_login(make_staff(shop.tenant, role=role))
    return client


def operator() -> Client:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    return client


def path(model: Rule, page: str, *args: object, site: str = "tenant_admin") -> str:
    return reverse(f"{site}:billing_{model.__name__.lower()}_{page}", args=args)


def plan_form(*allowances: tuple[str, int, str], **changes: object) -> dict[str, object]:
    form: dict[str, object] = {
        "slug": "monthly",
        "name": "Monthly",
        "yuan": "19.90",
        "days": 30,
        "badge": "",
        "limit_per_user": 0,
        "position": 0,
        "virtual_product_id": "month",
        "is_enabled": "on",
        "allowances-TOTAL_FORMS": len(allowances),
        "allowances-INITIAL_FORMS": 0,
    }
    for number, values in enumerate(allowances):
        for name, value in zip(("quota_group", "answers", "period"), values, strict=True):
            form[f"allowances-{number}-{name}"] = value
    return form | changes


def cap_form(**changes: object) -> dict[str, object]:
    return {
        "scope": "user",
        "who": "",
        "measure": "answers",
        "period": "day",
        "quota_group": "",
        "most": "100",
        "is_enabled": "on",
        **changes,
    }


def faults(answer: Any) -> dict[str, list[str]]:
    """Return what the form says is wrong."""
    assert answer.status_code == 200
    with translation.override("en"):
        return {name: [str(fault) for fault in said] for name, said in answer.context["adminform"].form.errors.items()}


def test_finance_makes_a_plan_in_yuan_with_its_allowances(ours: Shop) -> None:
    client = client_of(ours)
    with capture_logs() as logs:
        answer = client.post(path(Plan, "add"), plan_form(("default", 100, "day"), ("big", 9, "term")))
    assert answer.status_code == 302
    with scope.tenant(ours.tenant.pk):
        plan = Plan.objects.get()
        rows = list(plan.allowances.order_by("pk").values_list("tenant_id", "quota_group", "answers", "period"))
    assert (plan.tenant_id, plan.price, plan.days) == (ours.tenant.pk, 19_900_000, 30)
    assert plan.virtual_product_id == "month"
    assert rows == [(ours.tenant.pk, "default", 100, "day"), (ours.tenant.pk, "big", 9, "term")]
    assert [log["kind"] for log in logs if log["event"] == "rule_added"] == ["plan"]
    assert LogEntry.objects.filter(object_id=str(plan.pk)).count() == 1


def test_a_plan_s_price_is_shown_and_changed_in_yuan(ours: Shop) -> None:
    plan, client = make_plan(ours.tenant), client_of(ours, Role.OWNER)
    change = path(Plan, "change", plan.pk)
    assert client.get(change).context["adminform"].form.initial["yuan"] == "19.90"
    with scope.tenant(ours.tenant.pk):
        (allowance,) = plan.allowances.all()
    form = plan_form(("default", 5, "day"), slug=plan.slug, yuan="29", **{"allowances-INITIAL_FORMS": 1})
    form |= {"allowances-0-id": allowance.pk, "allowances-0-plan": plan.pk}
    assert client.post(change, form).status_code == 302
    with scope.tenant(ours.tenant.pk):
        assert Plan.objects.get().price == 29_000_000
        assert plan.allowances.get().answers == 5
        form["allowances-0-DELETE"] = "on"
    assert client.post(change, form).status_code == 302
    with scope.tenant(ours.tenant.pk):
        assert plan.allowances.count() == 0


@pytest.mark.parametrize("yuan", ["0", "0.001", "-1", "1e3", "1000000.01", "twenty"])
def test_a_price_that_is_none_is_refused_in_words(ours: Shop, yuan: str) -> None:
    assert faults(client_of(ours).post(path(Plan, "add"), plan_form(yuan=yuan))) == {
        "yuan": ["A price such as 19.90 is wanted, in whole fen, at most ¥1,000,000."]
    }


def test_a_second_rule_of_a_kind_is_refused_in_words(ours: Shop) -> None:
    client = client_of(ours)
    make_cap(ours.tenant, 1)
    assert faults(client.post(path(Cap, "add"), cap_form())) == {
        "__all__": ["There is such a cap already; change its limit."]
    }
    set_free_quota(ours.tenant.pk, per_day=1)
    form = {"quota_group": "default", "per_day": 2, "guest_allowance": 2}
    assert faults(client.post(path(FreeQuota, "add"), form)) == {
        "__all__": ["This quota group has its free quota already."]
    }
    plan = make_plan(ours.tenant)
    assert list(faults(client.post(path(Plan, "add"), plan_form(slug=plan.slug)))) == ["__all__"]


def test_free_quota_is_finance_s_to_set(ours: Shop) -> None:
    client = client_of(ours)
    form = {"quota_group": "default", "per_day": 3, "guest_allowance": 5}
    assert client.post(path(FreeQuota, "add"), form).status_code == 302
    with scope.tenant(ours.tenant.pk):
        rule = FreeQuota.objects.get()
    assert (rule.tenant_id, rule.per_day, rule.guest_allowance) == (ours.tenant.pk, 3, 5)
    assert client.post(path(FreeQuota, "delete", rule.pk), {"post": "yes"}).status_code == 302
    with scope.tenant(ours.tenant.pk):
        assert FreeQuota.objects.count() == 0


def test_caps_are_in_answers_or_yuan(ours: Shop) -> None:
    client = client_of(ours)
    assert client.post(path(Cap, "add"), cap_form()).status_code == 302
    assert client.post(path(Cap, "add"), cap_form(measure="spend", most="19.90")).status_code == 302
    with scope.tenant(ours.tenant.pk):
        answers, spend = Cap.objects.order_by("pk")
    assert (answers.limit, spend.limit) == (100, 19_900_000)
    change = path(Cap, "change", spend.pk)
    assert client.get(change).context["adminform"].form.initial["most"] == "19.90"
    # What it counts stays, whatever is sent.
    assert client.post(change, cap_form(measure="answers", most="5", period="month")).status_code == 302
    with scope.tenant(ours.tenant.pk):
        spend.refresh_from_db()
    assert (spend.limit, spend.measure, spend.period) == (5_000_000, "spend", "day")
    for wrong in (cap_form(most="1.5", period="month"), cap_form(most="-1", period="month")):
        assert list(faults(client.post(path(Cap, "add"), wrong))) == ["most"]


def test_a_cap_on_one_user_names_a_user_of_the_tenant(ours: Shop, theirs: Shop) -> None:
    client = client_of(ours)
    for who, said in (
        (theirs.user.username, "There is no such user."),
        (f"#{theirs.user.pk}", "There is no such user."),
        ("#x", "There is no such user."),
        ("", "A cap on one user names the user; others name none."),
    ):
        assert faults(client.post(path(Cap, "add"), cap_form(scope="one_user", who=who)))["who"] == [said]
    assert "who" in faults(client.post(path(Cap, "add"), cap_form(who=ours.user.username)))
    assert client.post(path(Cap, "add"), cap_form(scope="one_user", who=ours.user.username)).status_code == 302
    by_number = cap_form(scope="one_user", who=f"#{ours.user.pk}", period="month")
    assert client.post(path(Cap, "add"), by_number).status_code == 302
    with scope.tenant(ours.tenant.pk):
        assert set(Cap.objects.values_list("user_id", flat=True)) == {ours.user.pk}


def test_the_operator_sets_rules_for_a_tenant(ours: Shop) -> None:
    client, tenant = operator(), ours.tenant.pk
    form = cap_form(tenant=tenant, scope="one_user", who=ours.user.username)
    assert client.post(path(Cap, "add", site="admin"), form).status_code == 302
    form = plan_form(("default", 1, "day"), tenant=tenant)
    assert client.post(path(Plan, "add", site="admin"), form).status_code == 302
    with scope.tenant(tenant):
        assert (Cap.objects.get().user_id, Plan.objects.get().allowances.get().tenant_id) == (ours.user.pk, tenant)


@pytest.mark.parametrize("model", [Cap, FreeQuota, Plan, Subscription])
def test_support_looks_and_content_does_not(ours: Shop, theirs: Shop, model: Rule) -> None:
    for shop in (ours, theirs):
        make_cap(shop.tenant, 1, scope="one_user", user=shop.user)
        set_free_quota(shop.tenant.pk, per_day=1)
        subscribe(shop.user, make_plan(shop.tenant))
    with scope.tenant(theirs.tenant.pk):
        other = model.objects.get()
    with scope.tenant(ours.tenant.pk):
        row = model.objects.get()
    support = client_of(ours, Role.SUPPORT)
    shown = support.get(path(model, "changelist"))
    assert (shown.status_code, shown.context["cl"].result_count) == (200, 1)
    assert support.get(path(model, "change", row.pk)).status_code == 200
    assert support.get(path(model, "change", other.pk)).status_code == 404
    refused = [
        support.get(path(model, "add")),
        support.post(path(model, "change", row.pk), {}),
        support.post(path(model, "delete", row.pk), {"post": "yes"}),
        client_of(ours, Role.CONTENT).get(path(model, "changelist")),
        operator().post(path(Subscription, "change", row.pk, site="admin"), {}),
    ]
    assert [answer.status_code for answer in refused[:4]] == [403] * 4
    if model is Subscription:
        assert refused[4].status_code == 403
        assert "default: 0 (2, each day)" in support.get(path(model, "change", row.pk)).content.decode()


def test_finance_of_another_tenant_changes_nothing_here(ours: Shop, theirs: Shop) -> None:
    cap, client = make_cap(ours.tenant, 1), client_of(theirs)
    assert client.post(path(Cap, "change", cap.pk), cap_form(most="9")).status_code == 404
    assert client.post(path(Cap, "delete", cap.pk), {"post": "yes"}).status_code == 404
    with scope.tenant(ours.tenant.pk):
        assert Cap.objects.get().limit == 1

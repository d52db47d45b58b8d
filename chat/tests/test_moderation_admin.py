"""Moderation in the admin: who edits words; pasting, export, trying a text; evidence; nothing of another tenant."""

from dataclasses import dataclass

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from chat.models import UpstreamAccount
from chat.moderation.models import ModerationHit, ModerationSettings, ModerationWord
from tenants import scope
from tenants.models import Membership, Tenant
from tests.factories import host_of, make_operator, make_staff, make_tenant, make_user

pytestmark = pytest.mark.django_db

Role = Membership.Role
WORDS = "chat_moderationword"


@dataclass
class Desk:
    """Somebody logged in to an admin site."""

    client: Client
    site: str = "tenant_admin"

    def path(self, name: str, *args: int) -> str:
        return reverse(f"{self.site}:{name}", args=args)

    def add(self, **fields: str) -> int:
        fields = {"category": "other", "action": "block", **fields}
        return self.client.post(self.path(f"{WORDS}_add"), fields).status_code


def desk(tenant: Tenant, role: str = Role.OWNER) -> Desk:
    client = Client(headers={"host": host_of(tenant)})
    client.force_login(make_staff(tenant, role=role))
    return Desk(client)


@pytest.fixture
def operator() -> Desk:
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    return Desk(client, "admin")


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


def words_of(tenant: Tenant) -> list[tuple[str, str, str]]:
    with scope.tenant(tenant.pk):
        return list(ModerationWord.objects.order_by("pk").values_list("word", "category", "action"))


def platforms_words() -> list[str]:
    with scope.platform("a test's look"):
        return list(ModerationWord.objects.filter(tenant=None).order_by("pk").values_list("word", flat=True))


def make_hit(tenant: Tenant, text: str) -> ModerationHit:
    user = make_user(tenant)
    with scope.tenant(tenant.pk):
        return ModerationHit.objects.create(
            tenant=tenant,
            user=user,
            direction="question",
            source="tenant",
            category="porn",
            word="w",
            action="block",
            text=text,
        )


def test_who_may_edit_words_and_who_may_look(tenant: Tenant) -> None:
    tried = {role: desk(tenant, role) for role in Role.values}
    looked = {role: each.client.get(each.path(f"{WORDS}_changelist")).status_code for role, each in tried.items()}
    assert looked == {"owner": 200, "content": 200, "support": 200, "finance": 403}
    added = {role: each.add(word=f"word {role}") for role, each in tried.items()}
    assert added == {"owner": 302, "content": 302, "support": 403, "finance": 403}
    pasted = {role: each.client.get(each.path(f"{WORDS}_paste")).status_code for role, each in tried.items()}
    assert pasted == {"owner": 200, "content": 200, "support": 403, "finance": 403}
    assert [word for word, _category, _action in words_of(tenant)] == ["word owner", "word content"]


def test_a_word_is_in_a_list_once_however_it_is_written(tenant: Tenant, operator: Desk) -> None:
    owner = desk(tenant)
    assert [owner.add(word=word) for word in ("賭博", "赌 博", "sex", "ＳＥＸ", "***", "fuck", "fuck*")] == [
        *(302, 200),
        *(302, 200),
        200,
        *(302, 302),
    ]
    assert desk(make_tenant()).add(word="sex") == 302
    assert [operator.add(word="sex", tenant=""), operator.add(word="SEX", tenant="")] == [302, 200]
    assert platforms_words() == ["sex"]
    assert len(words_of(tenant)) == 4


def test_pasting_shows_what_it_adds_and_then_adds_it(tenant: Tenant) -> None:
    owner = desk(tenant)
    owner.add(word="旧词")
    body = {
        "pasted": "新词\n旧 词\n\n新词\nspam,advertising,flag\n大麻烦,,allow\n!?,nonsense\n'-\n" + "长" * 65,
        "category": "politics",
        "action": "mask",
    }
    path = owner.path(f"{WORDS}_paste")
    page = owner.client.post(path, body)
    assert (page.status_code, len(words_of(tenant))) == (200, 1)
    assert "New: 3. The list has already: 2. Cannot be taken: 3." in page.content.decode()
    assert owner.client.post(path, {**body, "confirmed": "yes"}).status_code == 302
    assert words_of(tenant)[1:] == [
        ("新词", "politics", "mask"),
        ("spam", "advertising", "flag"),
        ("大麻烦", "politics", "allow"),
    ]
    assert LogEntry.objects.latest("pk").change_message == "Words added: 3."


def test_what_is_exported_can_be_pasted(tenant: Tenant) -> None:
    owner, other = desk(tenant), make_tenant()
    for word, action in (("甲,乙", "mask"), ("-negative", "block"), ("fuck*", "flag")):
        owner.add(word=word, action=action)
    with scope.tenant(tenant.pk):
        chosen = list(ModerationWord.objects.values_list("pk", flat=True))
    sheet = owner.client.post(
        owner.path(f"{WORDS}_changelist"), {"action": "export", "_selected_action": [str(pk) for pk in chosen]}
    )
    assert sheet["Content-Type"] == "text/csv; charset=utf-8"
    second = desk(other)
    body = {"pasted": sheet.content.decode(), "category": "other", "action": "block", "confirmed": "yes"}
    assert second.client.post(second.path(f"{WORDS}_paste"), body).status_code == 302
    with scope.tenant(tenant.pk):
        mine = set(ModerationWord.objects.values_list("key", "category", "action"))
    with scope.tenant(other.pk):
        assert set(ModerationWord.objects.values_list("key", "category", "action")) == mine


def test_the_operator_pastes_into_the_platforms_list(operator: Desk) -> None:
    body = {"pasted": "平台词", "category": "porn", "action": "block", "confirmed": "yes"}
    assert operator.client.post(operator.path(f"{WORDS}_paste"), body).status_code == 302
    assert platforms_words() == ["平台词"]


def test_trying_a_text_shows_what_both_lists_hit(tenant: Tenant, operator: Desk) -> None:
    operator.add(word="平台词", tenant="")
    owner, other = desk(tenant), desk(make_tenant())
    owner.add(word="自己词", action="mask")
    other.add(word="别家词")
    for each, expected in ((owner, ["平台词", "自己词"]), (other, ["平台词", "别家词"]), (operator, ["平台词"])):
        page = each.client.post(each.path(f"{WORDS}_try"), {"text": "有平台词、自己词、别家词。"}).content.decode()
        assert [word for word in ("平台词", "自己词", "别家词") if f"<mark>{word}</mark>" in page] == expected
    calm = owner.client.post(owner.path(f"{WORDS}_try"), {"text": "calm"}).content.decode()
    assert "Nothing in this text is hit." in calm


def test_a_tenant_sees_and_changes_its_own_words_and_evidence_alone(tenant: Tenant, operator: Desk) -> None:
    other = make_tenant()
    owner = desk(tenant)
    operator.add(word="平台词", tenant="")
    desk(other).add(word="别家词")
    hit, foreign = make_hit(tenant, "a secret text of mine"), make_hit(other, "a secret text of another")
    listed = owner.client.get(owner.path(f"{WORDS}_changelist")).content.decode()
    assert [word for word in ("平台词", "别家词") if word in listed] == []
    for word in ("平台词", "别家词"):
        with scope.platform("a test's look"):
            pk = ModerationWord.objects.get(word=word).pk
        assert owner.client.get(owner.path(f"{WORDS}_change", pk)).status_code == 404
        owner.client.post(owner.path(f"{WORDS}_delete", pk), {"post": "yes"})
    assert (platforms_words(), len(words_of(other))) == (["平台词"], 1)
    mine = owner.client.get(owner.path("chat_moderationhit_change", hit.pk)).content.decode()
    assert ("a secret text of mine" in mine, "gAAAA" in mine) == (True, False)
    assert owner.client.get(owner.path("chat_moderationhit_change", foreign.pk)).status_code == 404
    hits = owner.client.get(owner.path("chat_moderationhit_changelist")).content.decode()
    assert ("a secret text" in hits, f"/{hit.pk}/change" in hits, f"/{foreign.pk}/change" in hits) == (
        False,
        True,
        False,
    )


def test_evidence_is_for_support_too_and_nobody_changes_it(tenant: Tenant) -> None:
    hit = make_hit(tenant, "text")
    seen, changed = {}, {}
    for role in Role.values:
        each = desk(tenant, role)
        path = each.path("chat_moderationhit_change", hit.pk)
        seen[role], changed[role] = each.client.get(path).status_code, each.client.post(path, {}).status_code
    assert seen == {"owner": 200, "content": 200, "support": 200, "finance": 403}
    assert set(changed.values()) == {403}


def test_a_tenant_has_one_row_of_settings_and_keeps_the_platforms_account(tenant: Tenant, operator: Desk) -> None:
    owner = desk(tenant)
    name = "chat_moderationsettings"
    body = {"wechat": "on", "wechat_scene": "2", "endpoint_model": "", "when_away": "refuse"}
    assert owner.client.post(owner.path(f"{name}_add"), body).status_code == 302
    assert owner.client.post(owner.path(f"{name}_add"), body).status_code == 403
    with scope.platform("a test's accounts"):
        account = UpstreamAccount.objects.create(name="the platform's", base_url="https://a.example/v1")
        foreign = UpstreamAccount.objects.create(tenant=make_tenant(), name="b", base_url="https://b.example/v1")
        row = ModerationSettings.objects.get(tenant=tenant)
    change = {**body, "tenant": str(tenant.pk)}
    given = [
        operator.client.post(operator.path(f"{name}_change", row.pk), {**change, "account": str(one.pk)}).status_code
        for one in (foreign, account)
    ]
    assert given == [200, 302]
    own = owner.path(f"{name}_change", row.pk)
    assert "the platform&#x27;s" not in owner.client.get(own).content.decode()
    assert owner.client.post(own, {**body, "checks_output": "on"}).status_code == 302
    with scope.platform("a test's look"):
        kept = ModerationSettings.objects.get(pk=row.pk)
    assert (kept.account_id, kept.checks_output, kept.when_away) == (account.pk, True, "refuse")

"""Chinese is complete, true to its source, and what Django serves; no page of either admin shows English beside it."""

import ast
import re
from collections.abc import Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po
from cryptography.fernet import Fernet
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.db.models import Model
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import translation
from pytest_django import Settings

from billing import nightly, recharge, refund, usage, wallet
from billing.models import (
    AdTicket,
    Bill,
    BillLine,
    Commission,
    CommissionBack,
    Hold,
    Invitation,
    InvitationReward,
    MerchantAccount,
    Order,
    Package,
    PaymentEvent,
    PayoutBatch,
    RewardDebt,
    SignIn,
    Subscription,
    SubscriptionAllowance,
    UsageAdjustment,
    Withdrawal,
)
from billing.payments.provider import PaymentNotice
from billing.statements import make_statement
from billing.tests.conftest import open_shop
from chat.keys import make_key as make_api_key
from chat.models import (
    Announcement,
    Attachment,
    ChatRules,
    Conversation,
    ConversationLook,
    Feedback,
    ModelOffer,
    ModelRoute,
    PlatformAnnouncement,
    Report,
    Role,
    RoleCategory,
    ShareLink,
    UpstreamAccount,
)
from chat.models import Message as ChatMessage
from chat.moderation.models import ModerationHit, ModerationSettings, ModerationWord
from lifecycle.models import (
    Check,
    DomainClaim,
    OfferTemplate,
    Opening,
    ResellerToken,
    TenantDeletion,
    TenantEvent,
    TenantExport,
)
from saas.local.messages import OURS, ROOT, forms, texts_of_source, update
from saas.local.translations import LOCALE
from tenants import scope
from tenants.adminsite import tenant_site
from tenants.models import (
    AccountDeletion,
    Avatar,
    ChangeEntry,
    Compliance,
    Embedding,
    EndUser,
    ImportJob,
    LegalText,
    Notice,
    ResellerApplication,
    ResellerTerms,
    SignInSettings,
    SmsAccount,
    StaffAnnouncement,
    StaffInvitation,
    StaffRules,
    StaffUser,
    Tenant,
    TermsAcceptance,
    WeChatIdentity,
)
from tests.factories import (
    PASSWORD,
    credit,
    host_of,
    make_cap,
    make_codes,
    make_mini_program,
    make_plan,
    make_reseller,
    make_rules,
    make_staff,
    make_tenant,
    make_terms,
    make_token,
    make_user,
    set_free_quota,
    unique,
)

CATALOGUE: Final = LOCALE / "zh_Hans/LC_MESSAGES/django.po"
# The same word in both languages: the product's name, and WeChat's names for its ids.
SAME_IN_CHINESE: Final = {
    *("Banyan", "CSV", "Stripe", "Anthropic", "Azure OpenAI"),
    *("%(account)s: %(fault)s.", "app id", "open id", "union id"),
    *("App id", "App secret", "App key", "SHA-256"),
}

# What may stand in Latin letters on a Chinese page: names that Chinese has no other word for, and the rows' own data.
IN_CHINESE: Final = re.compile(
    # Chinese letters are letters to \b, so it would find no end between them and a name.
    r"https://www\.example\.com"
    r"|\bbanyan-domain=[0-9a-f]{40}\b"  # what proves a domain
    r"|(?<![a-z])(?:https?|wss)://[a-z]+-[0-9a-f]{12}\.test\S*"  # where a tenant of a test is served
    r"|(?<![a-z])(?:AI|Banyan|CSV|ICP|iOS|Stripe|API(?:v3)?|(?:App|Offer|Open|Union)?ID|AppSecret|AppKey|tokens?)(?![a-z])"
    r"|(?<![a-z])(?:DNS|HTTPS|IP|JSON|PID|Redis|SHA-256|URL|Webhook|EncodingAESKey|iPhone|iPad|JavaScript|CNAME|TXT|XLSX)(?![a-z])"
    r"|\b(?:request|socket) 合法域名"  # as WeChat's own pages write it
    r"|\bAsia/Shanghai\b"
    r"|\b(?:sk|rk|whsec)_"  # how Stripe's keys begin
    r"|/chat/completions|/messages|/moderations|/v1|\b(?:Azure|OpenAI|Anthropic)\b"
    r'|\{".+\}'  # examples of rules
    r"|https://\S+/notify|\bacct_"  # where a provider tells of payments; how Stripe's account ids begin
    r"|\b[IR]\d+\b"  # the invariants' names
    r"|\bwx[0-9a-f]{16}\b|#[0-9a-f]{6}"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b[0-9a-f]{32}\b"  # the number of a refund
    r"|(?:\b_banyan\.)?\b[a-z]+-[0-9a-f]{12}(?:\.test|\.example\.net)?\b"  # names made by tests/factories.py
    r"|sk-bny-…[\w-]{4}"  # what is shown of an API key
    r"|变量名须为 code\b"  # of a text message's template
    r"|…[0-9A-Z]{4}\b",  # how a redeem code ends
    re.IGNORECASE,
)
WHOLE_TEXTS_IN_CHINESE: Final = {
    *("manual", "retail", "wholesale", "refund", "gift", "wechat:1"),  # codes of the channels that money came by
    *("system", "payment", "test", "stop"),  # who moved it, and the finish reason
    "default",  # the quota group of an offer that names none
    "null",  # an empty receipt, which is shown as it is stored
    "esc",  # the key
    *"CRST",  # the first letter of a user name, in place of a picture
}
PLACEHOLDER: Final = re.compile(r"%\(\w+\)[a-z]|%[sd]|\{\w*\}")


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as source:
        return read_po(source, locale="zh_Hans")


def texts(catalogue: Catalog) -> list[Message]:
    """Return every text but the header."""
    return [text for text in catalogue if text.id]


def test_the_catalogue_has_every_text_of_the_source_and_no_other(catalogue: Catalog) -> None:
    """Run `make messages` where this fails, then translate what is new and remove what is obsolete."""
    wanted = {(text.context, *forms(text.id)) for text in texts(texts_of_source("zh_Hans"))}
    present = {(text.context, *forms(text.id)) for text in texts(catalogue)}
    assert (wanted - present, present - wanted, list(catalogue.obsolete)) == (set(), set(), [])


def test_every_text_has_its_chinese(catalogue: Catalog) -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    poor = [
        text.id
        for text in texts(catalogue)
        if text.fuzzy or not all(chinese.search(form) for form in forms(text.string))
    ]
    assert set(poor) == SAME_IN_CHINESE


def test_the_chinese_keeps_every_placeholder(catalogue: Catalog) -> None:
    different = [
        (text.id, chinese)
        for text in texts(catalogue)
        for chinese in forms(text.string)
        if sorted(PLACEHOLDER.findall(forms(text.id)[-1])) != sorted(PLACEHOLDER.findall(chinese))
    ]
    assert different == []
    assert len([text for text in texts(catalogue) if PLACEHOLDER.search(forms(text.id)[0])]) > 1


def test_no_text_is_marked_where_it_is_not_found() -> None:
    """`make messages` does not look into f-strings: a text there would never come into the catalogue."""
    hidden = []
    for app in OURS[:-1]:
        for file in (ROOT / app).rglob("*.py"):
            strings = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.JoinedStr)]
            calls = [node.func for text in strings for node in ast.walk(text) if isinstance(node, ast.Call)]
            hidden += [file for call in calls if isinstance(call, ast.Name) and call.id in {"_", "gettext", "ngettext"}]
    assert hidden == []


def test_django_serves_the_catalogue_as_it_is(catalogue: Catalog) -> None:
    with translation.override("zh-hans"):
        served = {text.id: translation.gettext(text.id) for text in texts(catalogue) if isinstance(text.id, str)}
    assert served == {text.id: text.string for text in texts(catalogue) if isinstance(text.id, str)}


def test_english_is_served_as_it_stands_in_the_source(catalogue: Catalog) -> None:
    with translation.override("en"):
        changed = [
            text.id for text in texts(catalogue) if isinstance(text.id, str) and translation.gettext(text.id) != text.id
        ]
    assert changed == []


@pytest.mark.django_db
@pytest.mark.parametrize(("language", "message"), [("zh-CN", "请先登录。"), ("en", "Please log in first.")])
def test_a_refusal_speaks_the_readers_language(language: str, message: str) -> None:
    tenant = make_tenant(language="en" if language == "zh-CN" else "zh-hans")
    answer = Client(headers={"host": host_of(tenant), "accept-language": language}).get("/api/auth/me")
    assert (answer.status_code, answer.json()["msg"]) == (401, message)


def test_bringing_the_catalogue_up_to_date_adds_what_is_new_and_keeps_what_was_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "zh_Hans/LC_MESSAGES"
    folder.mkdir(parents=True)
    old = folder / "django.po"
    kept = 'msgid "Please log in first."\nmsgstr "请先登录。"\n'
    old.write_text(
        f'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n{kept}\nmsgid "Gone."\nmsgstr "没了。"\n'
    )
    update(old)
    with old.open("rb") as source:
        new = read_po(source, locale="zh_Hans")
    assert {text.id for text in texts(new) if any(forms(text.string))} == {"Please log in first."}
    assert {text.id for text in new.obsolete.values()} == {"Gone."}
    assert len(texts(new)) == len(texts(texts_of_source("zh_Hans")))


class VisibleTexts(HTMLParser):
    """Collects what a person reads, or has read to them, on a page."""

    WITHOUT_END: Final = frozenset({"input", "meta", "link", "br", "img", "hr", "source", "path", "col"})
    SILENT: Final = frozenset({"script", "style", "template"})
    ATTRIBUTES: Final = ("title", "placeholder", "aria-label", "alt")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.texts: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.texts |= {named[name] or "" for name in self.ATTRIBUTES if name in named}
        if tag == "input" and named.get("type") in {"submit", "button", "reset"}:
            self.texts.add(named.get("value") or "")
        if tag not in self.WITHOUT_END:
            # An icon is a word to the font alone.
            silent = tag in self.SILENT or "material-symbols-outlined" in (named.get("class") or "")
            self.open.append((tag, silent))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not any(silent for _tag, silent in self.open):
            self.texts.add(data.strip())


def english_on(page: str) -> set[str]:
    """Return the texts of a page that have Latin letters, but for those that may stand in Chinese."""
    return {
        text
        for text in VisibleTexts(page).texts - WHOLE_TEXTS_IN_CHINESE
        if re.search(r"[A-Za-z]", IN_CHINESE.sub("", text))
    }


def test_english_on_a_page_is_found() -> None:
    page = """<title>登录 | Banyan</title><script>var x = "no text"</script><input type="submit" value="Save"><br>
        <span class="material-symbols-outlined">home</span><p title="Close">缓存 token</p><b>stop</b><i>stop it</i>"""
    assert english_on(page) == {"Save", "Close", "stop it"}


def rows_of_every_kind() -> list[Model]:
    """Return a row of every model that either admin shows, all of one tenant; the tenant is the first."""
    shop = open_shop(name="示例", language="zh-hans", timezone="Asia/Shanghai")
    tenant, user = shop.tenant, shop.user
    credit(user, 20_000_000)
    for free_answers in (1, 0):
        hold = shop.admit(free_per_day=free_answers)
        shop.settle(hold)
        usage.record(tenant_id=tenant.pk, hold_id=hold.pk)
    make_token(user)
    make_codes(tenant, name="春节", per_user_limit=1)
    staff = make_staff(tenant)
    with scope.tenant(tenant.pk):
        keep_safe(tenant, staff)
        Avatar.objects.create(tenant=tenant, user=user, token="1", data=b"1")
        WeChatIdentity.objects.create(tenant=tenant, user=user, app_id=make_mini_program(tenant).app_id, openid="1")
        account = UpstreamAccount.objects.create(tenant=tenant, name="账号", base_url="", api_key="")
        ModelOffer.objects.create(
            tenant=tenant, slug="1", name="模型", sku=shop.sku, account=account, upstream_model="1"
        )
        ModelRoute.objects.create(tenant=tenant, offer=ModelOffer.objects.get(), account=account)
        chat_about(tenant, user)
        make_api_key(user=user, name="脚本", spend_limit=1)
        ModerationWord.objects.create(tenant=tenant, word="词")
        ModerationSettings.objects.create(tenant=tenant)
        ModerationHit.objects.create(
            tenant=tenant, user=user, direction="question", source="tenant", category="other", action="block", text="词"
        )
        sell(tenant, user)
        SignInSettings.objects.create(tenant=tenant)
        Compliance.objects.create(tenant=tenant, company="示例公司")
        LegalText.objects.create(tenant=tenant, kind="terms", language="en", version=1, body="条款", created_by="1")
        Embedding.objects.create(tenant=tenant)
        ImportJob.objects.create(tenant=tenant, model="tenants.EndUser", staff_name="1", file_name="用户.csv")
        SmsAccount.objects.create(tenant=tenant, provider="console")
        AccountDeletion.objects.create(tenant=tenant, user=user, deleted_at=Now())
        set_free_quota(tenant.pk, per_day=1)
        make_cap(tenant, 9, scope="one_user", user=user)
        bought = Subscription.objects.create(
            tenant=tenant,
            user=user,
            plan=make_plan(tenant, name="月卡"),
            order=Order.objects.get(),
            name="月卡",
            starts_at=Now(),
            ends_at=Now() + timedelta(days=30),
        )
        SubscriptionAllowance.objects.create(tenant=tenant, subscription=bought, quota_group="1", answers=2)
        wallet.set_threshold(tenant_id=tenant.pk, threshold=1)
        wallet.request_topup(tenant_id=tenant.pk, amount=1, bank_reference="1", requested_by_id=make_staff().pk)
    audited = nightly.run()  # before what is written past the books
    with scope.platform("a test's statement"):
        make_statement(month=date(2026, 1, 1), tenant=tenant)
    with scope.tenant(tenant.pk):
        bill_and_reward(tenant, user)
        lead_a_life(tenant)
        owned = [model.objects.filter(tenant=tenant).first() for model in registered(tenant_site)]
    colleague = StaffUser.objects.create_user(str(tenant.pk))  # no English on the pages
    membership = colleague.platform_memberships.create(role="operator")
    told = [
        PlatformAnnouncement.objects.create(title="公告", body="停机"),
        StaffAnnouncement.objects.create(subject="公告", body="停机", created_by="1"),
    ]
    life = lives_of_the_platform(tenant)
    return [tenant, *resell(tenant), colleague, membership, audited, *told, *life, *(row for row in owned if row)]


def keep_safe(tenant: Tenant, staff: StaffUser) -> None:
    """Give a tenant an open invitation of staff, rules for them, and a change that one of them made."""
    StaffInvitation.objects.create(
        tenant=tenant, email="1@1", role="content", digest=uuid4().hex, invited_by=staff, expires_at=Now()
    )
    StaffRules.objects.create(tenant=tenant, second_factor_roles=[])
    ChangeEntry.objects.create(
        tenant=tenant, staff_number=staff.pk, actor="1", action="changed", model="tenants.Domain", row="1", changes={}
    )


def lead_a_life(tenant: Tenant) -> None:
    """Give a tenant a step of its checklist, a domain to be proven, an event and an archive."""
    DomainClaim.objects.create(tenant=tenant, host=f"{tenant.slug}.example.net", claimed_by="1", watched_until=Now())
    Check.objects.create(tenant=tenant, kind="wallet", state="green", word="wallet_filled", facts={"yuan": "1"})
    TenantEvent.objects.create(tenant=tenant, kind="opened", status="active", reason="开通", actor="1")
    TenantExport.objects.create(tenant=tenant, asked_by="1")


def lives_of_the_platform(tenant: Tenant) -> list[Model]:
    """Return a template, an opening, a program's token and a deletion that was called off."""
    with scope.platform("a test's template"):
        template = OfferTemplate.objects.create(slug=unique("template"), name="标准")
        deletion = TenantDeletion.objects.create(
            tenant=tenant, state="cancelled", reason="误删", asked_by="1", due_at=Now()
        )
    opening = Opening.objects.create(key=unique("opening"), answers={})
    token = ResellerToken.objects.create(name="程序", digest=uuid4().hex * 2, last4="0000", created_by="1")
    return [template, opening, token, deletion]


def chat_about(tenant: Tenant, user: EndUser) -> None:
    """Give a tenant an assistant, rules and an announcement, and a conversation that is shared, judged and reported."""
    shelf = RoleCategory.objects.create(tenant=tenant, slug="1", name="写作")
    Role.objects.create(tenant=tenant, slug="1", name="助手", instructions="请", category=shelf)
    ChatRules.objects.create(tenant=tenant, instructions="请")
    Announcement.objects.create(tenant=tenant, title="公告", body="停机")
    mine = {"tenant": tenant, "user": user}
    conversation = Conversation.objects.create(**mine, title="你好")
    said = ChatMessage.objects.create(**mine, conversation=conversation, offer_slug="1", question="你好", state="done")
    ConversationLook.objects.create(**mine, conversation=conversation, staff_name="1", reason="举报")
    Notice.objects.create(tenant=tenant, kind="report", texts={"zh-hans": {"subject": "举报", "body": "请看"}})
    Attachment.objects.create(
        **mine, message=said, kind="text", name="1.txt", media_type="text/plain", size=1, text="词"
    )
    ShareLink.objects.create(**mine, conversation=conversation, digest="0" * 64, expires_at=Now())
    Feedback.objects.create(**mine, message=said, rating="up")
    Report.objects.create(
        tenant=tenant, reporter=user, message=said, category="other", question="你好", answer="", handled_by=None
    )


def bill_and_reward(tenant: Tenant, user: EndUser) -> None:
    """Give a tenant a provider's bill, late usage, and a row of every kind of reward."""
    order = Order.objects.get()
    bill = Bill.objects.create(
        tenant=tenant, merchant_account=order.merchant_account, day="2026-01-01", fetched_at=Now()
    )
    BillLine.objects.create(tenant=tenant, bill=bill, order=order, transaction_id="1", amount=order.price)
    sums = dict.fromkeys(("charge", "gift_charge", "cash_charge", "shortfall"), 0)
    wholesale = dict.fromkeys(("wholesale_charge", "wholesale_shortfall", "cost"), 0)
    tokens = {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1, "usage_source": "upstream"}
    hold = Hold.objects.filter(state="posted")[0]
    UsageAdjustment.objects.create(tenant=tenant, hold=hold, **tokens, **sums, **wholesale)
    make_rules(tenant)
    mine = {"tenant": tenant, "user": user}
    SignIn.objects.create(**mine, date="2026-01-01", streak=1, amount=1)
    AdTicket.objects.create(**mine, nonce="0" * 32, amount=1, ready_at=Now(), expires_at=Now())
    RewardDebt.objects.create(**mine, owed=1)
    invitation = Invitation.objects.create(
        tenant=tenant, inviter=user, invitee=make_user(tenant), inviter_amount=1, invitee_amount=1
    )
    InvitationReward.objects.create(**mine, invitation=invitation, side="inviter", amount=1)


def resell(tenant: Tenant) -> list[Model]:
    """Give a reseller terms, a commission of the tenant, what was taken back of it, and a withdrawal in a batch."""
    reseller, maker, checker = make_reseller(), make_staff(), make_staff()
    terms = make_terms(reseller)
    with scope.tenant(tenant.pk):
        earned = Commission.objects.create(
            tenant=tenant, reseller=reseller, day="2026-01-01", level=1, amount=1, release_at=Now(), taken_back=1
        )
        back = CommissionBack.objects.create(tenant=tenant, reseller=reseller, ref="1", amount=1, actor="1")
    agreed = ResellerTerms.objects.create(version=unique("terms"), text="条款", text_en="1")
    asked = ResellerApplication.objects.create(
        name="代理", slug="1", contact="张", email="1@1", phone="1", digest=uuid4().hex, terms=agreed, address="1"
    )
    accepted = TermsAcceptance.objects.create(
        reseller=reseller, staff=maker, terms=agreed, address="1", accepted_at=Now()
    )
    batch = PayoutBatch.objects.create(created_by="1")
    withdrawal = Withdrawal.objects.create(
        reseller=reseller,
        amount=1,
        fee=0,
        payee="1",
        bank="1",
        bank_account="1",
        state="approved",
        maker=maker,
        checker=checker,
        decided_at=Now(),
        batch=batch,
    )
    return [reseller, agreed, asked, accepted, terms, earned, back, batch, withdrawal]


def sell(tenant: Tenant, user: EndUser) -> None:
    """Give a tenant a package, a merchant account, and an order with what WeChat Pay said of it."""
    package = Package.objects.create(tenant=tenant, slug="1", name="十元", price=10_000_000, credits=10_000_000)
    merchant = MerchantAccount.objects.create(
        tenant=tenant, channel="wechat", merchant_id="1", app_id="wx0123456789abcdef", certificate_serial="1"
    )
    order = Order.objects.create(
        tenant=tenant,
        out_trade_no="1",
        user=user,
        package=package,
        package_name=package.name,
        price=package.price,
        credits=package.credits,
        bonus=package.bonus,
        merchant_account=merchant,
        channel=merchant.channel,
        method="native",
        merchant_id=merchant.merchant_id,
        app_id=merchant.app_id,
        expires_at=Now(),
        next_poll_at=Now(),
    )
    PaymentEvent.objects.create(
        tenant=tenant, merchant_account=merchant, order=order, event_id="1", body_digest="0" * 64, outcome="credited"
    )
    notice = PaymentNotice(
        event_id="2",
        out_trade_no=order.out_trade_no,
        transaction_id="1",
        merchant_id=order.merchant_id,
        app_id=order.app_id,
        amount=order.price,
        currency="CNY",
        body_digest="0" * 64,
    )
    recharge.settle_payment(account=merchant, notice=notice)
    refund.request_refund(
        tenant_id=tenant.pk, order_id=order.pk, amount=10_000, kind="manual", reason="退款", actor="test"
    )


def registered(site: AdminSite) -> dict[type[Any], Any]:
    """Return the models on a site."""
    return site._registry  # noqa: SLF001  # there is no public way to list them


def pages_of(site: AdminSite, rows: list[Model]) -> Iterator[str]:
    """Yield the path of every kind of page, and of the list and the form of every model."""
    for name in ("index", "password_change"):
        yield reverse(f"{site.name}:{name}")
    for row in rows:
        if type(row) in registered(site):
            model = f"{site.name}:{row._meta.app_label}_{row._meta.model_name}"
            yield reverse(f"{model}_changelist")
            yield reverse(f"{model}_change", args=[row.pk])
        for kind, actions in ((Order, ("refund", "charge_back")), (EndUser, ("credit", "block", "unblock"))):
            if isinstance(row, kind):
                for name in actions:
                    yield reverse(f"{site.name}:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[row.pk])
    yield reverse(f"{site.name}:chat_upstreamaccount_health")
    domain = next(row for row in rows if row._meta.model_name == "domain")
    for view in ("history", "delete"):
        yield reverse(f"{site.name}:tenants_domain_{view}", args=[domain.pk])
    yield reverse(f"{site.name}:tenants_domain_add")
    yield reverse(f"{site.name}:tenants_domain_changelist") + "?q=nothing-like-it"
    yield reverse(f"{site.name}:index") + "no/such/page/"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("site", "other_statuses"),
    [(admin.site, [404]), (tenant_site, [403, 404])],
    ids=["operator", "tenant"],
)
def test_no_page_of_an_admin_speaks_english_to_a_chinese_reader(
    site: AdminSite, other_statuses: list[int], settings: Settings
) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    rows = rows_of_every_kind()
    assert set(registered(site)) <= {type(row) for row in rows}
    tenant: Any = rows[0]
    if site is tenant_site:
        client, staff = Client(headers={"host": host_of(tenant)}), make_staff(tenant)
    else:
        client, staff = (
            Client(headers={"host": "localhost"}),
            StaffUser.objects.create_superuser("0", password=PASSWORD),
        )
    login = reverse(f"{site.name}:login")
    pages = {login: client.get(login), "a refused log-in": client.post(login, {"username": "1", "password": "1"})}
    client.force_login(staff)
    pages |= {path: client.get(path) for path in pages_of(site, rows)}
    pages["log-out"] = client.post(reverse(f"{site.name}:logout"))
    english = {path: english_on(page.content.decode()) for path, page in pages.items()}
    assert {path: texts for path, texts in english.items() if texts} == {}
    assert sorted(page.status_code for page in pages.values() if page.status_code != 200) == other_statuses


@pytest.mark.django_db
@pytest.mark.parametrize("site", [admin.site, tenant_site], ids=["operator", "tenant"])
@pytest.mark.parametrize(("language", "units"), [("en", r"micro-yuan|millionths"), ("zh-hans", "微元|百万分之")])
def test_no_page_of_an_admin_speaks_of_micro_yuan(
    site: AdminSite, language: str, units: str, settings: Settings
) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    rows = rows_of_every_kind()
    tenant: Any = rows[0]
    staff = make_staff(tenant) if site is tenant_site else StaffUser.objects.create_superuser("0", password=PASSWORD)
    StaffUser.objects.filter(pk=staff.pk).update(language=language)
    client = Client(headers={"host": host_of(tenant) if site is tenant_site else "localhost"})
    client.force_login(staff)
    pages = {path: client.get(path).content.decode() for path in pages_of(site, rows)}
    found = {path: re.findall(units, page) for path, page in pages.items()}
    assert {path: texts for path, texts in found.items() if texts} == {}


@pytest.mark.django_db
def test_a_tenants_first_page_and_a_wrong_address_speak_chinese() -> None:
    tenant = make_tenant(name="示例", language="zh-hans")
    client = Client(headers={"host": host_of(tenant)})
    home, wrong = client.get("/").content.decode(), client.get("/no/such/page").content.decode()
    assert (english_on(home), english_on(wrong)) == (set(), set())
    assert "该地址不存在。" in wrong

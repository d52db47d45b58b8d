"""What of moderation a tenant has: compiled once in each process, and again when somebody changed it.

A chat asks the database nothing for it. Every change raises `Tenant.moderation_revision` (a trigger of migration 0004),
which comes with the tenant's row, and that is looked up anew every three seconds (tenants.resolve).
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from django.conf import settings
from django.db import connection

from chat.moderation.checkers import Checker, EndpointChecker, WeChatChecker
from chat.moderation.lists import Lists, Word, WordList
from chat.moderation.models import ModerationSettings
from tenants.models import Tenant

# So many tenants' rules are kept in a process, and so long: a tenant that was opened while the platform's words were
# being changed may have been passed over.
KEEP_MOST: Final = 4096
KEEP_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A tenant's moderation. The first of the checkers that can check a user's text does."""

    lists: Lists | None = None
    checkers: tuple[Checker, ...] = ()
    checks_output: bool = False
    refuses_unchecked: bool = False


_lock = Lock()
_kept: OrderedDict[int, tuple[int, float, Rules | None]] = OrderedDict()
# The platform's list is every tenant's, so one is kept, under a digest of its words.
_platform: tuple[str, WordList | None] = ("", None)


def rules_of(tenant: Tenant) -> Rules | None:
    """Return a tenant's moderation, None where it has none. Must run in the tenant's scope."""
    now = time.monotonic()
    with _lock:
        revision, at, rules = _kept.get(tenant.pk, (-1, 0.0, None))
    if revision == tenant.moderation_revision and now - at < KEEP_SECONDS:
        return rules
    rules = _load(tenant.pk)
    with _lock:
        _kept[tenant.pk] = (tenant.moderation_revision, now, rules)
        _kept.move_to_end(tenant.pk)
        while len(_kept) > KEEP_MOST:
            _kept.popitem(last=False)
    return rules


def lists_of(tenant_id: int | None) -> Lists | None:
    """Return a tenant's words and the platform's, None where there are none; the platform's alone without a tenant."""
    platform = _platform_list()
    own = _own_list(tenant_id) if tenant_id is not None else None
    return Lists(platform=platform, own=own) if platform or own else None


def _load(tenant_id: int) -> Rules | None:
    lists = lists_of(tenant_id)
    chosen = ModerationSettings.objects.select_related("account").filter(tenant_id=tenant_id).first()
    checkers = _checkers(chosen) if chosen else ()
    if lists is None and not checkers:
        return None
    return Rules(
        lists=lists,
        checkers=checkers,
        checks_output=bool(chosen and checkers and chosen.checks_output),
        refuses_unchecked=bool(chosen and chosen.when_away == ModerationSettings.WhenAway.REFUSE),
    )


def _checkers(chosen: ModerationSettings) -> tuple[Checker, ...]:
    """Return the checkers that are set up, in the order in which they are asked for."""
    checkers: list[Checker] = []
    if chosen.wechat:
        checkers.append(WeChatChecker(base_url=settings.WECHAT_API_URL, scene=chosen.wechat_scene))
    account = chosen.account
    if account is not None and account.is_enabled:
        # The operator's own accounts may lead anywhere.
        is_tenants = account.tenant_id is not None
        checkers.append(
            EndpointChecker(
                base_url=account.base_url,
                api_key=account.api_key,
                model=chosen.endpoint_model,
                may_reach=frozenset(settings.UPSTREAM_PRIVATE_NETWORKS) if is_tenants else None,
            )
        )
    return tuple(checkers)


def _platform_list() -> WordList | None:
    """Return the platform's list; its rows are outside every tenant's scope, so this names their owner itself."""
    global _platform  # noqa: PLW0603  the process's own copy
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(md5(string_agg(concat_ws(chr(31), word, action, category), chr(30) ORDER BY id)), '')"
            " FROM chat_moderationword WHERE tenant_id IS NULL"
        )
        [digest] = cursor.fetchone()
        if digest == _platform[0]:
            return _platform[1]
        cursor.execute("SELECT word, action, category FROM chat_moderationword WHERE tenant_id IS NULL ORDER BY id")
        words = _compiled(cursor.fetchall(), source="platform")
    _platform = (digest, words)
    return words


def _own_list(tenant_id: int) -> WordList | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT word, action, category FROM chat_moderationword WHERE tenant_id = %s ORDER BY id", [tenant_id]
        )
        return _compiled(cursor.fetchall(), source="tenant")


def _compiled(rows: list[tuple[str, str, str]], *, source: str) -> WordList | None:
    words = [Word(word=word, action=action, category=category, source=source) for word, action, category in rows]
    return WordList(words) if words else None

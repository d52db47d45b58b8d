"""Fills a database with a large tenant, and times the pages of its admin.

    python -m saas.local.testing -- python -m tests.scale

100,000 users, 1,000,000 answers with their holds, messages and usage records, 150,000 orders, in SQL and past the
ledger: for looking at, not for the books. With `--explain` the slowest statements are printed with their plans.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

import django

USERS, ANSWERS, ORDERS, DAYS = 100_000, 1_000_000, 150_000, 120

# Each takes the tenant, a price version of each level, and the numbers above by name.
_STATEMENTS = (
    """INSERT INTO tenants_enduser (tenant_id, username, phone, nickname, password, language, is_guest, is_active, created_at)
    SELECT %(tenant)s, 'user' || n, '139' || lpad(n::text, 8, '0'), 'Nick ' || n, '', '', false, true,
      now() - (n %% %(days)s) * interval '1 day' - (n %% 86400) * interval '1 second'
    FROM generate_series(1, %(users)s) n""",
    """CREATE TEMPORARY TABLE scale_user AS
    SELECT row_number() OVER (ORDER BY id) - 1 AS place, id FROM tenants_enduser WHERE tenant_id = %(tenant)s""",
    # As uuid7 makes them: the time in front.
    """CREATE TEMPORARY TABLE scale_answer AS
    SELECT n, moment, moment::date AS day, u.id AS user_id,
      (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid AS id,
      n %% 50 = 0 AS is_failed, 'sku-' || n %% 12 AS sku, n %% 5 = 0 AS is_free
    FROM generate_series(1, %(answers)s) n
    CROSS JOIN LATERAL (SELECT now() - (n::bigint * 48271) %% (%(days)s * 86400) * interval '1 second' AS moment) at
    JOIN scale_user u ON u.place = (n::bigint * 7919) %% %(users)s""",
    "ANALYZE scale_user, scale_answer, tenants_enduser",
    """INSERT INTO billing_hold (tenant_id, id, user_id, key, sku, amount, gift_amount, cash_amount, wholesale_amount,
      retail_price_id, wholesale_price_id, cost_price_id, free, cap_counters, quota_group, quota_date, prompt_tokens,
      max_completion_tokens, created_at, expires_at, state, ended_at, reason, posted_prompt, posted_completion,
      checkpoint_prompt, checkpoint_cached, checkpoint_completion, posted_cached, usage_source, charge, gift_charge,
      cash_charge, shortfall, wholesale_charge, wholesale_shortfall, cost, recorded_at)
    SELECT %(tenant)s, id, user_id, 'scale' || n, sku, 0, 0, 0, 0, %(retail)s, %(wholesale)s, %(cost)s, is_free, '{}', 'default', day,
      1000, 1000, moment, moment, CASE WHEN is_failed THEN 'voided' ELSE 'posted' END, moment,
      CASE WHEN is_failed THEN (ARRAY['upstream_timeout', 'upstream_rate', 'upstream_network', 'stopped'])[1 + n / 50 %% 4] ELSE 'stop' END,
      CASE WHEN is_failed THEN 0 ELSE 800 END, CASE WHEN is_failed THEN 0 ELSE 300 END, 0, 0, 0, 0,
      CASE WHEN is_failed THEN '' ELSE 'upstream' END, CASE WHEN is_failed OR is_free THEN 0 ELSE 4000 END, 0,
      CASE WHEN is_failed OR is_free THEN 0 ELSE 4000 END, 0, CASE WHEN is_failed THEN 0 ELSE 2000 END, 0,
      CASE WHEN is_failed THEN 0 ELSE 1000 END, CASE WHEN is_failed THEN NULL ELSE moment END
    FROM scale_answer ORDER BY id""",
    """INSERT INTO billing_usagerecord (tenant_id, hold_id, user_id, day, sku, prompt_tokens, cached_tokens, completion_tokens,
      usage_source, retail_price_id, wholesale_price_id, cost_price_id, free, charge, wholesale_charge, cost, created_at)
    SELECT %(tenant)s, id, user_id, day, sku, 800, 0, 300, 'upstream', %(retail)s, %(wholesale)s, %(cost)s, is_free,
      CASE WHEN is_free THEN 0 ELSE 4000 END, 2000, 1000, moment
    FROM scale_answer WHERE NOT is_failed ORDER BY id""",
    """INSERT INTO billing_dailyusage (tenant_id, day, sku, answers, free_answers, prompt_tokens, cached_tokens, completion_tokens,
      charge, wholesale_charge, cost)
    SELECT tenant_id, day, sku, count(*), count(*) FILTER (WHERE free), sum(prompt_tokens), 0, sum(completion_tokens), sum(charge),
      sum(wholesale_charge), sum(cost)
    FROM billing_usagerecord WHERE tenant_id = %(tenant)s GROUP BY tenant_id, day, sku""",
    """INSERT INTO billing_dailyusers (tenant_id, day, active)
    SELECT tenant_id, day, count(DISTINCT user_id) FROM billing_usagerecord WHERE tenant_id = %(tenant)s GROUP BY tenant_id, day""",
    """INSERT INTO chat_conversation (tenant_id, id, user_id, title, is_pinned, is_archived, created_at, updated_at)
    SELECT %(tenant)s, id, user_id, 'About ' || n, false, false, moment, moment FROM scale_answer WHERE n %% 4 = 0 ORDER BY id""",
    """INSERT INTO chat_message (tenant_id, id, conversation_id, user_id, offer_slug, question, answer, state, finish_reason,
      created_at, ended_at, served_by, request_digest, attachments, reasoning)
    SELECT %(tenant)s, a.id, c.id, a.user_id, a.sku, 'A question of some length, number ' || a.n, repeat('An answer. ', 20),
      CASE WHEN is_failed THEN 'failed' ELSE 'done' END, 'stop', moment, moment, '', '', '{}', ''
    FROM scale_answer a JOIN (SELECT n, id FROM scale_answer WHERE n %% 4 = 0) c ON c.n = a.n - a.n %% 4 ORDER BY a.id""",
    """INSERT INTO billing_order (tenant_id, id, out_trade_no, user_id, package_id, package_name, plan_terms, price, credits, bonus, merchant_account_id, channel,
      method, merchant_id, app_id, provider_ref, payer_openid, state, transaction_id, created_at, expires_at, paid_at, next_poll_at)
    SELECT %(tenant)s, id, substr(replace(id::text, '-', ''), 1, 32), user_id, 1, 'Ten yuan', '{}', 10000000, 10000000, 0, 1, 'wechat', 'native', '1', '',
      '', '', CASE WHEN n %% 3 = 0 THEN 'pending' ELSE 'paid' END, CASE WHEN n %% 3 = 0 THEN '' ELSE 't' || n END, moment, moment,
      CASE WHEN n %% 3 = 0 THEN NULL ELSE moment END, moment
    FROM scale_answer WHERE n <= %(orders)s ORDER BY id""",
    """INSERT INTO billing_account (tenant_id, kind, user_id, channel, posted, pending)
    SELECT %(tenant)s, kind, id, '', 1000000, 0 FROM scale_user, unnest(ARRAY['user_cash', 'user_gift']) kind ON CONFLICT DO NOTHING""",
    """INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason, created_at)
    SELECT %(tenant)s, 'answer', id::text, 'answer', '', moment FROM scale_answer WHERE NOT is_failed ORDER BY id""",
    "ANALYZE billing_account, billing_transfer",
    """INSERT INTO billing_entry (tenant_id, transfer_id, account_id, amount)
    SELECT %(tenant)s, t.id, c.id, -4000 FROM billing_transfer t JOIN scale_answer a ON a.id::text = t.ref AND t.kind = 'answer'
    JOIN billing_account c ON c.tenant_id = %(tenant)s AND c.user_id = a.user_id AND c.kind = 'user_cash' WHERE t.tenant_id = %(tenant)s ORDER BY t.id""",
)


def fill(tenant: Any, *, users: int = USERS, answers: int = ANSWERS, orders: int = ORDERS, days: int = DAYS) -> None:
    """Write a tenant's rows; triggers and foreign keys are off meanwhile, so the account must be a superuser."""
    from django.db import connection  # noqa: PLC0415  Django is not set up when the module is read

    from billing.models import PriceVersion  # noqa: PLC0415  as above
    from tenants import scope  # noqa: PLC0415  as above
    from tests.factories import make_sku  # noqa: PLC0415  as above

    sku = make_sku(tenant)
    with scope.platform("prices of every level"):
        prices = dict(PriceVersion.objects.filter(sku=sku).values_list("level", "pk"))
    values = {"tenant": tenant.pk, "users": users, "answers": answers, "orders": orders, "days": days, **prices}
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET timezone = 'Asia/Shanghai'")
        for statement in _STATEMENTS:
            began = time.monotonic()
            cursor.execute(statement, values)
            sys.stdout.write(f"{time.monotonic() - began:6.1f} s {statement[:40]}\n")
            sys.stdout.flush()
        cursor.execute("DROP TABLE scale_user, scale_answer")
        cursor.execute("RESET session_replication_role; RESET timezone")
        cursor.execute("VACUUM ANALYZE")


def pages(site: Any) -> Iterable[str]:
    """Yield the first page in each of its spans, and every list."""
    from django.urls import reverse  # noqa: PLC0415  as above

    index = reverse(f"{site.name}:index")
    for query in ("days=1", "days=7", "days=30", "days=90"):
        yield f"{index}?{query}"
    for model in site._registry:  # noqa: SLF001  there is no public way to list them
        yield reverse(f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_changelist")
    users = reverse(f"{site.name}:tenants_enduser_changelist")
    yield from (f"{users}?q=Nick+99999", f"{users}?q=13900012345", f"{users}?q=77777")
    holds = reverse(f"{site.name}:billing_hold_changelist")
    today, before = time.strftime("%Y-%m-%d"), time.strftime("%Y-%m-%d", time.localtime(time.time() - 89 * 86400))
    yield f"{holds}?failed=yes&quota_date_from={before}&quota_date_to={today}"
    yield f"{users}?active_from={before}&active_to={today}"
    yield f"{users}?active_from={today}&active_to={today}"
    yield f"{users}?created_at_from={before}&created_at_to={today}"
    orders = reverse(f"{site.name}:billing_order_changelist")
    yield f"{orders}?state__exact=paid&paid_at_from={before}&paid_at_to={today}"


def time_pages(*, only_over: float, explain: bool) -> None:
    """Print what each page takes, and its slow statements."""
    from django.contrib import admin  # noqa: PLC0415  as above
    from django.db import connection  # noqa: PLC0415  as above
    from django.test import Client  # noqa: PLC0415  as above
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415  as above

    from tenants.adminsite import tenant_site  # noqa: PLC0415  as above
    from tests.factories import host_of, make_operator, make_staff, make_tenant  # noqa: PLC0415  as above

    tenant = make_tenant()
    began = time.monotonic()
    fill(tenant)
    sys.stdout.write(f"filled in {time.monotonic() - began:.0f} s\n")
    for site, host, staff in (
        (tenant_site, host_of(tenant), make_staff(tenant)),
        (admin.site, "localhost", make_operator()),
    ):
        client = Client(headers={"host": host})
        client.force_login(staff)
        for path in pages(site):
            client.get(path)
            with CaptureQueriesContext(connection) as queries:
                began, used = time.monotonic(), time.process_time()
                status = client.get(path).status_code
                took, used = time.monotonic() - began, time.process_time() - used
            asked = sum(float(query["time"]) for query in queries.captured_queries)
            if took < only_over and "?" not in path:
                continue
            # On a busy machine the second and third figures are the page's own.
            figures = f"{took:6.2f} s, {used:5.2f} s here, {asked:5.2f} s in {len(queries):3d} queries"
            sys.stdout.write(f"{figures} {status} {site.name} {path}\n")
            for query in queries.captured_queries if explain else ():
                if float(query["time"]) > only_over / 4 and query["sql"].startswith("SELECT"):
                    sys.stdout.write(f"    {query['time']} s {query['sql'][:1200]}\n")
                    with connection.cursor() as cursor:
                        cursor.execute("EXPLAIN (ANALYZE, BUFFERS) " + query["sql"])
                        sys.stdout.writelines(f"        {line}\n" for (line,) in cursor.fetchall())


def main() -> None:
    """Make the tables, fill them, and time the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--over", type=float, default=0.3, help="lists that take less are not printed, seconds")
    parser.add_argument("--explain", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")
    django.setup()
    from django.core.management import call_command  # noqa: PLC0415  as above
    from django.test.utils import setup_test_environment  # noqa: PLC0415  as above

    setup_test_environment()
    call_command("migrate", verbosity=0)
    time_pages(only_over=asked.over, explain=asked.explain)


if __name__ == "__main__":
    main()

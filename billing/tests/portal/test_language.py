"""No page of the portal speaks English to a Chinese reader, and none of micro-yuan."""

import re
from typing import Final

import pytest

from billing.tests.portal.test_isolation import LISTS, NAMES
from billing.tests.portal.trade import BANK_ACCOUNT, Trade, browser, page
from tenants.models import ResellerTerms
from tests.test_translations import english_on

# Addresses, the key of an authenticator app, and what WeChat's console calls domains.
SAME_IN_CHINESE: Final = re.compile(
    r"(?:https?|wss?)://[\w.:/-]+|localhost|\b[A-Z2-7]{32}\b|(?:request|socket)(?= 合法域名)"
)


@pytest.mark.parametrize(
    "name", [name for name in [*LISTS, *NAMES] if name not in {"allot", "language", "wallet_notice"}]
)
def test_no_page_speaks_english_to_a_chinese_reader(trade: Trade, name: str) -> None:
    client = browser(trade.reseller, language="zh-CN")
    body = client.get(page(name, *(NAMES[name](trade) if name in NAMES else []))).content.decode()
    # Rows' own data, the time zone's name, and the button that leads to the other language.
    named = (trade.statement.number, trade.top_up.bank_reference, trade.own.tenant.name, trade.below.tenant.name)
    for theirs in (*named, "ICBC", BANK_ACCOUNT[-4:], "CST", ">EN<"):
        body = body.replace(theirs, "")
    body = SAME_IN_CHINESE.sub("", body)
    assert (english_on(body), re.findall("微元|百万分之", body)) == (set(), [])


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["log_in", "sign_up", "terms", "forgot"])
def test_no_page_for_strangers_does(name: str) -> None:
    ResellerTerms.objects.create(version="1", text="条款", text_en="words")
    assert english_on(browser(None, language="zh-CN").get(page(name)).content.decode()) == set()

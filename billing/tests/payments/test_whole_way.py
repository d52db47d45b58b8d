"""One payment over real servers on both ends, as a client and WeChat Pay see it."""

import httpx
import pytest
from django.conf import settings

from billing.tests.payments.conftest import Till, path_of
from tests.factories import host_of
from tests.servers import web_server


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_order_pay_and_be_credited(committed_till: Till, server: str) -> None:
    till = committed_till
    headers = {"host": host_of(till.tenant), "authorization": f"Bearer {till.token}"}
    wanted = {"package": till.package.slug, "channel": "wechat", "method": "native"}
    serving = web_server(server, ENCRYPTION_KEYS=settings.ENCRYPTION_KEYS[0], WECHAT_PAY_API_URL=till.wechat.url)
    with serving as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        bought = http.post("/api/billing/orders", json=wanted, headers=headers).json()["data"]
        number = till.number(bought)
        till.wechat.pay(number)
        path = path_of(till.wechat.trades[number].asked["notify_url"])
        raw, signed = till.wechat.notification(number)
        answers = [
            http.post(path, content=raw + b" ", headers={**signed, "content-type": "application/json"}),
            http.post(path, content=raw, headers={**signed, "content-type": "application/json"}),
        ]
        state = http.get(f"/api/billing/orders/{bought['order']['id']}", headers=headers).json()["data"]["state"]
    assert [answer.status_code for answer in answers] == [401, 200]
    assert answers[1].json() == {"code": "SUCCESS", "message": ""}
    assert (state, till.books()) == ("paid", till.bought())

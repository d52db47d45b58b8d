"""One payment over real servers on both ends, as a client and a payment provider see it."""

import httpx
import pytest
from django.conf import settings

from billing import recharge
from billing.tests.payments.conftest import Counter
from tests.factories import host_of
from tests.servers import web_server


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_order_pay_and_be_credited(committed_counter: Counter, server: str) -> None:
    till = committed_counter
    headers = {"host": host_of(till.tenant), "authorization": f"Bearer {till.token}"}
    wanted = {"package": till.package.slug, "channel": till.desk.channel, "method": till.desk.method}
    serving = web_server(
        server,
        ENCRYPTION_KEYS=settings.ENCRYPTION_KEYS[0],
        WECHAT_PAY_API_URL=settings.WECHAT_PAY_API_URL,
        ALIPAY_GATEWAY_URL=settings.ALIPAY_GATEWAY_URL,
        STRIPE_API_URL=settings.STRIPE_API_URL,
    )
    with serving as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        bought = http.post("/api/billing/orders", json=wanted, headers=headers).json()["data"]
        number = till.number(bought)
        till.desk.show(number, bought["payment"])
        till.desk.pay(number)
        path = recharge.notify_path(tenant=till.tenant, account=till.account)
        raw, signed = till.desk.tell(number)
        signed = {"content-type": "application/json", **{name.lower(): value for name, value in signed.items()}}
        answers = [http.post(path, content=body, headers=signed) for body in (raw + b" ", raw)]
        state = http.get(f"/api/billing/orders/{bought['order']['id']}", headers=headers).json()["data"]["state"]
        page = http.get(f"/pay/done?order={bought['order']['id']}", headers=headers).text
    said = [answer.json() if "json" in answer.headers["content-type"] else answer.text for answer in answers]
    assert [(answer.status_code, body) for answer, body in zip(answers, said, strict=True)] == [
        till.desk.refused,
        till.desk.taken,
    ]
    assert (state, till.books()) == ("paid", till.bought())
    assert "Your payment has arrived and is in your balance." in page

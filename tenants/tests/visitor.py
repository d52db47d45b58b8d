"""A browser or a program at a tenant's door, for tests of signing in."""

from datetime import timedelta
from typing import Any

from django.test import Client

from tenants import scope
from tenants.models import OneTimeCode, Tenant
from tests.factories import host_of

WECHAT_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49"


class Visitor:
    """Talks to one tenant's API, from an address of its own, with a token once it has one."""

    def __init__(self, tenant: Tenant, *, address: str = "203.0.113.1", agent: str = "", token: str = "") -> None:
        self.tenant = tenant
        self.token = token
        self.client = Client(
            headers={"host": host_of(tenant), "user-agent": agent, "accept-language": "en"},
            REMOTE_ADDR=address,
            raise_request_exception=False,
        )

    def post(self, path: str, **body: Any) -> Any:
        """Post JSON to a path below /api/auth/."""
        return self.client.post(f"/api/auth/{path}", body, content_type="application/json", headers=self._headers())

    def get(self, path: str, **query: str) -> Any:
        """Ask for a path below /api/auth/."""
        return self.client.get(f"/api/auth/{path}", query, headers=self._headers())

    def enter(self, path: str, **body: Any) -> dict[str, Any]:
        """Sign in and keep the token; return who it is."""
        answer = self.post(path, **body)
        assert answer.status_code == 200, answer.content
        data = answer.json()["data"]
        self.token = data["token"]
        user: dict[str, Any] = data["user"]
        return user

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def kind(answer: Any) -> str:
    """Return the type of a refusal, or "ok"."""
    body = answer.json()
    return "ok" if body["code"] == 1 else str(body["type"])


def age_codes(tenant: Tenant, seconds: int) -> None:
    """Let time pass for the codes of a tenant."""
    with scope.tenant(tenant.pk):
        for row in OneTimeCode.objects.all():
            OneTimeCode.objects.filter(pk=row.pk).update(
                created_at=row.created_at - timedelta(seconds=seconds),
                expires_at=row.expires_at - timedelta(seconds=seconds),
            )

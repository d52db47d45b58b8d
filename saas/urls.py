"""Pages and JSON. The chat path, `/api/chat/stream`, is routed in saas/asgi.py, before Django."""

from django.contrib import admin
from django.urls import include, path

from billing.api import router as billing
from billing.api_ledger import router as ledger
from billing.api_plans import router as plans
from billing.api_recharge import payments
from billing.api_recharge import router as recharge
from billing.api_rewards import router as rewards
from billing.portal.urls import urlpatterns as portal_of_billing
from chat.answers import router as answers
from chat.attachment_api import router as attachments
from chat.front import router as front
from chat.history import router as history
from chat.key_api import router as keys
from chat.opinions import router as opinions
from chat.receipts import router as receipts
from chat.shares import router as shares
from chat.shelf import router as shelf
from lifecycle.api import router as opening
from lifecycle.portal_urls import urlpatterns as portal_of_lifecycle
from saas.health import healthz
from saas.openapi import openapi
from saas.pages import home, invitation_link, legal_page, payment_done, redeem_link, shared_conversation
from saas.shell import icon, web_manifest
from tenants.adminsite import tenant_site
from tenants.api import api
from tenants.api_account import router as account
from tenants.api_avatar import router as avatars
from tenants.api_signin import router as signin
from tenants.api_site import router as site
from tenants.portal.urls import urlpatterns as portal_of_tenants

api.add_router("/site", site)
api.add_router("/auth", signin)
api.add_router("/auth", account)
api.add_router("/auth", avatars)
api.add_router("/chat", front)
api.add_router("/chat", answers)
api.add_router("/chat", attachments)
api.add_router("/chat", history)
api.add_router("/chat", shares)
api.add_router("/chat", opinions)
api.add_router("/chat", shelf)
api.add_router("/keys", keys)
api.add_router("/billing", billing)
api.add_router("/billing", recharge)
api.add_router("/billing", ledger)
api.add_router("/billing", receipts)
api.add_router("/billing", rewards)
api.add_router("/billing", plans)
api.add_router("/payments", payments)
api.add_router("/opening", opening)

urlpatterns = [
    path("", home, name="home"),
    path("manifest.webmanifest", web_manifest, name="web_manifest"),
    path("icon.svg", icon, name="icon"),
    path("i/<str:code>", invitation_link, name="invitation_link"),
    path("r/<str:code>", redeem_link, name="redeem_link"),
    path("s/<str:token>", shared_conversation, name="shared"),
    path("terms", legal_page, {"kind": "terms"}, name="terms"),
    path("privacy", legal_page, {"kind": "privacy"}, name="privacy"),
    path("pay/done", payment_done, name="payment_done"),
    path("healthz", healthz, name="healthz"),
    path("api/openapi.json", openapi, name="openapi"),
    path("api/", api.urls),
    path("admin/", tenant_site.urls),
    path("platform/", admin.site.urls),
    path("portal/", include(([*portal_of_lifecycle, *portal_of_tenants, *portal_of_billing], "portal"))),
]

"""The portal's addresses in this room; saas/urls.py joins them with the others under the name "portal"."""

from django.urls import path

from billing.portal import home, money, prices, resellers, statements, tenants

urlpatterns = [
    path("", home.home, name="home"),
    path("usage/", home.usage, name="usage"),
    path("tenants/", tenants.tenants, name="tenants"),
    path("tenants/<slug:slug>/", tenants.tenant, name="tenant"),
    path("tenants/<slug:slug>/wallet/", tenants.allot, name="allot"),
    path("tenants/<slug:slug>/price/", prices.price, name="price"),
    path("wallet/", money.wallet_page, name="wallet"),
    path("wallet/notice/", money.wallet_notice, name="wallet_notice"),
    path("commissions/", money.commissions, name="commissions"),
    path("withdrawals/", money.withdrawals, name="withdrawals"),
    path("prices/", prices.prices, name="prices"),
    path("statements/", statements.listed, name="statements"),
    path("statements/so-far/", statements.so_far, name="statement_so_far"),
    path("statements/<int:pk>/", statements.statement, name="statement"),
    path("resellers/", resellers.resellers, name="resellers"),
    path("resellers/open/", resellers.open_reseller, name="open_reseller"),
    path("resellers/of/<slug:slug>/", resellers.reseller, name="reseller"),
]

"""The portal's addresses in this room; saas/urls.py joins them with the others under the name "portal"."""

from django.urls import path

from billing.portal import home

urlpatterns = [
    path("", home.home, name="home"),
]

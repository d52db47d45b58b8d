"""The portal's addresses in this room; saas/urls.py joins them with the others under the name "portal"."""

from django.urls import path

from tenants.portal import people

urlpatterns = [
    path("login/", people.log_in, name="log_in"),
    path("logout/", people.log_out, name="log_out"),
    path("language/", people.language, name="language"),
]

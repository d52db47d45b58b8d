"""The portal's addresses in this room; saas/urls.py joins them with the others under the name "portal"."""

from django.urls import path

from lifecycle import pages

urlpatterns = [
    path("tenants/new/", pages.begin, name="open_tenant"),
    path("tenants/new/<uuid:number>/<slug:name>/", pages.step, name="opening_step"),
    path("tenants/<slug:slug>/checklist/", pages.checklist, name="checklist"),
]

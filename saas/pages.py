"""The first page of every host: a tenant's brand on its own hosts, the operator's admin on the platform's."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from chat.views import CHAT_PATH
from tenants.models import Branding


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show whose service this is; the chat itself is in the tenant's apps."""
    if request.tenant is None:  # type: ignore[attr-defined]
        return redirect("admin:index")
    brand = Branding.objects.filter(tenant=request.tenant).first()  # type: ignore[attr-defined]
    return render(
        request,
        "pages/home.html",
        {
            "brand": brand or Branding(title=request.tenant.name),  # type: ignore[attr-defined]
            "chat_url": request.build_absolute_uri(CHAT_PATH),
        },
    )

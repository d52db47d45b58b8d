"""Another tenant's staff, users and tokens get nothing, at any address: a matrix made from what is served.

Addresses come from the URL configuration, the admins' registries and the OpenAPI document. A new page or endpoint is
tried by being there; where one cannot be (a parameter that nothing here fills), a test fails and says so.

Both tenants have a row of every kind, and every text of the other's that can be is marked: an answer with the mark,
or with a number of the other's that nobody can guess, has leaked.
"""

import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Final

import pytest
from cryptography.fernet import Fernet
from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, models, transaction
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django.utils.http import urlsafe_base64_encode
from pytest_django import Settings

from chat.models import ShareLink
from lifecycle import programs
from tenants import resolve, scope
from tenants.adminsite import tenant_site
from tenants.api import api
from tenants.login import digest_of, issue_token
from tenants.models import Avatar, EndUser, Membership, StaffUser, Tenant
from tenants.scope import TenantOwned
from tests.factories import host_of, make_operator, make_reseller, make_staff
from tests.test_translations import registered, rows_of_every_kind

pytestmark = pytest.mark.django_db

ROLES: Final = tuple(Membership.Role.values)
NOT_YOURS: Final = {401, 403, 404}
# What anybody may see; each is asked for all the same, and must not say anything of the other tenant.
PUBLIC: Final = {
    "",
    "i/<str:code>",
    "r/<str:code>",
    "s/<str:token>",
    "pay/done",
    "terms",
    "privacy",
    "healthz",
    "manifest.webmanifest",  # of the page, in the brand of the host
    "icon.svg",
    "api/openapi.json",
    "admin/login/",
    "admin/jsi18n/",
    "admin/join/<str:token>/",
    "admin/second-factor/",
    "admin/forgot/",
    "admin/reset/<str:uid>/<str:token>/",
    "platform/login/",
    "platform/second-factor/",
    "platform/forgot/",
    "platform/reset/<str:uid>/<str:token>/",
    "platform/jsi18n/",
}
# Endpoints without a token: each says what stands in its place.
TOKENLESS: Final = {
    ("post", "/api/auth/login"),  # a password
    ("post", "/api/auth/register"),
    ("post", "/api/auth/guest"),
    ("post", "/api/auth/wechat"),  # WeChat's word
    ("get", "/api/auth/wechat/h5/start"),
    ("get", "/api/auth/wechat/h5/back"),
    ("post", "/api/auth/wechat/h5/finish"),
    ("get", "/api/auth/methods"),  # what a tenant offers whoever comes
    ("post", "/api/auth/code"),
    ("post", "/api/auth/code/login"),  # a code
    ("post", "/api/auth/email/register"),
    ("post", "/api/auth/password/reset"),
    ("get", "/api/chat/front"),
    ("get", "/api/site"),  # what a tenant says of itself to whoever comes
    ("get", "/api/opening/proof"),  # a host's own word, for whoever looks whether it leads here
    ("get", "/api/chat/shared/{token}"),  # the link
    ("get", "/api/chat/shared/{token}/attachments/{attachment_id}"),
    ("post", "/api/chat/shared/{token}/report"),
    ("get", "/api/auth/avatars/{avatar}"),  # an address that was told to one user
    ("post", "/api/payments/{slug}/{channel}/{account_id}/notify"),  # a signature
    ("get", "/api/payments/{slug}/{channel}/{account_id}/notify"),
}


@dataclass(frozen=True)
class House:
    """A tenant with a row of every kind."""

    tenant: Tenant
    host: str
    rows: dict[type[models.Model], models.Model]
    user: EndUser
    token: str
    owner: StaffUser

    def client(self, staff: StaffUser | None = None, **headers: str) -> Client:
        """Return a browser on this tenant's host, with a session of `staff`."""
        made = Client(headers={"host": self.host, **headers})
        if staff:
            made.force_login(staff)
        return made

    def standing(self) -> dict[str, list[Any]]:
        """Return every row of the tenant, but for the moments of log-ins."""
        with scope.tenant(self.tenant.pk):
            return {
                model._meta.label: list(model._base_manager.filter(tenant=self.tenant).order_by("pk").values())
                for model in apps.get_models()
                if issubclass(model, TenantOwned) and model._meta.label != "tenants.ChangeEntry"
            }


def open_house() -> House:
    rows = rows_of_every_kind()
    tenant: Any = rows[0]
    known = {type(row): row for row in rows}
    user: Any = known[EndUser]
    with scope.tenant(tenant.pk):
        token = issue_token(user=user)
    return House(tenant, host_of(tenant), known, user, token, make_staff(tenant))


@dataclass(frozen=True)
class Street:
    """One's own house, the neighbour's, and how the neighbour's things are known."""

    ours: House
    theirs: House
    mark: str
    secrets: frozenset[str]

    def leaked(self, body: bytes) -> list[str]:
        """Return what of the neighbour an answer shows."""
        said = body.decode("utf-8", "replace")
        return sorted(word for word in (self.mark, *self.secrets) if word in said)


@pytest.fixture
def street(settings: Settings) -> Iterator[Street]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    ours, theirs = open_house(), open_house()
    mark = f"zq{uuid.uuid4().hex[:6]}"
    marked = mark_everything(theirs, mark)
    # Were it a few only, the tests below would find nothing because there is nothing.
    assert len(marked) > 60
    resolve.forget()
    yield Street(ours, theirs, mark, frozenset({theirs.host, theirs.tenant.slug, *numbers_of(theirs)}))
    resolve.forget()


def numbers_of(house: House) -> set[str]:
    """Return the numbers of a tenant's rows that are too long to be met by chance."""
    found: set[str] = set()
    with scope.tenant(house.tenant.pk):
        for model in apps.get_models():
            if issubclass(model, TenantOwned) and isinstance(model._meta.pk, models.UUIDField):
                for pk in model._base_manager.filter(tenant=house.tenant).values_list("pk", flat=True):
                    found |= {str(pk), pk.hex}
    return found


def mark_everything(house: House, mark: str) -> set[str]:
    """Put the mark into every text of a tenant's rows that takes it; return which columns did."""
    marked: set[str] = set()
    with scope.tenant(house.tenant.pk):
        for model in apps.get_models():
            if issubclass(model, TenantOwned):
                marked |= mark_rows(model._base_manager.filter(tenant=house.tenant), mark)
    staff = StaffUser.objects.filter(pk=house.owner.pk)
    return marked | mark_rows(staff, mark) | mark_rows(Tenant.objects.filter(pk=house.tenant.pk), mark)


def mark_rows(rows: Any, mark: str) -> set[str]:
    marked = set()
    for field in rows.model._meta.concrete_fields:
        # Hosts and slugs are addresses, by which the tests go.
        if type(field) not in {models.CharField, models.TextField, models.EmailField} or field.choices:
            continue
        if field.name in {"host", "password", "digest", "timezone"}:
            continue
        for row in rows.values("pk", field.name):
            room = (field.max_length or 10_000) - len(mark)
            text = f"{(row[field.name] or '')[:room]}{mark}"
            try:
                with transaction.atomic():
                    done = rows.filter(pk=row["pk"]).update(**{field.name: text})
            except DatabaseError:  # the ledger's rows stay, and so does what has a form
                continue
            if done:
                marked.add(f"{rows.model._meta.label}.{field.name}")
    return marked


def routes(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Yield every route of Django's."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route


def filled(route: str, house: House) -> str:
    """Return a route's path with what of `house` stands in its places; KeyError where nothing here can."""

    def fill(found: re.Match[str]) -> str:
        return value_of(found["name"], route, house)

    route = re.sub(r"\(\?P<(?P<name>\w+)>[^)]*\)+", fill, route)
    path = re.sub(r"<(?:\w+:)?(?P<name>\w+)>", fill, route)
    return "/" + path.replace("^", "").replace("\\Z", "").replace("$", "").replace("\\.", ".")


# Whose number stands in a path under this name.
NUMBERS: Final[dict[str, str]] = {
    "conversation_id": "chat.Conversation",
    "message_id": "chat.Message",
    "attachment_id": "chat.Attachment",
    "share_id": "chat.ShareLink",
    "announcement_id": "chat.Announcement",
    "key_id": "chat.ApiKey",
    "order_id": "billing.Order",
    "account_id": "billing.MerchantAccount",
    "identity_id": "tenants.WeChatIdentity",
    "session_id": "tenants.AccessToken",
    "job_id": "tenants.ImportJob",
}
# In an admin's path, which the model's own name comes before.
OF_A_ROW: Final = {"object_id", "id", "pk", "number"}
A_ROWS_PAGE: Final = re.compile(rf"(?:admin|platform)/\w+/\w+/.*(?:{'|'.join(sorted(OF_A_ROW))})>")


def value_of(name: str, route: str, house: House) -> str:
    """Return what stands in a path; KeyError for a name that nobody has given a value yet."""
    page = re.match(r"(?:admin|platform)/(\w+)/(\w+)/", route)
    if name in OF_A_ROW and (page or name not in OTHERS):
        model = apps.get_model(page[1], page[2]) if page else EndUser
        return str(quote(row_of(model, house).pk))
    if name in NUMBERS:
        return str(row_of(apps.get_model(NUMBERS[name]), house).pk)
    return OTHERS[name](house)


def row_of(model: type[models.Model], house: House) -> models.Model:
    """Return a row of the tenant, or of the platform where the model is its own."""
    if model in house.rows:
        return house.rows[model]
    with scope.tenant(house.tenant.pk):
        return model._base_manager.filter(tenant=house.tenant).order_by("pk")[0]


def share_token(house: House) -> str:
    """Return the token of a new link that shares the tenant's conversation."""
    token = secrets.token_urlsafe(32)
    with scope.tenant(house.tenant.pk):
        link: Any = ShareLink.objects.order_by("pk")[0]
        ShareLink.objects.create(
            tenant=house.tenant,
            user=house.user,
            conversation_id=link.conversation_id,
            digest=digest_of(token),
            expires_at=timezone.now() + timedelta(days=1),
        )
    return token


OTHERS: Final[dict[str, Callable[[House], str]]] = {
    "slug": lambda house: house.tenant.slug,
    "channel": lambda _house: "wechat",
    "token": share_token,
    "avatar": lambda house: row_of(Avatar, house).token,  # type: ignore[attr-defined]
    "code": lambda _house: "2222-2222-2222-2222",
    "content_type_id": lambda _house: str(ContentType.objects.get_for_model(EndUser).pk),
    "app_label": lambda _house: "tenants",
    "uid": lambda house: urlsafe_base64_encode(str(house.owner.pk).encode()),
    "url": lambda _house: "no/such/page",
    # The portal's, which billing/tests/portal tries in its own way.
    "number": lambda _house: str(uuid.uuid4()),
    "name": lambda _house: "brand",
    "person": lambda house: urlsafe_base64_encode(str(house.owner.pk).encode()),
    "secret": lambda _house: "bny_inv_" + "x" * 43,
}


def admin_routes(prefix: str) -> list[str]:
    """Return the routes of an admin, without those that anybody may see."""
    return [route for route in routes() if route.startswith(prefix) and route not in PUBLIC]


def fetch(client: Client, path: str) -> tuple[int, bytes, str]:
    """Return an answer's status, its body and where it leads."""
    answer = client.get(path)
    return answer.status_code, said(answer), answer.headers.get("Location", "")


def said(answer: Any) -> bytes:
    """Return an answer's body, a streamed one to its end."""
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_every_address_can_be_tried(street: Street) -> None:
    tried = {route: filled(route, street.theirs) for route in routes()}
    assert {route: path for route, path in tried.items() if "<" in path or "(" in path} == {}
    assert set(tried) >= PUBLIC - {""}
    assert len([route for route in tried if route.startswith("admin/")]) > 200


def test_whoever_is_not_a_member_gets_no_page_of_an_admin(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    bearer: Any = {"authorization": f"Bearer {theirs.token}", "token": theirs.token}
    strangers = {
        "nobody": theirs.client(),
        "another tenant's owner": theirs.client(ours.owner),
        "the operator, on a tenant's host": theirs.client(make_operator()),
        "a user of the tenant": theirs.client(**bearer),
    }
    before = theirs.standing()
    for route in admin_routes("admin/"):
        path = filled(route, theirs)
        for who, client in strangers.items():
            for method in (client.get, client.post):
                answer = method(path)
                seen = (answer.status_code, answer.headers.get("Location", "").split("?")[0])
                # Django sends whoever has no session from the log-out to the first page, and so to the log-in.
                wanted = {(302, "/admin/" if route == "admin/logout/" else "/admin/login/"), (404, "")}
                assert (who, path, seen in wanted) == (who, path, True), seen
                assert (who, path, street.leaked(said(answer).replace(path.encode(), b""))) == (who, path, [])
    assert theirs.standing() == before


def test_a_member_gets_nothing_of_another_tenants_rows(street: Street) -> None:
    """Every page about a row, asked for with the other's row, by each role; and posted to, by the owner."""
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    pages = [route for route in admin_routes("admin/") if A_ROWS_PAGE.match(route)]
    for role in ROLES:
        client = ours.client(ours.owner if role == "owner" else make_staff(ours.tenant, role=role))
        for route in pages:
            path = filled(route, theirs)
            answer = client.get(path, follow=True)
            assert (role, path, answer.status_code in NOT_YOURS) == (role, path, True)
            assert (role, path, street.leaked(said(answer).replace(path.encode(), b""))) == (role, path, [])
            if role == "owner":
                posted = client.post(path, {"post": "yes", "confirmed": "yes"}, follow=True)
                assert (path, posted.status_code in NOT_YOURS) == (path, True)
    assert theirs.standing() == before
    # The same pages are there for whose they are.
    owner = theirs.client(theirs.owner)
    shown = {route for route in pages if owner.get(filled(route, theirs), follow=True).status_code == 200}
    assert len(shown) > 60


def test_lists_searches_filters_and_exports_hold_ones_own(street: Street) -> None:  # all of a list
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    client, neighbour = ours.client(ours.owner), theirs.client(theirs.owner)
    part = street.mark[:-1]
    for model, model_admin in registered(tenant_site).items():
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        their = row_of(model, theirs)
        # A page repeats what was searched for: a part of the mark finds all that has it, and only a row has the whole.
        queries = ["", f"?q={part}", f"?q={their.pk}", "?all=", f"?tenant__id__exact={theirs.tenant.pk}"]
        for field in model._meta.concrete_fields:
            if field.is_relation:
                queries.append(f"?{field.name}__id__exact={field.value_from_object(their)}")
            queries.append(f"?o={len(queries)}")
        for query in queries:
            status, body, _where = fetch(client, base + query)
            # 400: a filter that the list does not have.
            assert (base + query, status in {200, 302, 400}) == (base + query, True)
            asked = query.partition("=")[2]
            if asked not in {"", part}:  # a page repeats what it was asked for
                body = body.replace(asked.encode(), b"")
            assert (base + query, street.leaked(body)) == (base + query, [])
        for route in routes_of_lists(model):
            status, body, _where = fetch(client, filled(route, ours))
            assert (route, status < 400 or status in NOT_YOURS, street.leaked(body)) == (route, True, [])
        with scope.tenant(ours.tenant.pk):
            actions = list(model_admin.get_actions(request_of(ours)))
        for name in actions:
            for confirmed in ({}, {"post": "yes"}):
                chosen = {"action": name, "_selected_action": [their.pk], "select_across": "0", **confirmed}
                answer = client.post(base, {**chosen, "reason": "because"}, follow=True)
                assert (base, name, street.leaked(said(answer))) == (base, name, [])
            everything = {"action": name, "_selected_action": [their.pk], "select_across": "1"}
            if "export" in name:
                answer = client.post(base, everything)
                assert (base, name, street.leaked(said(answer))) == (base, name, [])
    assert theirs.standing() == before
    lists = [f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for model in registered(tenant_site)]
    showing = [base for base in lists if street.mark in fetch(neighbour, base)[1].decode()]
    assert len(showing) > 15  # there is something that could have leaked


def routes_of_lists(model: type[models.Model]) -> list[str]:
    """Return the addresses beside a model's list that name no row: own pages, exports."""
    base = f"admin/{model._meta.app_label}/{model._meta.model_name}/"
    return [route for route in routes() if route.startswith(base) and not A_ROWS_PAGE.match(route)]


def request_of(house: House, role: str = "owner", method: str = "get") -> Any:
    """Return a request to the tenant's admin by a member of a role, as its middleware leaves it."""
    staff = house.owner if role == "owner" else make_staff(house.tenant, role=role)
    request = getattr(RequestFactory(), method)("/admin/", headers={"host": house.host})
    request.tenant, request.user = house.tenant, staff
    return request


def test_no_form_offers_or_takes_another_tenants_rows(street: Street) -> None:
    """Each choice of each form, its inlines' too, asked with the other's number; the tenant itself is no choice."""
    ours, theirs = street.ours, street.theirs
    offered, tried = [], 0
    with scope.tenant(ours.tenant.pk):
        for model, model_admin in registered(tenant_site).items():
            for row in (None, row_of(model, ours)):
                request = request_of(ours)
                if not (model_admin.has_change_permission if row else model_admin.has_add_permission)(request):
                    continue
                made = [model_admin.get_form(request, row, change=row is not None)]
                made += [set_.form for set_, _inline in model_admin.get_formsets_with_inlines(request, row)]
                if model_admin.action_form:
                    made.append(model_admin.action_form)
                for form in made:
                    for name, field in form.base_fields.items():
                        assert (model._meta.label, name == "tenant") == (model._meta.label, False)
                        if isinstance(field, forms.ModelChoiceField):
                            tried += 1
                            rows: Any = field.queryset
                            their = row_of(rows.model, theirs).pk
                            if rows.all().filter(pk=their).exists():
                                offered.append(f"{model._meta.label}.{name}")
                            with pytest.raises(forms.ValidationError):
                                field.clean(their if not isinstance(field, forms.ModelMultipleChoiceField) else [their])
    assert offered == []
    assert tried > 5


def test_a_posted_form_with_the_others_numbers_changes_nothing_there(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    client = ours.client(ours.owner)
    for model in registered(tenant_site):
        their: Any = row_of(model, theirs)
        body = {field.name: field.value_from_object(their) for field in model._meta.concrete_fields}
        body = {name: value for name, value in body.items() if value is not None}
        body |= {"tenant": theirs.tenant.pk, "tenant_id": theirs.tenant.pk, "id": their.pk, "pk": their.pk}
        base = f"admin/{model._meta.app_label}/{model._meta.model_name}"
        mine = quote(row_of(model, ours).pk)
        for path in (f"/{base}/add/", f"/{base}/{mine}/change/"):
            answer = client.post(path, body)
            assert (path, answer.status_code in {200, 302, 403}) == (path, True)
            # What was sent comes back in a form that is refused: only what was not sent may be no leak.
            sent = {str(value) for value in body.values()}
            found = [word for word in street.leaked(said(answer)) if not any(word in value for value in sent)]
            assert (path, found) == (path, [])
    assert theirs.standing() == before


def test_autocomplete_finds_ones_own(street: Street) -> None:
    ours = street.ours
    client = ours.client(ours.owner)
    for site in (tenant_site, admin.site):
        for model, model_admin in registered(site).items():
            for name in model_admin.autocomplete_fields:
                query = {
                    "app_label": model._meta.app_label,
                    "model_name": model._meta.model_name,
                    "field_name": name,
                    "term": street.mark,
                }
                answer = client.get("/admin/autocomplete/", query)
                assert (answer.status_code in {200, 403}, street.leaked(said(answer))) == (True, [])


def test_nobody_of_a_tenant_enters_the_platform(street: Street) -> None:
    theirs = street.theirs
    bearer: Any = {"authorization": f"Bearer {theirs.token}", "token": theirs.token}
    extras: list[dict[str, Any]] = [{}, bearer, {}]
    strangers = [Client(headers={"host": "localhost", **extra}) for extra in extras]
    strangers[2].force_login(theirs.owner)
    operator = theirs.client(make_operator())
    for route in admin_routes("platform/"):
        path = filled(route, theirs)
        for client in strangers:
            answer = client.get(path)
            seen = (answer.status_code, answer.headers.get("Location", "").split("?")[0])
            wanted = {(302, "/platform/" if route == "platform/logout/" else "/platform/login/"), (404, "")}
            assert (path, seen in wanted) == (path, True), seen
            assert (path, street.leaked(said(answer).replace(path.encode(), b""))) == (path, [])
        assert operator.get(path).status_code == 404


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every operation for end users; the log-out comes last."""
    for path, methods in sorted(described()["paths"].items(), key=lambda entry: entry[0] == "/api/auth/logout"):
        for method, operation in methods.items():
            if not of_programs(method, path):
                yield method, path, operation


def of_programs(method: str, path: str) -> bool:
    """Tell whether an operation is for the programs of resellers, on the platform's hosts."""
    return path.startswith("/api/opening/") and (method, path) not in TOKENLESS


def path_of(path: str, house: House) -> str:
    """Return the path of an operation with what of `house` stands in its places."""
    return filled(path.lstrip("/").replace("{", "<").replace("}", ">"), house)


@cache
def described() -> dict[str, Any]:
    """Return the OpenAPI document."""
    get_resolver().url_patterns  # noqa: B018  # it adds the routers
    made: dict[str, Any] = api.get_openapi_schema(path_prefix="/api/")
    return made


def body_of(operation: dict[str, Any]) -> Any:
    """Return a body that fits what an operation asks for."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return example(content["schema"]) if content else {}


def example(schema: dict[str, Any]) -> Any:
    """Return a value that fits a schema; KeyError for a kind that nobody has thought of here."""
    known = described()["components"]["schemas"]
    if "$ref" in schema:
        return example(known[schema["$ref"].rsplit("/", 1)[1]])
    for choice in ("anyOf", "allOf", "oneOf"):
        if choice in schema:
            return example(schema[choice][0])
    if "enum" in schema or "const" in schema:
        return schema.get("const", [*schema.get("enum", []), None][0])
    if schema["type"] == "object":
        wanted = schema.get("required", [])
        return {name: example(part) for name, part in schema.get("properties", {}).items() if name in wanted}
    if schema.get("format") == "uuid":
        return str(uuid.uuid4())
    return {"string": "x", "integer": 1, "boolean": True, "array": [], "number": 1}[schema["type"]]


def ask(client: Client, method: str, path: str, body: Any) -> Any:
    if method == "get":
        return client.get(path)
    return client.generic(method.upper(), path, json.dumps(body), content_type="application/json")


def test_every_operation_wants_a_token_of_its_own_tenant(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    foreign: Any = {"authorization": f"Bearer {ours.token}"}
    tokenless = set()
    for method, path, operation in operations():
        if (method, path) in TOKENLESS:
            tokenless.add((method, path))
            continue
        where = path_of(path, theirs)
        for client in (
            theirs.client(),
            theirs.client(**foreign),
            theirs.client(ours.owner),
            theirs.client(theirs.owner),
        ):
            answer = ask(client, method, where, body_of(operation))
            assert (method, path, answer.status_code, answer.json()["code"]) == (method, path, 401, -1)
            assert (path, street.leaked(said(answer).replace(where.encode(), b""))) == (path, [])
    assert tokenless == TOKENLESS
    assert theirs.standing() == before


def test_no_operation_reaches_another_tenants_rows(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    for at in (ours, theirs):  # one's own token at one's own host, and one's own at the other's with one's own rows
        client = at.client(authorization=f"Bearer {ours.token}")
        for method, path, operation in operations():
            if (method, path) in TOKENLESS or (at is theirs and "{" in path):
                continue
            where = path_of(path, theirs)
            answer = ask(client, method, where, body_of(operation))
            wanted = {401} if at is theirs else {404} if "{" in path else {200, 400, 402, 404, 429, 502}
            assert (method, path, answer.status_code in wanted) == (method, path, True), said(answer)
            assert (path, street.leaked(said(answer).replace(where.encode(), b""))) == (path, [])
    assert theirs.standing() == before


def test_a_program_reaches_the_tenants_of_its_own_reseller_alone(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    before = theirs.standing()
    resellers = [make_reseller() for _house in (ours, theirs)]
    tokens = [programs.make_token(reseller=reseller, name="program", actor="test")[1] for reseller in resellers]
    for house, reseller in zip((ours, theirs), resellers, strict=True):
        Tenant.objects.filter(pk=house.tenant.pk).update(reseller=reseller)
    shown = 0
    for path, methods in described()["paths"].items():
        for method, operation in methods.items():
            if not of_programs(method, path):
                continue
            where, body = path_of(path, theirs), body_of(operation)
            for token, wanted in (("", 401), (ours.token, 401), (theirs.token, 401), (tokens[0], 404)):
                client = Client(headers={"host": "localhost", "authorization": f"Bearer {token}"})
                answer = ask(client, method, where, body)
                allowed = {wanted} if wanted == 401 or "{" in path else {200} if method == "get" else {400}
                assert (method, path, answer.status_code in allowed) == (method, path, True), said(answer)
                assert (path, street.leaked(said(answer).replace(where.encode(), b""))) == (path, [])
            for house in (ours, theirs):  # on a tenant's host there is no such thing
                answer = ask(house.client(authorization=f"Bearer {tokens[1]}"), method, where, body)
                assert (method, path, answer.status_code) == (method, path, 404)
            owner = Client(headers={"host": "localhost", "authorization": f"Bearer {tokens[1]}"})
            shown += bool(method == "get" and street.leaked(said(ask(owner, method, where, body))))
    assert theirs.standing() == before
    assert shown > 1  # there is something that could have leaked


def test_addresses_that_are_open_to_everybody_say_nothing_of_another_tenant(street: Street) -> None:
    ours, theirs = street.ours, street.theirs
    for route in sorted(PUBLIC):
        path = filled(route, theirs)
        status, body, _where = fetch(ours.client(), path)
        assert (path, status in {200, 302, 404, 503}) == (path, True)
        assert (path, street.leaked(body.replace(path.encode(), b""))) == (path, [])
    for _method, path in TOKENLESS:
        if "{" in path:
            where = path_of(path, theirs)
            mixed = where.replace(theirs.tenant.slug, ours.tenant.slug)
            answer = ours.client().post(mixed, "{}", content_type="application/json")
            assert (path, answer.status_code in {400, 401, 404, 405}) == (path, True)
            assert (path, street.leaked(said(answer).replace(mixed.encode(), b""))) == (path, [])


def test_no_other_address_is_open(street: Street) -> None:
    """What is neither an admin, nor the API, nor known above to be public, opens to nobody without a log-in."""
    elsewhere = [r for r in routes() if r not in PUBLIC and not r.startswith(("admin/", "platform/", "api/"))]
    for route in elsewhere:
        for house in (street.ours, street.theirs):
            path = filled(route, street.theirs)
            answer = house.client(street.ours.owner).get(path)
            assert (path, answer.status_code in {302, *NOT_YOURS}) == (path, True)
            assert (path, street.leaked(said(answer).replace(path.encode(), b""))) == (path, [])

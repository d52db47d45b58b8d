"""Avatars: drawn anew, shown at an address that nobody guesses, of one tenant, gone when they should be."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from PIL import Image
from pytest_django import DjangoAssertNumQueries, Settings

from chat.tests.files import head_of_png, noise, picture
from tenants import avatars, personal, scope
from tenants.errors import ProductError
from tenants.models import Avatar, EndUser, Tenant
from tests.factories import host_of, make_mini_program, make_tenant, make_token, make_user

GPS = 0x8825
ORIENTATION = 0x0112
GONE = (404, 404, "avatar_not_found")


@pytest.fixture
def alice(db: None) -> EndUser:
    return make_user(make_tenant())


def client_of(user: EndUser, **headers: str) -> Client:
    host, token = host_of(user.tenant), make_token(user)
    return Client(headers={"host": host, "authorization": f"Bearer {token}", "accept-language": "en", **headers})


def stranger_on(tenant: Tenant) -> Client:
    return Client(headers={"host": host_of(tenant), "accept-language": "en"})


def upload(client: Client, data: bytes, name: str = "me.png", **more: Any) -> Any:
    return client.post("/api/auth/avatar", {"file": SimpleUploadedFile(name, data)}, **more)


def address_after(client: Client, data: bytes) -> str:
    """Upload a picture; return where it is."""
    return str(upload(client, data).json()["data"]["avatar_url"])


def refusal(answer: Any) -> tuple[int, int, str]:
    return answer.status_code, answer.json()["code"], answer.json()["type"]


def opened(data: bytes) -> Image.Image:
    found = Image.open(io.BytesIO(data))
    found.load()
    assert (found.format, found.mode, found.size) == ("JPEG", "RGB", (256, 256))
    return found


def colour_at(image: Image.Image, x: int, y: int) -> list[int]:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return [round(part / 16) for part in pixel]


def kept(tenant: Tenant) -> list[int]:
    """Return whose avatars there are."""
    with scope.tenant(tenant.pk):
        return list(Avatar.objects.order_by("pk").values_list("user_id", flat=True))


def test_an_avatar_is_uploaded_shown_and_removed(alice: EndUser) -> None:
    client = client_of(alice)
    before = client.get("/api/auth/me").json()["data"]
    assert before["avatar_url"] is None
    told = upload(client, picture()).json()["data"]
    assert told == {**before, "avatar_url": told["avatar_url"]} == client.get("/api/auth/me").json()["data"]
    named = client.post("/api/auth/me", {"nickname": "Ann"}, content_type="application/json").json()["data"]
    assert named == {**told, "nickname": "Ann"}
    shown = stranger_on(alice.tenant).get(told["avatar_url"])  # as an <img> asks: without a token
    assert (shown.status_code, colour_at(opened(shown.content), 128, 128)) == (200, [13, 2, 2])
    assert {name: shown[name] for name in sorted(shown.headers) if "Content" in name or name == "Cache-Control"} == {
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "inline",
        "Content-Language": "en",
        "Content-Length": str(len(shown.content)),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Type": "image/jpeg",
        "X-Content-Type-Options": "nosniff",
    }
    for _ in range(2):
        removed = client.post("/api/auth/avatar/delete").json()
        assert (removed["code"], removed["data"]) == (1, {**named, "avatar_url": None})
    assert refusal(client.get(told["avatar_url"])) == GONE
    assert kept(alice.tenant) == []


def test_another_picture_has_another_address_and_the_first_leads_nowhere(alice: EndUser) -> None:
    client = client_of(alice)
    first, again = address_after(client, picture()), address_after(client, picture())
    assert (first == again, client.get(again).status_code, refusal(client.get(first))) == (False, 200, GONE)
    assert kept(alice.tenant) == [alice.pk]


def test_whoever_logs_in_is_told_their_own(alice: EndUser) -> None:
    user = make_user(alice.tenant, username="bob", password="a-good-password")
    address = address_after(client_of(user), picture())
    body = {"identifier": "bob", "password": "a-good-password"}
    told = stranger_on(alice.tenant).post("/api/auth/login", body, content_type="application/json").json()
    assert told["data"]["user"]["avatar_url"] == address
    assert client_of(alice).get("/api/auth/me").json()["data"]["avatar_url"] is None


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("name", ["me.png", "me.exe"])
def test_a_picture_is_what_it_is_whatever_it_is_called(alice: EndUser, form: str, name: str) -> None:
    client = client_of(alice)
    address = upload(client, picture(form=form), name).json()["data"]["avatar_url"]
    assert colour_at(opened(client.get(address).content), 128, 128) == [13, 2, 2]


def test_the_middle_is_kept_without_being_pulled_out_of_shape(alice: EndUser) -> None:
    client = client_of(alice)
    for size in ((1200, 400), (400, 1200), (30, 10)):
        wide = Image.new("RGB", size, "white")
        edge = min(size)
        middle = ((size[0] - edge) // 2, (size[1] - edge) // 2)
        wide.paste(Image.new("RGB", (edge, edge), (208, 32, 32)), middle)
        for form in ("PNG", "JPEG"):
            file = io.BytesIO()
            wide.save(file, form, quality=95)
            image = opened(client.get(address_after(client, file.getvalue())).content)
            assert [colour_at(image, *point) for point in ((40, 40), (215, 215), (128, 128))] == [[13, 2, 2]] * 3


def test_what_is_seen_through_is_white(alice: EndUser) -> None:
    client = client_of(alice)
    address = address_after(client, picture(mode="RGBA", colour=(200, 30, 30, 0)))
    assert colour_at(opened(client.get(address).content), 9, 9) == [16, 16, 16]


def test_where_it_was_taken_is_gone_and_it_stands_upright(alice: EndUser) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    exif.get_ifd(GPS)[2] = (31.0, 13.0, 49.0)
    exif[0x010F] = "Secret Camera"
    half = Image.new("RGB", (200, 200), "white")
    half.paste(Image.new("RGB", (200, 100), (208, 32, 32)), (0, 0))
    file = io.BytesIO()
    half.save(file, "JPEG", exif=exif, comment=b"Secret comment", icc_profile=b"Secret profile", quality=95)
    client = client_of(alice)
    data = file.getvalue() + b"Secret tail: <script>"
    assert b"Secret Camera" in data
    kept_data = client.get(address_after(client, data)).content
    image = opened(kept_data)
    assert (dict(image.getexif()), b"Secret" in kept_data, b"script" in kept_data) == ({}, False, False)
    assert (colour_at(image, 128, 40), colour_at(image, 128, 215)) == ([16, 16, 16], [13, 2, 2])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        picture(form="GIF"),
        picture(form="BMP"),
        picture()[:60],
        b"\x89PNG\r\n\x1a\n" + b"not at all",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7\n",
    ],
)
def test_what_is_no_picture_is_refused_and_the_one_before_stays(alice: EndUser, data: bytes) -> None:
    client = client_of(alice)
    address = address_after(client, picture())
    assert refusal(upload(client, data)) == (400, 10001, "picture_not_taken")
    assert client.get("/api/auth/me").json()["data"]["avatar_url"] == address


def test_refusals_are_in_the_persons_language(alice: EndUser) -> None:
    answers = [upload(client_of(alice, **{"accept-language": one}), b"x").json() for one in ("en", "zh-CN")]
    assert [one["action"] for one in answers] == ["choose_file"] * 2
    assert answers[0]["msg"] == "This picture cannot be read here. Please choose another one: JPEG, PNG or WebP."
    assert refusal(client_of(alice).post("/api/auth/avatar", {})) == (400, 10001, "invalid_request")


@pytest.mark.parametrize("size", [(6000, 6000), (60_000, 60_000)])
def test_a_small_file_that_would_be_a_huge_picture_is_refused(alice: EndUser, size: tuple[int, int]) -> None:
    refused = upload(client_of(alice), head_of_png(*size))
    assert refusal(refused) in {(400, 10001, "picture_too_large"), (400, 10001, "picture_not_taken")}
    told = upload(client_of(alice), head_of_png(6000, 6000)).json()
    assert (told["type"], told["measure"], told["limit"]) == ("picture_too_large", "pixels", 25_000_000)
    assert kept(alice.tenant) == []


def test_a_file_that_is_too_large_is_refused_by_what_its_request_says(alice: EndUser) -> None:
    client = client_of(alice)
    for more in ({"headers": {"Content-Length": str(9 * 1024 * 1024)}}, {"CONTENT_LENGTH": str(9 * 1024 * 1024)}):
        told = upload(client, picture(), **more).json()
        assert (told["code"], told["type"], told["measure"], told["limit"]) == (
            10001,
            "picture_too_large",
            "bytes",
            8 * 1024 * 1024,
        )
    assert refusal(upload(client, picture() + b"\x00" * (8 * 1024 * 1024))) == (400, 10001, "picture_too_large")
    assert kept(alice.tenant) == []


def test_what_is_kept_is_small_whatever_is_seen(alice: EndUser) -> None:
    client = client_of(alice)
    assert len(client.get(address_after(client, noise(600, 600))).content) < 128 * 1024


def test_uploads_are_counted_for_each_user(alice: EndUser, settings: Settings) -> None:
    settings.AVATARS_PER_DAY = 2
    client, bob = client_of(alice), client_of(make_user(alice.tenant))
    assert [upload(client, picture()).status_code for _ in range(3)] == [200, 200, 429]
    told = upload(client, picture()).json()
    assert {name: told[name] for name in ("code", "type", "scope", "used", "limit")} == {
        "code": 102,
        "type": "too_many_tries",
        "scope": "avatars",
        "used": 2,
        "limit": 2,
    }
    assert (upload(bob, picture()).status_code, client.post("/api/auth/avatar/delete").status_code) == (200, 200)


def test_an_address_is_of_one_tenant_and_nobody_guesses_it(alice: EndUser) -> None:
    other = make_tenant()
    mallory = make_user(other)
    address = address_after(client_of(alice), picture())
    token = address.removeprefix("/api/auth/avatars/")
    assert (len(token), stranger_on(alice.tenant).get(address).status_code) == (22, 200)
    for client in (stranger_on(other), client_of(mallory)):
        assert refusal(client.get(address)) == GONE
    for wrong in (str(alice.pk), token[:-1], token.swapcase(), f"{token}x", "%00", "x" * 3000):
        assert refusal(stranger_on(alice.tenant).get(f"/api/auth/avatars/{wrong}")) == GONE
    # Nobody removes or replaces another's.
    client_of(mallory).post("/api/auth/avatar/delete")
    client_of(make_user(alice.tenant)).post("/api/auth/avatar/delete")
    assert (kept(alice.tenant), kept(other)) == ([alice.pk], [])
    for path in ("avatar", "avatar/delete"):
        assert refusal(stranger_on(alice.tenant).post(f"/api/auth/{path}")) == (401, -1, "login_required")


def test_a_mini_program_names_its_tenant_in_the_address(alice: EndUser) -> None:
    ours, theirs = make_mini_program(alice.tenant), make_mini_program(make_tenant())
    address = address_after(client_of(alice), picture())
    anywhere = Client(headers={"host": "localhost", "accept-language": "en"})
    answers = [anywhere.get(f"{address}?appid={program.app_id}") for program in (ours, theirs)]
    assert (answers[0].status_code, refusal(answers[1])) == (200, GONE)


def test_it_costs_as_many_queries_as_it_must(alice: EndUser, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    client, stranger = client_of(alice), stranger_on(alice.tenant)
    address = address_after(client, picture())
    stranger.get(address)
    with django_assert_num_queries(1):
        stranger.get(address)
    with django_assert_num_queries(2):
        client.get("/api/auth/me")


def test_the_archive_has_it_and_a_deletion_erases_it(alice: EndUser) -> None:
    bob = make_user(alice.tenant)
    client, address = client_of(alice), address_after(client_of(alice), picture())
    theirs = address_after(client_of(bob), picture())
    told = client.get("/api/auth/account/archive").json()["avatar"]
    assert (told["media_type"], base64.b64decode(told["data"])) == ("image/jpeg", client.get(address).content)
    assert client_of(make_user(alice.tenant)).get("/api/auth/account/archive").json()["avatar"] is None
    gone = client.post("/api/auth/account/delete", {}, content_type="application/json").json()
    assert (gone["code"], gone["data"]["erased"]["avatars"]) == (1, 1)
    assert (refusal(stranger_on(alice.tenant).get(address)), kept(alice.tenant)) == (GONE, [bob.pk])
    assert stranger_on(alice.tenant).get(theirs).status_code == 200


def test_whoever_has_left_leaves_no_picture_behind(alice: EndUser) -> None:
    with scope.tenant(alice.tenant_id):
        personal.delete(tenant=alice.tenant, user=alice, forfeits=False)
        with pytest.raises(ProductError) as refused:
            avatars.keep(user=alice, data=picture())
    assert (refused.value.type, kept(alice.tenant)) == ("login_required", [])


def test_several_at_once_leave_one(committed_db: None) -> None:
    alice, barrier = make_user(make_tenant()), Barrier(4)

    def one(number: int) -> None:
        barrier.wait()
        try:
            with scope.tenant(alice.tenant_id):
                avatars.keep(user=alice, data=picture(colour=(number, 0, 0)))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert kept(alice.tenant) == [alice.pk]

"""Attachments by their endpoints: kept, shown to their owner alone, counted, and gone when they should be."""

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image
from pytest_django import DjangoAssertNumQueries, Settings

from chat.models import Attachment, Conversation, ConversationLook, Message
from chat.tasks import erase_deleted, forget_unsent
from chat.tests.files import attach, picture, upload
from chat.tests.talk import client_of, get, messages_of, post, say, stranger_on
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import host_of, make_staff, make_tenant, make_user

pytestmark = pytest.mark.django_db

SECRET = "spring-secret"
GONE = (404, {"code": 404, "type": "attachment_not_found", "scope": "attachments", "action": "attach_again"})


@pytest.fixture
def alice() -> EndUser:
    return make_user(make_tenant())


def failure(reply: Any, *names: str) -> tuple[int, dict[str, Any]]:
    wanted = ("code", "type", "scope", "action", *names)
    return reply.status_code, {name: reply.json()[name] for name in wanted}


def send(user: EndUser, *ids: Any, question: str = "what is this?") -> Conversation:
    """Return a conversation in which a user sent attachments, as a turn leaves it."""
    conversation = say(user, question)
    [said] = messages_of(conversation)
    with scope.tenant(user.tenant_id):
        Message.objects.filter(pk=said.pk).update(attachments=list(ids))
        Attachment.objects.filter(pk__in=ids).update(message=said)
    return conversation


def kept(tenant: Tenant) -> list[Attachment]:
    with scope.tenant(tenant.pk):
        return list(Attachment.objects.order_by("pk"))


def test_a_picture_is_kept_and_shown_to_its_owner(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    told = upload(client, "holiday.png", picture(40, 30)).json()["data"]
    [row] = kept(alice.tenant)
    assert told == {
        "id": str(row.pk),
        "kind": "image",
        "name": "holiday.png",
        "size": row.size,
        "width": 40,
        "height": 30,
    }
    shown = get(client, f"attachments/{row.pk}")
    assert (shown.status_code, shown.content) == (200, bytes(row.data))
    assert Image.open(io.BytesIO(shown.content)).size == (40, 30)
    told_of_it = {name: value for name, value in shown.headers.items() if "Content" in name or name == "Cache-Control"}
    assert told_of_it == {
        "Content-Type": "image/jpeg",
        "Content-Disposition": 'inline; filename="holiday.jpg"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Language": "en",
        "Content-Length": str(row.size),
    }


def test_a_text_is_given_as_a_file_and_never_as_a_page(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    told = upload(client, "笔记.html", "<script>春天</script>".encode("gb18030")).json()["data"]
    assert (told["kind"], told["name"], told["size"]) == ("text", "笔记.html", 23)
    shown = get(client, f"attachments/{told['id']}")
    assert (shown["Content-Type"], shown.content.decode()) == ("text/plain; charset=utf-8", "<script>春天</script>")
    assert shown["Content-Disposition"] == "attachment; filename*=utf-8''%E7%AC%94%E8%AE%B0.html"


def test_a_client_that_cannot_name_a_file_says_its_name_beside_it(alice: EndUser) -> None:
    form = {"file": SimpleUploadedFile("tmp_1a2b.md", b"text"), "name": "笔\x00记.md"}
    told = client_of(alice.tenant, alice).post("/api/chat/attachments", form).json()["data"]
    assert told["name"] == "笔记.md"


def test_what_cannot_be_taken_is_refused_in_the_persons_language(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    refused = upload(client, "x.pdf", b"%PDF-1.7\x00")
    assert failure(refused) == (
        400,
        {"code": 10001, "type": "attachment_not_taken", "scope": "file", "action": "choose_file"},
    )
    large = upload(client, "x.txt", b"x" * (8 * 1024 * 1024 + 1))
    assert failure(large, "measure", "limit") == (
        400,
        {
            "code": 10001,
            "type": "attachment_too_large",
            "scope": "file",
            "action": "choose_file",
            "measure": "bytes",
            "limit": 8388608,
        },
    )
    assert post(client, "attachments").json()["type"] == "invalid_request"
    assert kept(alice.tenant) == []


def test_the_same_file_uploaded_again_is_kept_once(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    first, again, other = (upload(client, name, picture()).json()["data"]["id"] for name in ("a.png", "a.png", "b.png"))
    assert (first == again, first == other, len(kept(alice.tenant))) == (True, False, 2)
    send(alice, first)
    assert upload(client, "a.png", picture()).json()["data"]["id"] != first


def test_what_was_not_sent_can_be_thrown_away_and_what_was_cannot(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    unsent, sent = attach(alice, "a.png", picture()), attach(alice, "b.txt", b"text")
    send(alice, sent)
    assert post(client, f"attachments/{unsent}/delete").json()["code"] == 1
    assert failure(post(client, f"attachments/{unsent}/delete")) == GONE
    assert failure(post(client, f"attachments/{sent}/delete")) == GONE
    assert failure(post(client, "attachments/nonsense/delete")) == GONE
    assert [row.pk for row in kept(alice.tenant)] == [sent]


def test_uploads_are_counted_for_each_user(alice: EndUser, settings: Settings) -> None:
    settings.ATTACHMENTS_PER_MINUTE, settings.ATTACHMENTS_PER_DAY = 1000, 30
    client, guest = client_of(alice.tenant, alice), make_user(alice.tenant, is_guest=True)
    theirs = client_of(alice.tenant, guest)
    assert [upload(theirs, f"{n}.txt", b"x").status_code for n in range(4)] == [200, 200, 200, 429]
    full = upload(theirs, "x.txt", b"x").json()
    assert {name: full[name] for name in ("code", "type", "scope", "used", "limit")} == {
        "code": 102,
        "type": "too_many_tries",
        "scope": "attachments",
        "used": 3,
        "limit": 3,
    }
    assert upload(client, "x.txt", b"x").status_code == 200
    settings.ATTACHMENTS_PER_MINUTE = 0
    assert upload(client, "y.txt", b"x").json()["limit"] == 0


def test_a_user_has_so_much_room_and_a_deleted_conversation_gives_its_part_back(
    alice: EndUser, settings: Settings
) -> None:
    settings.ATTACHMENT_BYTES_PER_USER = 1000
    client, bob = client_of(alice.tenant, alice), client_of(alice.tenant, make_user(alice.tenant))
    conversation = send(alice, attach(alice, "a.txt", b"a" * 600))
    refused = upload(client, "b.txt", b"b" * 401)
    assert failure(refused, "used", "limit", "reset_at") == (
        429,
        {
            "code": 102,
            "type": "attachments_full",
            "scope": "user",
            "action": "delete_conversations",
            "used": 600,
            "limit": 1000,
            "reset_at": None,
        },
    )
    assert upload(client, "b.txt", b"b" * 400).status_code == 200
    assert upload(bob, "b.txt", b"b" * 401).status_code == 200
    assert upload(client, "c.txt", b"c" * 600).status_code == 429
    post(client, f"conversations/{conversation.pk}/delete")
    assert upload(client, "c.txt", b"c" * 600).status_code == 200
    guest = client_of(alice.tenant, make_user(alice.tenant, is_guest=True))
    assert (upload(guest, "a.txt", b"a" * 101).status_code, upload(guest, "a.txt", b"a" * 100).status_code) == (
        429,
        200,
    )


@pytest.mark.parametrize("who", ["another user", "another tenant's user", "nobody"])
@pytest.mark.parametrize("is_sent", [False, True])
def test_what_is_hers_does_not_exist_for_others(alice: EndUser, who: str, is_sent: bool) -> None:  # noqa: FBT001
    ids = [attach(alice, "a.txt", SECRET.encode()), attach(alice, "b.png", picture())]
    if is_sent:
        send(alice, *ids)
    elsewhere = make_tenant() if who == "another tenant's user" else alice.tenant
    other = stranger_on(alice.tenant) if who == "nobody" else client_of(elsewhere, make_user(elsewhere))
    for each in ids:
        for reply in (get(other, f"attachments/{each}"), post(other, f"attachments/{each}/delete")):
            assert (reply.status_code, reply.json()["code"]) == ((401, -1) if who == "nobody" else (404, 404))
            assert SECRET not in reply.content.decode()
    assert [row.pk for row in kept(alice.tenant)] == ids


def test_history_lists_them_with_as_many_queries_as_there_are_pages(
    alice: EndUser, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client = client_of(alice.tenant, alice)
    plain = say(alice, "one", "two")
    image, text = attach(alice, "a.png", picture()), attach(alice, "b.txt", b"text")
    conversation = send(alice, text, image)
    [told] = get(client, f"conversations/{conversation.pk}/messages").json()["data"]
    assert [(file["id"], file["kind"], file["name"]) for file in told["attachments"]] == [
        (str(text), "text", "b.txt"),
        (str(image), "image", "a.png"),
    ]
    assert get(client, f"messages/{told['id']}").json()["data"]["attachments"] == told["attachments"]
    with django_assert_num_queries(3):
        get(client, f"conversations/{plain.pk}/messages")
    with django_assert_num_queries(4):
        get(client, f"conversations/{conversation.pk}/messages")


def test_files_of_a_conversation_name_them(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    conversation = send(alice, attach(alice, "a.png", picture()), attach(alice, "b.txt", b"text"))
    [told] = get(client, f"conversations/{conversation.pk}/export?format=json").json()["conversations"]
    [message] = told["messages"]
    assert [(file["kind"], file["name"]) for file in message["attachments"]] == [("image", "a.png"), ("text", "b.txt")]
    page = get(client, f"conversations/{conversation.pk}/export").content.decode()
    assert "\n\nAttached: a.png, b.txt\n" in page


def test_a_link_shows_pictures_and_names_texts(alice: EndUser) -> None:
    client, reader = client_of(alice.tenant, alice), stranger_on(alice.tenant)
    image, text, other = (
        attach(alice, "a.png", picture()),
        attach(alice, "b.txt", SECRET.encode()),
        attach(alice, "c.png", picture(20, 20)),
    )
    conversation = send(alice, image, text)
    send(alice, other)
    token = post(client, f"conversations/{conversation.pk}/share").json()["data"]["token"]
    [told] = get(reader, f"shared/{token}").json()["data"]["messages"]
    assert [(file["id"], file["name"]) for file in told["attachments"]] == [(str(image), "a.png"), (str(text), "b.txt")]
    shown = get(reader, f"shared/{token}/attachments/{image}")
    assert (shown.status_code, shown["Content-Type"], shown["X-Content-Type-Options"]) == (200, "image/jpeg", "nosniff")
    page = reader.get(f"/s/{token}").content.decode()
    assert (f"/api/chat/shared/{token}/attachments/{image}" in page, "b.txt" in page, SECRET in page) == (
        True,
        True,
        False,
    )
    elsewhere = stranger_on(make_tenant())
    for asker, path in (
        (reader, f"shared/{token}/attachments/{text}"),
        (reader, f"shared/{token}/attachments/{other}"),
        (reader, f"shared/{token}/attachments/nonsense"),
        (reader, f"shared/nonsense/attachments/{image}"),
        (elsewhere, f"shared/{token}/attachments/{image}"),
    ):
        assert (get(asker, path).status_code, get(asker, path).json()["type"]) == (404, "share_not_found")
    post(client, f"conversations/{conversation.pk}/delete")
    assert get(reader, f"shared/{token}/attachments/{image}").status_code == 404


def test_what_was_never_sent_goes_after_a_day(alice: EndUser) -> None:
    old, new, sent = (attach(alice, f"{n}.txt", b"x") for n in range(3))
    far = attach(make_user(make_tenant()), "x.txt", b"x")
    send(alice, sent)
    with scope.platform("a test's clock"):
        ago = timezone.now() - timedelta(hours=25)
        Attachment.objects.filter(pk__in=[old, sent, far]).update(created_at=ago)
    assert (forget_unsent(), forget_unsent()) == (2, 0)
    assert {row.pk for row in kept(alice.tenant)} == {new, sent}


def test_a_deleted_conversations_are_nobodys_at_once_and_erased_with_its_texts(alice: EndUser) -> None:
    client = client_of(alice.tenant, alice)
    image = attach(alice, "a.png", picture())
    conversation = send(alice, image)
    stays = attach(alice, "b.png", picture())
    send(alice, stays)
    post(client, f"conversations/{conversation.pk}/delete")
    assert failure(get(client, f"attachments/{image}")) == GONE
    with scope.tenant(alice.tenant_id):
        Conversation.objects.filter(pk=conversation.pk).update(deleted_at=timezone.now() - timedelta(days=31))
    assert erase_deleted() == 1
    assert [row.pk for row in kept(alice.tenant)] == [stays]
    assert [said.attachments for said in messages_of(conversation)] == [[]]


def test_they_are_in_ones_archive_and_go_with_the_person(alice: EndUser) -> None:
    client, bob = client_of(alice.tenant, alice), make_user(alice.tenant)
    sent, unsent, hidden = (
        attach(alice, "a.png", picture()),
        attach(alice, "b.txt", b"text"),
        attach(alice, "c.txt", b"c"),
    )
    theirs = attach(bob, "d.txt", SECRET.encode())
    conversation, gone = send(alice, sent), send(alice, hidden)
    post(client, f"conversations/{gone.pk}/delete")
    told = client.get("/api/auth/account/archive").json()
    [said] = messages_of(conversation)
    image, text = told["attachments"]
    assert (image["id"], image["message_id"], image["name"], image["media_type"]) == (
        str(sent),
        str(said.pk),
        "a.png",
        "image/jpeg",
    )
    assert len(image["data"]) > 100
    assert (text["id"], text["message_id"], text["text"], SECRET in str(told)) == (str(unsent), None, "text", False)
    assert client.post("/api/auth/account/delete", {}, content_type="application/json").json()["code"] == 1
    assert [row.pk for row in kept(alice.tenant)] == [theirs]
    assert [said.attachments for said in messages_of(conversation)] == [[]]


def test_staff_see_them_in_a_look_that_leaves_a_trace(alice: EndUser) -> None:
    ids = attach(alice, "a.png", picture()), attach(alice, "b.txt", SECRET.encode())
    attach(alice, "c.txt", b"not sent")
    conversation = send(alice, *ids)
    say(alice, "without")
    staff = Client(headers={"Host": host_of(alice.tenant), "accept-language": "en"})
    staff.force_login(make_staff(alice.tenant, role="support"))
    page = f"/admin/chat/conversation/{conversation.pk}/change/"
    before = staff.get(page).content.decode()
    assert (SECRET in before, "a.png" in before, "data:image" in before) == (False, False, False)
    after = staff.post(page, {"reason": "a report about it"}).content.decode()
    assert (SECRET in after, 'alt="a.png"' in after, after.count("data:image/jpeg;base64,"), "not sent" in after) == (
        True,
        True,
        1,
        False,
    )
    with scope.tenant(alice.tenant_id):
        assert [look.reason for look in ConversationLook.objects.all()] == ["a report about it"]
        said = Message.objects.get(conversation=conversation)
    row = staff.get(f"/admin/chat/message/{said.pk}/change/").content.decode()
    assert (str(ids[0]) in row, "a.png" in row) == (False, False)


def test_the_front_says_what_each_model_takes() -> None:
    from tests.shop import open_shop  # noqa: PLC0415  one test's

    shop = open_shop("http://127.0.0.1:1/v1")
    shop.offer("sees", image_tokens=1000)
    shop.offer("reads", image_tokens=0)
    told = get(stranger_on(shop.tenant), "front").json()["data"]["models"]
    assert {model["slug"]: (model["images"], model["files"]) for model in told} == {
        "sees": (True, True),
        "reads": (False, True),
    }

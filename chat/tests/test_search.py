"""Search: Chinese without blanks, parts of words, indexed or not, and one's own only."""

from threading import Thread

import pytest
from django.db import connections

from chat.models import Message, SearchEntry
from chat.search import find, index, terms_of
from chat.tasks import index_messages
from chat.tests.talk import client_of, get, go_on, messages_of, say
from tenants import scope
from tenants.models import EndUser
from tests.factories import make_tenant, make_user


def found(user: EndUser, query: str) -> list[str]:
    """Return the questions that a search finds."""
    with scope.tenant(user.tenant_id):
        return [hit.message.question for hit in find(user=user, query=query, limit=100)]


@pytest.fixture
def user(db: None) -> EndUser:
    return make_user(make_tenant())


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize(
    ("query", "questions"),
    [
        ("北京", ["天气"]),
        ("京明", ["天气"]),
        ("晴", ["天气"]),
        ("北京 晴", ["天气"]),
        ("晴北京", []),
        ("weath", ["Weather REPORT"]),
        ("report weather", ["Weather REPORT"]),
        ("reporter", []),
        ("100%", ["rates"]),
        ("_", []),
        ("%", ["rates"]),
        ("😀", ["emoji"]),
        ("o", ["emoji", "rates", "Weather REPORT"]),
        ("未答", ["未答"]),
    ],
)
def test_what_is_found(user: EndUser, query: str, questions: list[str], *, is_indexed: bool) -> None:
    say(user, "天气", answers=("北京明天是晴天。",))
    say(user, "Weather REPORT", answers=("sunny",))
    say(user, "rates", answers=("They are 100% of 5.",))
    say(user, "emoji", answers=("😀😀",))
    say(user, "未答", answers=("",), state="failed")
    if is_indexed:
        assert (index_messages(), index_messages()) == (5, 0)
    assert found(user, query) == questions


def test_what_runs_is_found_and_indexed_once_it_has_ended(user: EndUser) -> None:
    say(user, "正在回答", answers=("",), state="running", ended_at=None)
    assert (index_messages(), found(user, "正在")) == (0, ["正在回答"])
    with scope.tenant(user.tenant_id):
        Message.objects.update(state="done", answer="春眠不觉晓", ended_at="2026-01-01T00:00:00Z")
    assert (found(user, "不觉"), index_messages(), found(user, "不觉")) == (["正在回答"], 1, ["正在回答"])


def test_a_text_that_changes_late_is_indexed_anew(user: EndUser) -> None:
    conversation = say(user, "q", answers=("cut sho",))
    index_messages()
    with scope.tenant(user.tenant_id):
        Message.objects.filter(conversation=conversation).update(answer="cut short, now whole", indexed_at=None)
    assert (found(user, "whole"), index_messages(), found(user, "whole")) == (["q"], 1, ["q"])


def test_pages_and_snippets(user: EndUser) -> None:
    conversation = say(user, *(f"问题 {number}" for number in range(5)), answers=("x" * 50 + "春天" + "y" * 100,))
    index_messages()
    go_on(conversation, "问题 5")
    with scope.tenant(user.tenant_id):
        client = client_of(user.tenant, user)
    seen = get(client, "search", {"q": "问题", "limit": 4}).json()["data"]
    seen += get(client, "search", {"q": "问题", "limit": 4, "before": seen[-1]["message_id"]}).json()["data"]
    said = messages_of(conversation)[::-1]
    assert [row["message_id"] for row in seen] == [str(row.pk) for row in said]
    assert seen[0] == {
        "message_id": str(said[0].pk),
        "conversation_id": str(conversation.pk),
        "title": "问题 0",
        "place": "answer",
        "snippet": "re: 问题 5",
        "asked_at": seen[0]["asked_at"],
    }
    [hit] = get(client, "search", {"q": "春天"}).json()["data"]
    assert (hit["place"], hit["snippet"]) == ("answer", "…" + "x" * 20 + "春天" + "y" * 80 + "…")


@pytest.mark.parametrize(
    "query", [{}, {"q": ""}, {"q": "  "}, {"q": "x" * 101}, {"q": "a\x00"}, {"q": "a", "before": "b"}]
)
def test_what_cannot_be_searched_for(user: EndUser, query: dict[str, str]) -> None:
    reply = get(client_of(user.tenant, user), "search", query)
    assert (reply.status_code, reply.json()["type"]) == (400, "invalid_request")


def test_two_users_share_no_term() -> None:
    terms = [
        set(terms_of("春眠不觉晓处处闻啼鸟", tenant_id=tenant, user_id=user))
        for tenant, user in ((1, 2), (1, 3), (2, 2))
    ]
    assert [len(own) for own in terms] == [9, 9, 9]
    assert len(set.union(*terms)) == 27
    assert terms_of("春眠 A", tenant_id=1, user_id=2) == terms_of("a 春眠", tenant_id=1, user_id=2)


def test_two_sweeps_at_once_index_a_message_once(committed_db: None) -> None:
    user = make_user(make_tenant())
    [said] = messages_of(say(user, "春天"))
    done: list[bool] = []

    def sweep() -> None:
        done.append(index(said))
        connections.close_all()

    threads = [Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with scope.tenant(user.tenant_id):
        assert (sorted(done), SearchEntry.objects.filter(user=user).count()) == ([False, False, False, True], 1)
    assert found(user, "春天") == ["春天"]


def test_the_index_serves_a_search(user: EndUser) -> None:
    """Where other users' messages abound, a search reads the entries that its terms name."""
    other = make_user(user.tenant)
    say(other, *(f"春天 {number}" for number in range(300)))
    say(user, "春天来了")
    index_messages()
    with scope.tenant(user.tenant_id):
        terms = terms_of("春天", tenant_id=user.tenant_id, user_id=user.pk)
        rows = SearchEntry.objects.filter(terms__contains=terms)
        assert [row.user_id for row in rows] == [user.pk]  # without naming the user

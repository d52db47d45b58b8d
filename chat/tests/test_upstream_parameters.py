"""What an account wants changed in a request, and the variants that OpenAI's dialect has at other providers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chat.events import Done, Event, Failed, FailureKind
from chat.upstream import client
from chat.upstream.base import ChatRequest, UpstreamTarget
from chat.upstream.failures import refusal
from chat.upstream.openai import AnswerParser, AzureUpstream, OpenAIUpstream
from chat.upstream.parameters import BadRulesError, apply_rules, check_rules
from tests.doubles.upstream import ScriptedUpstream

REQUEST = ChatRequest(
    messages=[{"role": "user", "content": "hello"}],
    max_tokens=100,
    extra={"temperature": 1.7, "top_p": 0.1, "logit_bias": {}, "seed": 1},
)
RULES: dict[str, Any] = {
    "drop": ["logit_bias", "not there"],
    "clamp": {"temperature": [0, 1], "top_p": [0.5, None], "max_tokens": [None, 64], "seed": [None, None]},
    "rename": {"max_tokens": "max_completion_tokens", "not there": "neither"},
    "force": {"enable_thinking": False},
}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted
        await client.close()


async def test_rules_change_what_the_provider_is_asked(upstream: ScriptedUpstream) -> None:
    check_rules(RULES)
    target = UpstreamTarget(name="a", base_url=upstream.base_url, model="echo", rules=RULES)
    for _ in range(2):
        async for _batch in OpenAIUpstream(target).stream(REQUEST):
            pass

    assert [seen.body for seen in upstream.requests] == [
        {
            "temperature": 1,
            "top_p": 0.5,
            "seed": 1,
            "model": "echo",
            "messages": [{"role": "user", "content": "hello"}],
            "max_completion_tokens": 64,
            "stream": True,
            "stream_options": {"include_usage": True},
            "enable_thinking": False,
        }
    ] * 2


def test_without_rules_nothing_is_changed() -> None:
    check_rules({})
    body = {"model": "m"}
    assert apply_rules({}, body) is body


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ([], "an object with drop, rename, clamp and force is wanted"),
        ({"add": {}}, "an object with drop, rename, clamp and force is wanted"),
        ({"drop": "temperature"}, 'drop: a list of names such as ["logit_bias"] is wanted'),
        ({"drop": [1]}, 'drop: a list of names such as ["logit_bias"] is wanted'),
        ({"drop": ["messages"]}, "messages: cannot be changed"),
        ({"force": {"stream": False}}, "stream: cannot be changed"),
        ({"rename": {"x": "model"}}, "model: cannot be changed"),
        ({"rename": {"x": 1}}, 'rename: names such as {"max_tokens": "max_completion_tokens"} are wanted'),
        ({"rename": {"seed": "n"}}, "n: bounds what an answer costs, and cannot be set"),
        ({"force": {"n": 4}}, "n: bounds what an answer costs, and cannot be set"),
        ({"force": {"max_tokens": 9}}, "max_tokens: bounds what an answer costs, and cannot be set"),
        ({"force": []}, 'force: values such as {"enable_thinking": false} are wanted'),
        ({"clamp": {"max_tokens": [9, 99]}}, "max_tokens: bounds what an answer costs, and cannot be raised"),
        ({"clamp": {"x": [2, 1]}}, 'clamp: ranges such as {"temperature": [0, 1]} are wanted; null is no bound'),
        ({"clamp": {"x": [0]}}, 'clamp: ranges such as {"temperature": [0, 1]} are wanted; null is no bound'),
        ({"clamp": {"x": ["0", 1]}}, 'clamp: ranges such as {"temperature": [0, 1]} are wanted; null is no bound'),
    ],
)
def test_rules_that_cannot_be_meant(rules: object, fault: str) -> None:
    with pytest.raises(BadRulesError) as refused:
        check_rules(rules)
    assert str(refused.value) == fault


# --- variants ---


async def test_azure_is_asked_at_its_own_address_with_its_own_header(upstream: ScriptedUpstream) -> None:
    target = UpstreamTarget(
        name="a",
        base_url=upstream.azure_url + "/",
        model="azure",
        api_key="the-key",
        dialect="azure",
        api_version="2024-10-21",
    )
    events = [event async for batch in AzureUpstream(target).stream(REQUEST) for event in batch]

    (seen,) = upstream.requests
    assert events[-1] == Done("stop")
    assert seen.path == "/openai/deployments/azure/chat/completions?api-version=2024-10-21"
    assert seen.headers["api-key"] == "the-key"
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # Azure: https://learn.microsoft.com/en-us/azure/ai-services/openai/concepts/content-filter
        (
            400,
            '{"error":{"message":"filtered due to the prompt triggering our content management policy","code":null}}',
            FailureKind.CONTENT,
        ),
        (401, '{"error":{"code":"401","message":"Access denied due to invalid subscription key"}}', FailureKind.AUTH),
        (404, '{"error":{"code":"DeploymentNotFound","message":"no such deployment"}}', FailureKind.REQUEST),
        # DeepSeek: https://api-docs.deepseek.com/quick_start/error_codes
        (402, '{"error":{"message":"Insufficient Balance","code":"invalid_request_error"}}', FailureKind.QUOTA),
        (400, '{"error":{"message":"Content Exists Risk"}}', FailureKind.CONTENT),
        # DashScope (Qwen): https://help.aliyun.com/zh/model-studio/error-code
        (
            400,
            '{"error":{"code":"Arrearage","message":"Access denied, account is in good standing?"}}',
            FailureKind.QUOTA,
        ),
        (429, '{"error":{"code":"Throttling.RateQuota","message":"Requests rate limit exceeded"}}', FailureKind.RATE),
        (400, '{"error":{"message":"Range of input length should be [1, 30720]"}}', FailureKind.CONTEXT_TOO_LONG),
        # Moonshot (Kimi): https://platform.moonshot.cn/docs/api/chat
        (429, '{"error":{"type":"engine_overloaded_error","message":"overloaded"}}', FailureKind.OVERLOAD),
        (429, '{"error":{"type":"exceeded_current_quota_error","message":"suspended"}}', FailureKind.QUOTA),
        (429, '{"error":{"type":"rate_limit_reached_error","message":"max RPM: 3"}}', FailureKind.RATE),
        (
            400,
            '{"error":{"type":"invalid_request_error","message":"Your request exceeded model token limit: 8192"}}',
            FailureKind.CONTEXT_TOO_LONG,
        ),
        # Zhipu (GLM): https://docs.bigmodel.cn/cn/api/api-code
        (429, '{"error":{"code":"1113","message":"您的账户已欠费，请充值后重试"}}', FailureKind.QUOTA),
        (429, '{"error":{"code":"1302","message":"您当前使用该API的并发数过高"}}', FailureKind.RATE),
        (429, '{"error":{"code":"1305","message":"当前API请求过多，模型当前访问量过大"}}', FailureKind.OVERLOAD),
        (400, '{"error":{"code":"1261","message":"Prompt 超长"}}', FailureKind.CONTEXT_TOO_LONG),
        (400, '{"error":{"code":"1301","message":"可能包含不安全或敏感内容"}}', FailureKind.CONTENT),
    ],
)
def test_refusals_of_other_providers(status: int, body: str, kind: FailureKind) -> None:
    assert refusal(status, body.encode()).kind == kind


@pytest.mark.parametrize(
    ("text", "reason", "last"),
    [
        ("", "sensitive", Failed(FailureKind.CONTENT, "finished by sensitive without output")),
        ("a", "sensitive", Done("sensitive")),
        ("a", "network_error", Failed(FailureKind.OVERLOAD, "broken off: network_error")),
        (
            "a",
            "insufficient_system_resource",
            Failed(FailureKind.OVERLOAD, "broken off: insufficient_system_resource"),
        ),
    ],
)
def test_finish_reasons_of_other_providers(text: str, reason: str, last: Event) -> None:
    parser = AnswerParser()
    chunk = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"{reason}"}}]}}\n\n'

    assert (parser.feed(chunk.encode()) + parser.end())[-1] == last

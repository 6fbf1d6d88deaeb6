"""The litellm policy against a real HTTP server that misbehaves: what arrives, what is retried, what is refused."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.budget import Budget
from harness.errors import InfrastructureError, PolicyRefused, RolloutEnd, UsageError
from harness.policies.litellm_policy import COMMON, LitellmSource, ServiceSettings
from harness.policy import Policy
from harness.records import Completion, FinishReason, Message, Sampling, StopReason, Task, Usage
from sandboxes.workspace import MappingTree, Workspace
from tests.chat_server import ChatServer, Reply, Request, Script, completion, error, in_turn

# content that is no text makes pydantic warn inside litellm; import_litellm silences it, pytest switches it on again
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

PROVIDERS = ("vllm", "openai")
"""litellm has two HTTP clients: one of its own, and the openai package's."""
TASK = Task("t", "s", "", Workspace(MappingTree({})), (), (), ())
HELLO = (Message(role="user", content="hello"),)
GOOD = completion("good")
SECRET = "sk-a-secret-value-0123456789"
Connect = Callable[..., Policy]
Serve = Callable[[Script], ChatServer]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "HOSTED_VLLM", "ANTHROPIC", "TOGETHER", "TOGETHERAI", "TOGETHER_AI", "GEMINI", "GOOGLE"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    """Each provider was asked once: litellm imports much at its first call, which a short time-out would cut off."""
    with ChatServer(in_turn(GOOD)) as server:
        for provider in PROVIDERS:
            LitellmSource(provider, "m", ServiceSettings(server.url), Budget()).policy(TASK, 0).complete(
                HELLO, Sampling()
            )
        yield server


@pytest.fixture
def serve(server: ChatServer) -> Serve:
    """The server with a new script. It is one for all tests: a new address costs a client 50 ms."""

    def start(script: Script) -> ChatServer:
        server.script = script
        server.requests.clear()
        return server

    return start


@pytest.fixture(params=PROVIDERS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """A policy of each provider."""

    def make(api_base: str, attempts: int = 3, timeout_s: float = 5.0, budget: Budget | None = None) -> Policy:
        settings = ServiceSettings(api_base, timeout_s, attempts, max_wait_s=0.01)
        return LitellmSource(request.param, "m", settings, budget or Budget()).policy(TASK, 0)

    return make


def with_choices(choices: object) -> Reply:
    return Reply({**GOOD.content, "choices": choices})


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_completion_arrives_with_usage_and_one_attempt(serve: Serve, connect: Connect) -> None:
    got = connect(serve(in_turn(completion("text", prompt_tokens=7, completion_tokens=3))).url).complete(
        HELLO, Sampling()
    )
    assert (got.text, got.finish_reason) == ("text", FinishReason.STOP)
    assert got.usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert (got.attempts, got.faults, got.cost_usd) == (1, (), None)
    assert 0 < got.seconds < 5


def test_messages_and_sampling_reach_the_server(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(GOOD))
    messages = (
        Message(role="system", content="s"),
        Message(role="user", content="ü\n"),
        Message(role="assistant", content=""),
    )
    connect(server.url).complete(messages, Sampling(temperature=0.5, max_tokens=77, seed=123))
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    sent = {name: request.body[name] for name in ("model", "temperature", "max_tokens", "seed")}
    assert sent == {"model": "m", "temperature": 0.5, "max_tokens": 77, "seed": 123}
    assert [tuple(message.values()) for message in request.messages] == [
        ("system", "s"), ("user", "ü\n"), ("assistant", "(empty)"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (completion("cut", "length"), "cut", FinishReason.LENGTH),
        (completion(""), "", FinishReason.STOP),
        (completion(None, "tool_calls", tool_calls=[]), "", FinishReason.STOP),
        (completion("a\ud800b"), "a?b", FinishReason.STOP),
        (completion("odd", "never heard of"), "odd", FinishReason.STOP),
        (completion("none", None), "none", FinishReason.STOP),
    ],
    ids=["length", "empty", "null", "lone surrogate", "unknown finish", "null finish"],
)
def test_unusual_completions_are_completions(
    serve: Serve, connect: Connect, reply: Reply, text: str, finish: FinishReason
) -> None:
    server = serve(in_turn(reply))
    got = connect(server.url).complete(HELLO, Sampling())
    assert (got.text, got.finish_reason) == (text, finish)
    assert len(server.requests) == 1
    json.loads(got.model_dump_json())


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_usage_that_the_service_does_not_tell_is_unknown(serve: Serve, connect: Connect, usage: object) -> None:
    server = serve(in_turn(Reply({**GOOD.content, "usage": usage})))
    assert connect(server.url).complete(HELLO, Sampling()).usage == Usage()


FAULTS = {
    "429": (error(429), "rate_limit"),
    "408": (error(408), "server_error"),
    "500": (error(500), "server_error"),
    "502 in HTML": (Reply(b"<html>bad gateway</html>", 502), "server_error"),
    "529 empty": (Reply(b"", 529), "server_error"),
    "hang": (Reply(GOOD.content, wait_s=30), "timeout"),
    "drip": (Reply(GOOD.content, drip_s=0.2), "timeout"),
    "dropped": (Reply(GOOD.content, send=30), "connection"),
    "truncated": (Reply(GOOD.body[:60]), "malformed_response"),
    "bad gzip": (Reply(b"no gzip", headers={"Content-Encoding": "gzip"}), None),
    "other JSON": (Reply({"foo": 1}), "malformed_response"),
    "number": (Reply(3), "malformed_response"),
    "list": (Reply([1]), "malformed_response"),
    "HTML": (Reply(b"<html>hello</html>"), "malformed_response"),
    "empty body": (Reply(b""), "malformed_response"),
    "not UTF-8": (Reply(b"\xff\xfe\xfd"), "malformed_response"),
    "deep": (Reply(b"[" * 10_000), "malformed_response"),
    "error in 200": (Reply({"error": {"message": "boom"}}), "malformed_response"),
    "no choices": (with_choices([]), "malformed_response"),
    "null choices": (with_choices(None), "malformed_response"),
    "null choice": (with_choices([None]), "malformed_response"),
    "empty choice": (with_choices([{}]), "malformed_response"),
    "null message": (with_choices([{"index": 0, "message": None, "finish_reason": "stop"}]), "malformed_response"),
    "content list": (completion([{"type": "text", "text": "x"}]), "malformed_response"),
    "content number": (completion(3), "malformed_response"),
    "wrong usage": (Reply({**GOOD.content, "usage": "much"}), "malformed_response"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_retried_counted_and_healed(serve: Serve, connect: Connect, name: str) -> None:
    reply, fault = FAULTS[name]
    server = serve(in_turn(reply, GOOD))
    timeout_s = 0.5 if fault == "timeout" else 5.0
    got = connect(server.url, timeout_s=timeout_s).complete(HELLO, Sampling())
    assert (got.text, got.attempts, len(got.faults)) == ("good", 2, 1)
    assert fault is None or got.faults == (fault,)
    assert len(server.requests) == 2


def test_different_faults_are_counted_in_their_order(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(error(500), error(429), Reply({"foo": 1}), GOOD))
    got = connect(server.url, attempts=4).complete(HELLO, Sampling())
    assert (got.attempts, got.faults) == (4, ("server_error", "rate_limit", "malformed_response"))
    assert len(server.requests) == 4


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_fault_that_stays_ends_after_exactly_so_many_requests(serve: Serve, connect: Connect, attempts: int) -> None:
    server = serve(in_turn(error(500, "it burns")))
    with pytest.raises(InfrastructureError, match=f"server_error in attempt {attempts}, the last: .*it burns"):
        connect(server.url, attempts).complete(HELLO, Sampling())
    assert len(server.requests) == attempts


def test_a_refused_connection_is_an_infrastructure_fault(connect: Connect) -> None:
    with pytest.raises(InfrastructureError, match="connection in attempt 3"):
        connect(f"http://127.0.0.1:{closed_port()}/v1").complete(HELLO, Sampling())


def test_the_service_may_ask_for_a_pause(serve: Serve) -> None:
    server = serve(in_turn(Reply(error(429).content, 429, {"Retry-After": "0.6"}), GOOD))
    settings = ServiceSettings(server.url, attempts=2, max_wait_s=2.0)
    policy = LitellmSource("vllm", "m", settings, Budget()).policy(TASK, 0)
    began = time.monotonic()
    policy.complete(HELLO, Sampling())
    assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2015 07:28:00 GMT", "nan", "-1", "1e9", ""])
def test_no_pause_is_longer_than_the_settings_say(serve: Serve, connect: Connect, header: str) -> None:
    server = serve(in_turn(Reply(error(503).content, 503, {"Retry-After": header}), GOOD))
    began = time.monotonic()
    assert connect(server.url).complete(HELLO, Sampling()).attempts == 2
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_run_after_one_request(serve: Serve, connect: Connect, status: int) -> None:
    server = serve(in_turn(error(status, "go away")))
    with pytest.raises(PolicyRefused, match=rf"refuses .*m \(status {status}\): .*go away"):
        connect(server.url).complete(HELLO, Sampling())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 402, 413, 422])
def test_a_request_that_is_not_accepted_is_not_sent_again(serve: Serve, connect: Connect, status: int) -> None:
    server = serve(in_turn(error(status, "unknown parameter")))
    with pytest.raises(InfrastructureError, match=rf"status {status}.*unknown parameter"):
        connect(server.url).complete(HELLO, Sampling())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 10 tokens. However, you requested 20 tokens", None),
        ("the model's context length is only 10 tokens, resulting in a maximum input length of 5 tokens", None),
        ("The decoder prompt (length 20) is longer than the maximum model length of 10.", None),
        ("prompt is too long: 20 tokens > 10 maximum", None),
        ("too much", "context_length_exceeded"),
    ],
)
def test_a_full_context_is_a_stop_reason(serve: Serve, connect: Connect, message: str, code: str | None) -> None:
    server = serve(in_turn(error(400, message, code)))
    with pytest.raises(RolloutEnd) as end:
        connect(server.url).complete(HELLO, Sampling())
    assert end.value.reason is StopReason.CONTEXT_FULL
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        completion("half an ans", "content_filter"),
        error(400, "Your request was rejected as a result of our safety system", "content_policy_violation"),
        error(400, "The response was filtered", "content_filter"),
        error(403, "Your chosen model requires moderation and your input was flagged"),
    ],
    ids=["finish reason", "policy", "code", "moderation"],
)
def test_a_content_filter_is_a_stop_reason(serve: Serve, connect: Connect, reply: Reply) -> None:
    server = serve(in_turn(reply))
    with pytest.raises(RolloutEnd) as end:
        connect(server.url).complete(HELLO, Sampling())
    assert end.value.reason is StopReason.CONTENT_FILTER
    assert len(server.requests) == 1


def test_tokens_are_counted_and_a_spent_budget_asks_nothing_more(serve: Serve, connect: Connect) -> None:
    server, budget = serve(in_turn(completion("x", prompt_tokens=10, completion_tokens=5))), Budget(max_tokens=16)
    policy = connect(server.url, budget=budget)
    policy.complete(HELLO, Sampling())
    policy.complete(HELLO, Sampling())
    with pytest.raises(RolloutEnd) as end:
        policy.complete(HELLO, Sampling())
    assert (end.value.reason, budget.tokens, len(server.requests)) == (StopReason.BUDGET, 30, 2)


def test_a_filtered_answer_is_paid_for(serve: Serve, connect: Connect) -> None:
    budget = Budget()
    with pytest.raises(RolloutEnd):
        connect(serve(in_turn(completion("x", "content_filter"))).url, budget=budget).complete(HELLO, Sampling())
    assert budget.tokens == 15


def test_cost_is_known_for_a_model_with_a_price(serve: Serve) -> None:
    server, budget = (
        serve(in_turn(completion("x", prompt_tokens=1000, completion_tokens=1000))),
        Budget(max_cost_usd=1e-6),
    )
    policy = LitellmSource("openai", "gpt-4o-mini", ServiceSettings(server.url), budget).policy(TASK, 0)
    cost = policy.complete(HELLO, Sampling()).cost_usd
    assert cost is not None and 0 < cost < 0.1
    assert budget.cost_usd == cost
    with pytest.raises(RolloutEnd):
        policy.complete(HELLO, Sampling())


def test_the_provider_key_is_sent_and_masked_in_errors(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY"):
        monkeypatch.setenv(name, SECRET)

    def echo(status: int, pad: int) -> Script:
        return lambda request: error(status, "x" * pad + request.headers["Authorization"])

    for pad in (0, 210, 240, 260, 280):  # the key stands across the place where a long message is cut
        with pytest.raises(PolicyRefused) as refused:
            connect(serve(echo(401, pad)).url).complete(HELLO, Sampling())
        assert SECRET[:6] not in str(refused.value)
    with pytest.raises(InfrastructureError, match=r"Bearer \[redacted\]"):
        connect(serve(echo(500, 0)).url).complete(HELLO, Sampling())


def test_errors_are_one_short_line(serve: Serve, connect: Connect) -> None:
    with pytest.raises(InfrastructureError) as fault:
        connect(serve(in_turn(Reply(b"<html>\n" + b"<p>bad</p>\n" * 500, 500))).url).complete(HELLO, Sampling())
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 400


def test_calls_from_several_threads_do_not_mix(serve: Serve, connect: Connect) -> None:
    def script(request: Request) -> Reply:
        return completion(request.conversation) if request.number % 3 else error(500)

    server = serve(script)
    policy = connect(server.url, attempts=20)
    texts = [f"message {number}" for number in range(40)]

    def ask(text: str) -> Completion:
        return policy.complete((Message(role="user", content=text),), Sampling())

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, texts))
    assert [item.text for item in got] == texts
    assert sum(item.attempts for item in got) == len(server.requests)
    assert sum(len(item.faults) for item in got) == len(server.requests) // 3


def calls_under_way() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "model-call"}


@pytest.mark.parametrize("reply", [GOOD, error(500), Reply(GOOD.content, drip_s=0.003)], ids=["good", "500", "late"])
def test_no_call_outlives_its_connection(serve: Serve, connect: Connect, reply: Reply) -> None:
    before = calls_under_way()
    with contextlib.suppress(InfrastructureError):
        connect(serve(in_turn(reply)).url, attempts=2, timeout_s=0.3).complete(HELLO, Sampling())
    deadline = time.monotonic() + 10
    while calls_under_way() - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bug_in_our_own_code_is_not_taken_for_a_fault(serve: Serve, connect: Connect) -> None:
    class Broken(Budget):
        def add(self, completion: Completion) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        connect(serve(in_turn(GOOD)).url, budget=Broken()).complete(HELLO, Sampling())


@pytest.mark.parametrize(
    ("provider", "model", "api_base", "said"),
    [
        ("openai", "gpt-4o", "", "no key for openai/gpt-4o: the environment lacks OPENAI_API_KEY"),
        ("together", "m", "", "lacks TOGETHERAI_API_KEY"),
        ("nonsense", "m", "", "unknown --llm-provider 'nonsense'"),
        ("openai", "", "", "--llm-provider openai needs a --model"),
        ("vllm", "m", "", "--llm-provider vllm needs --api-base"),
        ("vllm", "m", "localhost:8000/v1", "--api-base must begin with http"),
        ("litellm", "nobody-knows-it", "", "litellm does not know whose model 'nobody-knows-it' is"),
    ],
)
def test_a_source_that_cannot_work_is_a_usage_error(provider: str, model: str, api_base: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        LitellmSource(provider, model, ServiceSettings(api_base), Budget())
    assert "\n" not in str(refused.value)


def test_a_time_out_of_zero_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--request-timeout must be more than 0"):
        LitellmSource("vllm", "m", ServiceSettings("http://127.0.0.1:1/v1", timeout_s=0), Budget())


def test_together_accepts_its_own_name_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", SECRET)
    LitellmSource("together", "m", ServiceSettings(), Budget())


@pytest.mark.parametrize("provider", [name for name in COMMON if name != "litellm"])
def test_every_provider_that_is_suggested_exists(provider: str) -> None:
    source = LitellmSource(provider, "m", ServiceSettings("http://127.0.0.1:1/v1"), Budget())
    assert source.info.model == "m"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_litellm_is_imported_only_when_it_is_used() -> None:
    seen = "import sys; print(sorted(m for m in ('litellm', 'openai', 'httpx') if m in sys.modules))"
    assert python(f"import harness.policies.sources; {seen}") == "[]\n"
    told = python(f"import repo_agent\ntry: repo_agent.main(['eval', '--help'])\nexcept SystemExit: pass\n{seen}")
    assert told.endswith("\n[]\n")


SILENT = """
import socket, sys, threading
asked = []
def record(*args, **kwargs):
    asked.append(args)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = record
from harness.policies.litellm_policy import import_litellm
import_litellm()
print(asked, [t.name for t in threading.enumerate()])
"""


def test_importing_litellm_opens_no_connection_and_starts_no_thread() -> None:
    assert python(SILENT) == "[] ['MainThread']\n"


CONCURRENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from tests.test_harness_litellm import *
with ChatServer(lambda request: Reply(GOOD.content, wait_s=60) if request.number == 20 else GOOD) as server:
    policy = LitellmSource("vllm", "m", ServiceSettings(server.url, 5.0, 2, 0.01), Budget()).policy(TASK, 0)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: policy.complete(HELLO, Sampling()).text, range(24)))
    print(set(texts), len(texts))
"""


@pytest.mark.slow
def test_first_calls_from_several_threads_work_and_the_process_ends_silently() -> None:
    assert python(CONCURRENT) == "{'good'} 24\n"

"""A real HTTP server on loopback that speaks the OpenAI chat completions API, and misbehaves when the test says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import Loopback, QuietHandler


@dataclass(frozen=True)
class Request:
    """What a client asked. `number` counts the server's requests from 1."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, str]]:
        return list(self.body["messages"])

    @property
    def conversation(self) -> str:
        return "\n".join(message["content"] for message in self.messages)

    @property
    def turn(self) -> int:
        """How many times the model has spoken in this conversation."""
        return sum(message["role"] == "assistant" for message in self.messages)


@dataclass(frozen=True)
class Reply:
    """What the server does with a request. `content` is a body, or a JSON value that becomes one."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Nothing is sent for so long: a hang."""
    send: int | None = None
    """So many bytes of the body are sent, then the connection is dropped."""
    drip_s: float = 0.0
    """Pause after each byte of the body."""

    @property
    def body(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        return json.dumps(self.content).encode()


Script = Callable[[Request], Reply]


def completion(
    text: object, finish: object = "stop", prompt_tokens: int = 10, completion_tokens: int = 5, **message: object
) -> Reply:
    """A chat completion. `message` adds fields to the message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    total = prompt_tokens + completion_tokens
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return Reply({**head, "choices": [choice], "usage": usage})


def error(status: int, message: str = "scripted", code: str | None = None, kind: str = "error") -> Reply:
    """An error in OpenAI's form."""
    return Reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def in_turn(*replies: Reply) -> Script:
    """The replies one after the other; the last one again and again."""
    return lambda request: replies[min(request.number, len(replies)) - 1]


class ChatServer(Loopback):
    """Answers by a script. Use it in a `with`; `requests` is what it was asked so far."""

    def __init__(self, script: Script) -> None:
        super().__init__(_Handler)
        self.script = script
        self.requests: list[Request] = []
        self._lock = threading.Lock()

    def request(self, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> Request:
        with self._lock:
            request = Request(len(self.requests) + 1, path, headers, body)
            self.requests.append(request)
        return request


class _Handler(QuietHandler):
    def do_POST(self) -> None:
        chat: ChatServer = self.server.owner
        length = int(self.headers.get("Content-Length", 0))
        reply = chat.script(chat.request(self.path, dict(self.headers), json.loads(self.rfile.read(length))))
        if reply.wait_s and chat.closing.wait(reply.wait_s):
            return
        self.send_head(reply.status, reply.headers, len(reply.body))
        self._send(reply, chat.closing)

    def _send(self, reply: Reply, closing: threading.Event) -> None:
        body = reply.body[: reply.send]
        parts = [body[at : at + 1] for at in range(len(body))] if reply.drip_s else [body]
        for part in parts:
            self.wfile.write(part)
            if reply.drip_s and closing.wait(reply.drip_s):
                return

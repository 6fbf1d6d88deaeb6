"""A real HTTP server on loopback that plays Together's fine-tuning API, and misbehaves when the test says so.

It keeps what a service keeps: files (made by a redirect to storage, a PUT there, and a call that has them read) and
jobs, each of which goes through the stages of a script as it is looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.loopback import Loopback, QuietHandler

CREATED = "2026-01-02T03:04:05Z"
LIMITS = {
    "max_num_epochs": 20, "max_learning_rate": 1.0, "min_learning_rate": 1e-9,
    "min_max_seq_length": 128, "max_seq_length_sft": 8192, "max_seq_length_dpo": 4096,
    "full_training": {"max_batch_size": 64, "min_batch_size": 8},
    "lora_training": {"max_batch_size": 128, "min_batch_size": 4, "max_rank": 64, "target_modules": ["q_proj"]},
    "supports_vision": False,
}  # fmt: skip
ESTIMATE = {"allowed_to_proceed": True, "estimated_total_price": 4.5, "estimated_train_token_count": 12345.0}


@dataclass(frozen=True)
class Stage:
    """What a job is at one look at it; `events` are new with it."""

    status: str
    events: tuple[dict[str, Any], ...] = ()


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that `request`, such as "POST /v1/fine-tunes", fits wholly."""

    request: str
    status: int = 0
    """Answered with instead; 0: the connection is dropped without an answer."""
    after: bool = False
    """The request is carried out first: only its answer is lost."""
    times: int = 1
    body: Any = field(default_factory=lambda: {"error": {"message": "scripted"}})
    headers: dict[str, str] = field(default_factory=dict)
    when: Callable[[], bool] = lambda: True

    def meets(self, request: str) -> bool:
        if not self.times or not re.fullmatch(self.request, request) or not self.when():
            return False
        self.times -= 1
        return True


def event(message: str, kind: str = "training_start", step: int = 0, **more: Any) -> dict[str, Any]:
    head = {"object": "fine-tune-event", "created_at": CREATED, "message": message, "type": kind, "step": step}
    return {**head, "hash": "", "level": "info", **more}


COMPLETE = (
    Stage("pending", (event("Fine tune request created", "job_pending"),)),
    Stage("running", (event("Training started"), event("Epoch completed", "epoch_complete", 1))),
    Stage("completed", (event("Job finished", "job_complete"),)),
)


@dataclass(frozen=True)
class Answer:
    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    id: str
    request: dict[str, Any]
    stages: tuple[Stage, ...]
    looks: int = 0

    @property
    def seen(self) -> tuple[Stage, ...]:
        return self.stages[: max(1, min(self.looks, len(self.stages)))]

    def answer(self, output_name: str) -> dict[str, Any]:
        status = self.seen[-1].status
        known = {name: self.request.get(name) for name in ("training_file", "suffix", "model", "n_epochs")}
        name = output_name if status == "completed" else None
        head = {"id": self.id, "status": status, "created_at": CREATED, "updated_at": CREATED}
        return {**head, **known, "model": known["model"] or "base/of-the-parent", "model_output_name": name}

    def events(self) -> list[dict[str, Any]]:
        return [item for stage in self.seen for item in stage.events]


class FineTuningServer(Loopback):
    """Use it in a `with`; `requests` is what it was asked so far, as "METHOD /path"."""

    def __init__(self, key: str) -> None:
        super().__init__(_Handler)
        self.key = key
        self.stages: tuple[Stage, ...] = COMPLETE
        """What the next job goes through, one stage a look; it stays in the last."""
        self.faults: list[Fault] = []
        self.limits: dict[str, Any] = dict(LIMITS)
        self.estimate: dict[str, Any] = dict(ESTIMATE)
        self.processing_looks = 0
        """Looks at a file before it has been read."""
        self.job_id = "ft-{number}"
        self.output_name = "me/model-{suffix}-{id}"
        self.on_request: Callable[[str], None] = lambda request: None
        """Called when a request has been carried out, before it is answered."""
        self.requests: list[str] = []
        self.jobs: list[Job] = []
        self.bodies: list[dict[str, Any]] = []
        """JSON bodies of the requests for jobs and estimates."""
        self.uploads: dict[str, dict[str, Any]] = {}
        """By file id: name, checksum, content, and looks."""
        self.limits_asked: list[str] = []
        """Models, or jobs, whose limits were asked for."""
        self._lock = threading.Lock()

    def count(self, request: str) -> int:
        return sum(re.fullmatch(request, made) is not None for made in self.requests)

    def answer(self, request: str, query: str, body: bytes, key: str | None) -> Answer | None:
        """None: the connection is dropped. A request without a body is handled with its query instead."""
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.meets(request)), None)
            if fault is None or fault.after:
                if "/storage/" not in request and key != f"Bearer {self.key}":
                    return _error(401, f"invalid key {key}")
                answer = self._route(request, body if body else query.encode())
            if fault is not None:
                return Answer(fault.body, fault.status, fault.headers) if fault.status else None
        self.on_request(request)
        return answer

    def _route(self, request: str, body: bytes) -> Answer:
        for pattern, handle in self._routes():
            if found := re.fullmatch(pattern, request):
                return handle(body, *found.groups())
        return _error(404, f"no such endpoint: {request}")

    def _routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        return [
            ("POST /v1/files", self._announce_file),
            ("PUT /storage/(.+)", self._store_file),
            ("POST /v1/files/(.+)/preprocess", self._show_file),
            ("GET /v1/files/(.+)", self._show_file),
            ("GET /v1/fine-tunes/models/limits", self._limits),
            ("POST /v1/fine-tunes/estimate-price", self._estimate),
            ("POST /v1/fine-tunes", self._create_job),
            ("GET /v1/fine-tunes", lambda body: Answer({"data": [self._shown(job) for job in self.jobs]})),
            ("GET /v1/fine-tunes/([^/]+)", self._look_at_job),
            ("GET /v1/fine-tunes/([^/]+)/events", self._events),
        ]

    def _announce_file(self, body: bytes) -> Answer:
        fields = dict(re.findall(r'name="(\w+)"\r\n\r\n(.*?)\r\n', body.decode()))
        for file, about in self.uploads.items():
            if about["checksum"] == fields["checksum"] and about["content"] is not None:
                return Answer({"file_id": file}, 409)
        file = f"file-{len(self.uploads) + 1}"
        self.uploads[file] = {**fields, "content": None, "looks": 0}
        return Answer("", 302, {"Location": f"{self.origin}/storage/{file}", "X-Together-File-Id": file})

    def _store_file(self, body: bytes, file: str) -> Answer:
        self.uploads[file]["content"] = body
        return Answer("")

    def _show_file(self, body: bytes, file: str) -> Answer:
        if file not in self.uploads:
            return _error(404, f"no file {file}")
        about = self.uploads[file]
        content = about["content"] or b""
        about["looks"] += 1
        known = {"id": file, "bytes": len(content), "filename": about["file_name"], "purpose": about["purpose"]}
        sound = hashlib.sha256(content).hexdigest() == about["checksum"]
        processed = sound and about["looks"] > self.processing_looks
        return Answer({**known, "created_at": 1, "FileType": "jsonl", "object": "file", "Processed": processed})

    def _limits(self, body: bytes) -> Answer:
        self.limits_asked += parse_qs(body.decode())["model_name"]
        return Answer(self.limits)

    def _estimate(self, body: bytes) -> Answer:
        asked = json.loads(body)
        self.bodies.append(asked)
        if asked["training_file"] not in self.uploads:
            return _error(400, "no such file")
        return Answer(self.estimate)

    def _create_job(self, body: bytes) -> Answer:
        asked = json.loads(body)
        self.bodies.append(asked)
        self.jobs.append(Job(self.job_id.format(number=len(self.jobs) + 1), asked, self.stages))
        return Answer(self._shown(self.jobs[-1]))

    def _shown(self, job: Job) -> dict[str, Any]:
        return job.answer(self.output_name.format(suffix=job.request.get("suffix"), id=job.id))

    def _look_at_job(self, body: bytes, name: str) -> Answer:
        job = next((job for job in self.jobs if job.id == name), None)
        if job is None:
            return _error(404, f"no job {name}")
        job.looks += 1
        return Answer(self._shown(job))

    def _events(self, body: bytes, name: str) -> Answer:
        return Answer({"data": next(job for job in self.jobs if job.id == name).events()})


def _error(status: int, message: str) -> Answer:
    return Answer({"error": {"message": message, "type": "invalid_request_error"}}, status)


class _Handler(QuietHandler):
    def _do(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.owner.answer(f"{self.command} {path}", query, body, self.headers.get("Authorization"))
        if answer is None:
            return
        content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        self.send_head(answer.status, answer.headers, len(content))
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def do_PUT(self) -> None:
        self._do()

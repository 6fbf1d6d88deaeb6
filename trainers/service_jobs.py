"""A fine-tuning job at a service: what is recorded of it, and how it gets from a file to a model.

Everything that happens is written to `job.json` before the next thing is done, so that a run that was ended anywhere
goes on where it was and no job is made twice: before a create request goes out, it is recorded which jobs of the same
file and suffix there are, and before it goes out again, it is looked whether there is one more.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import InfrastructureError, UsageError
from harness.model_files import RESULT_FILE
from harness.records import Record
from harness.redaction import Redactor
from harness.run_files import now
from trainers.card import atomic_file
from trainers.service_files import DataFile
from trainers.together_service import Estimate, JobRequest, Terms, TogetherService, checked_id, model_name, printable

JOB_FILE = "job.json"
COMPLETED = "completed"
FAILED = ("error", "user_error", "cancelled")
MAX_PROCESSING_S = 1800.0
"""How long it is waited until the service has read an uploaded file."""
_SAID_WITH = ("job_error", "job_user_error", "billing_limit")


class Upload(Record):
    """A file at the service."""

    id: str
    sha256: str


class StatusSeen(Record):
    """A status of the job, and when it was first seen."""

    status: str
    time: str


class JobEvent(Record):
    """An event of a job, its texts made fit to print. Equal ones are one event."""

    time: str
    type: str
    message: str
    step: int | None = None

    def __str__(self) -> str:
        return f"{self.time} {self.message or self.type}".strip()


class JobRecord(Record):
    """What `job.json` holds."""

    backend: str = "together"
    service: str
    """Its address."""
    request: JobRequest
    data: DataFile
    created: str
    versions: dict[str, str]
    upload: Upload | None = None
    training_type: dict[str, Any] | None = None
    """What is trained, with the settings that the model's limits gave where the request has none."""
    estimate: Estimate | None = None
    stood_before: tuple[str, ...] | None = None
    """Jobs of this file and suffix that there were before a create request went out; None: none went out."""
    job: str | None = None
    statuses: tuple[StatusSeen, ...] = ()
    events: tuple[JobEvent, ...] = ()
    """Each once."""
    base_model: str | None = None
    model: str | None = None
    """The name of the finished model at the service."""

    @property
    def status(self) -> str:
        return self.statuses[-1].status if self.statuses else ""

    @property
    def failure(self) -> str:
        """What the service says of why a job failed."""
        said = [event for event in self.events if event.type.lower() in _SAID_WITH] or [*self.events]
        return (said[-1].message if said else "") or "it does not say why"


@dataclass
class JobDirectory:
    """The run directory of one job."""

    path: Path

    def record(self) -> JobRecord | None:
        """What is recorded; None where the directory is empty.

        Raises:
            UsageError: it holds something else, or a record that cannot be read.
        """
        try:
            return JobRecord.model_validate_json((self.path / JOB_FILE).read_bytes())
        except FileNotFoundError:
            if any(not item.name.startswith(".") for item in self.path.iterdir()):
                raise UsageError(f"{self.path} holds something else than a job: choose another --output-dir") from None
            return None
        except (OSError, ValidationError) as error:
            raise UsageError(f"{self.path / JOB_FILE} is not a job's record of this version") from error

    def save(self, record: JobRecord) -> None:
        self._write(JOB_FILE, record.model_dump(mode="json"))

    def write_result(self, record: JobRecord) -> None:
        """What `repo-agent eval --model RUN_DIR` reads."""
        self._write(
            RESULT_FILE,
            {
                "kind": record.request.method,
                "backend": record.backend,
                "model": record.model,
                "base_model": record.base_model,
                "job": record.job,
            },
        )

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with atomic_file(self.path / name) as file:
            file.write((json.dumps(Redactor().values(content), indent=2) + "\n").encode())

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Nobody else works on the directory meanwhile. Raises UsageError where somebody does."""
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"cannot use --output-dir {self.path}: {error.strerror}") from error
        try:
            _lock(descriptor, self.path)
            yield
        finally:
            os.close(descriptor)
            if new:
                with suppress(OSError):  # it has got files
                    self.path.rmdir()


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another process works on {path}") from None


class ServiceJob:
    """One job, as far as its record says it has come; every change is recorded.

    Args:
        say: told one line of each thing that is new.
        poll_s: pause between two looks.
    """

    def __init__(
        self,
        service: TogetherService,
        directory: JobDirectory,
        record: JobRecord,
        say: Callable[[str], None],
        poll_s: float,
    ) -> None:
        self._service, self._directory, self._say, self._poll_s = service, directory, say, poll_s
        self.record = record

    def _save(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        self._directory.save(self.record)

    def upload(self, max_wait_s: float = MAX_PROCESSING_S) -> str:
        """Have the file at the service, read by it; its id. A file that the record has there is not sent again."""
        data = self.record.data
        if self.record.upload is None or self.record.upload.sha256 != data.sha256:
            self._save(upload=Upload(id=self._service.upload(data.path), sha256=data.sha256))
        self._wait_until_read(max_wait_s)
        return self._file

    def _wait_until_read(self, max_wait_s: float) -> None:
        file, began, said = self._file, time.monotonic(), False
        while not self._service.is_processed(file):
            if time.monotonic() - began > max_wait_s:
                raise InfrastructureError(f"the service has not read file {file} after {max_wait_s:.0f} s")
            if not said:
                self._say(f"waiting until the service has read {file}")
            said = True
            time.sleep(self._poll_s)

    @property
    def _file(self) -> str:
        if self.record.upload is None:
            raise ValueError("nothing was uploaded")
        return self.record.upload.id

    def estimate(self, terms: Terms) -> Estimate | None:
        """The price, None where the service gives none for the model."""
        found = self._service.estimate(self.record.request, self._file, terms) if terms.priced else None
        self._save(estimate=found, training_type=terms.training_type)
        return found

    def create(self) -> str:
        """Make the job, once; its id."""
        if self.record.stood_before is None:
            self._save(stood_before=tuple(self._service.call(self._ours)))
        try:
            job = self._service.call(self._found_or_made)
        except UsageError:
            self._save(stood_before=None)
            raise
        self._save(job=job)
        return job

    def _found_or_made(self) -> str:
        before = self.record.stood_before or ()
        new = [job for job in self._ours() if job not in before]
        return new[0] if new else self._service.create_once(self.record.request, self._file)

    def _ours(self) -> list[str]:
        """The ids of the account's jobs with our file and suffix; one whose suffix is not told may be ours."""
        suffix = self.record.request.suffix
        return [
            checked_id(job)
            for job in self._service.jobs_once()
            if job.get("training_file") == self._file and (job.get("suffix") or suffix) == suffix
        ]

    def watch(self) -> JobRecord:
        """Follow the job until it has ended, and say what is new; at the end write the result, if there is one."""
        with _interruptible() as interrupted:
            while self.record.status not in (COMPLETED, *FAILED):
                self._look()
                if interrupted.is_set():
                    raise KeyboardInterrupt
                if self.record.status not in (COMPLETED, *FAILED):
                    time.sleep(self._poll_s)
        if self.record.status == COMPLETED:
            self._directory.write_result(self.record)
        return self.record

    def _look(self) -> None:
        if self.record.job is None:
            raise ValueError("there is no job yet")
        job, events = self._service.look(self.record.job)
        new = [event for event in dict.fromkeys(map(_event, events)) if event not in self.record.events]
        changes: dict[str, Any] = {"events": (*self.record.events, *new)} if new else {}
        status = printable(job["status"])
        if status != self.record.status:
            changes["statuses"] = (*self.record.statuses, StatusSeen(status=status, time=now()))
        if status == COMPLETED:
            changes |= {"model": model_name(job), "base_model": printable(job.get("model") or "") or None}
        if changes:
            self._save(**changes)
        for event in new:
            self._say(str(event))
        if "statuses" in changes:
            self._say(f"status: {status}")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Set by SIGINT: raised in a destructor or a callback of a library, KeyboardInterrupt alone would be lost."""
    seen = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        seen.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _event(found: dict[str, Any]) -> JobEvent:
    redact = Redactor()
    time_, kind, message = (redact(printable(found.get(name) or "")) for name in ("created_at", "type", "message"))
    step = found.get("step")
    return JobEvent(time=time_, type=kind, message=message, step=step if isinstance(step, int) else None)

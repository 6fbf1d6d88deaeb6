"""Runs of `--backend together` against the loopback server, as the tests of service jobs make them."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fine_tuning_server import FineTuningServer
from trainers.service_cli import add_service_flags, run_service_job
from trainers.service_files import Method
from trainers.service_jobs import JobDirectory, JobRecord

KEY = "tgp_v1_a-secret-value-0123456789"
FINAL = '{"type":"final","summary":"done"}'
LIST = '{"type":"tool_call","name":"list_files","args":{}}'
ASKED = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
SAID = {"role": "assistant", "content": FINAL}
SFT_ROW = {"messages": [*ASKED, {**SAID, "weight": 1}]}
PAIR = {
    "input": {"messages": ASKED},
    "preferred_output": [SAID],
    "non_preferred_output": [{"role": "assistant", "content": LIST}],
}
ROWS: dict[Method, Any] = {"sft": SFT_ROW, "dpo": PAIR}
CREATE = "POST /v1/fine-tunes"
WATCHED = (
    "GET /v1/fine-tunes/models/limits", "POST /v1/files", "PUT /storage/file-1", "POST /v1/files/file-1/preprocess",
    "GET /v1/files/file-1", "POST /v1/fine-tunes/estimate-price", "GET /v1/fine-tunes", CREATE,
    "GET /v1/fine-tunes/ft-1", "GET /v1/fine-tunes/ft-1/events",
)  # fmt: skip
"""Every request that a job takes."""


def set_surroundings(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """A key, and nothing else that the package would read."""
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setenv("TOGETHER_DISABLE_TQDM", "true")
    for name in ("TOGETHER_BASE_URL", "TOGETHER_CUSTOM_HEADERS", "TOGETHER_LOG", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(directory)


def arguments(method: Method, url: str, directory: Path, flags: str, **changes: Any) -> argparse.Namespace:
    """What the train command parses."""
    parser = argparse.ArgumentParser()
    add_service_flags(parser)
    args = parser.parse_args(["--backend", "together", "--service-url", url, "--poll-seconds", "0.01", *flags.split()])
    data = directory / f"{method}.jsonl"
    if not data.exists():
        write(data, ROWS[method])
    settings = {"epochs": 2, "batch_size": "max", "learning_rate": 1e-5, "seed": 3, "suffix": "mine", "model": "base/m"}
    lora = {"lora": True, "lora_r": None, "lora_alpha": None}
    places = {"dataset": data, "output_dir": directory / "run", "resume": False}
    vars(args).update({**settings, **lora, **places, **({"beta": 0.2} if method == "dpo" else {}), **changes})
    return args


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass
class Runner:
    """The command, as the train command calls it; keywords replace what it would have parsed."""

    server: FineTuningServer
    directory: Path

    def __call__(self, method: Method = "sft", flags: str = "--yes --watch", **changes: Any) -> int:
        return run_service_job(method, arguments(method, self.server.url, self.directory, flags, **changes))

    @property
    def record(self) -> JobRecord:
        found = JobDirectory(self.directory / "run").record()
        assert found is not None
        return found

"""GSM8K from the hub: fetched once from a server that plays it, and taken from the library's cache after that."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Loopback, QuietHandler

pytest.importorskip("datasets", reason="needs the extra 'train'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
COMMIT = "a" * 40
README = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
---
"""


def parquet(rows: int) -> bytes:
    from datasets import Dataset

    made = io.BytesIO()
    Dataset.from_dict({"question": ["How much?"] * rows, "answer": ["It is 2.\n#### 2"] * rows}).to_parquet(made)
    return made.getvalue()


class Hub(Loopback):
    """One data set, as the hub has it."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        files = {"README.md": README}
        self.files = files | {f"main/{name}-00000-of-00001.parquet": parquet(rows) for name, rows in PARTS.items()}


PARTS = {"train": 3, "test": 2}


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        hub: Hub = self.server.owner
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/datasets/openai/gsm8k/tree/{COMMIT}"):
            self._say(_tree(hub.files, "main" if path.endswith("/main") else ""))
        elif path.startswith("/api/datasets/openai/gsm8k"):
            siblings = [{"rfilename": name} for name in hub.files]
            self._say({"id": "openai/gsm8k", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif content := hub.files.get(path.partition("/resolve/")[2].partition("/")[2]):
            self._send(200, content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _say(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """What lies in a folder, or at the root, where the folder is an entry itself."""
    found: list[dict[str, Any]] = [
        {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
        for name, content in files.items()
        if name.rpartition("/")[0] == folder
    ]
    return found if folder else [*found, {"type": "directory", "path": "main", "size": 0, "oid": COMMIT}]


def show(home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "REPO_AGENT_MIRROR"))}
    command = [sys.executable, str(ROOT / "repo_agent.py"), "suites", "show", "gsm8k"]
    return subprocess.run(command, env=kept | {"HF_HOME": str(home)} | env, capture_output=True, text=True, timeout=120)


def test_gsm8k_is_fetched_from_the_hub_once(tmp_path: Path) -> None:
    with Hub() as hub:
        fetched = show(tmp_path, HF_ENDPOINT=hub.origin)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.endswith("5 questions\n") and "test-00001" in fetched.stdout
    again = show(tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout == fetched.stdout
    assert show(tmp_path / "empty", HF_HUB_OFFLINE="1").returncode == 2

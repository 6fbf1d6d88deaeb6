"""A loopback server that plays the Hugging Face hub: what making a model repository and uploading a folder need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """One repository at most; `files` is what was committed to it."""

    daemon_threads = True

    def __init__(self, private: bool | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private = private
        """Of the repository; None: there is none yet."""
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        """Large files, by their digest."""
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub(private: bool | None = None) -> Iterator[Hub]:
    server = Hub(private)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._note_token()
        self._answer({"id": "me/model", "private": self.server.private, "tags": [], "siblings": []})

    def do_PUT(self) -> None:
        content = self._body()
        self.server.stored[self.path.rsplit("/", 1)[-1]] = content
        self._answer({})

    def do_POST(self) -> None:
        self._note_token()
        body = self._body()
        routes = {
            "/api/repos/create": self._create,
            "/api/validate-yaml": lambda asked: self._answer({"errors": [], "warnings": []}),
            "/api/models/me/model/preupload/main": self._preupload,
            "/me/model.git/info/lfs/objects/batch": self._batch,
        }
        if self.path == "/api/models/me/model/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            routes[self.path](json.loads(body))

    def _create(self, asked: dict[str, Any]) -> None:
        there = self.server.private is not None
        if not there:
            self.server.private = asked["visibility"] == "private"
        self._answer({"url": f"{self.server.address}/me/model"}, 409 if there else 200)

    def _preupload(self, asked: dict[str, Any]) -> None:
        large = {True: "lfs", False: "regular"}
        paths = [each["path"] for each in asked["files"]]
        modes = [{"path": path, "uploadMode": large[path.endswith(".safetensors")]} for path in paths]
        self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def _batch(self, asked: dict[str, Any]) -> None:
        to = f"{self.server.address}/upload"
        objects = [
            {**each, "actions": {"upload": {"href": f"{to}/{each['oid']}", "header": {}}}} for each in asked["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.server.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.server.files[value["path"]] = content
        self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.address}/me/model/commit/0"})

    def _note_token(self) -> None:
        self.server.tokens.add(self.headers.get("authorization", ""))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

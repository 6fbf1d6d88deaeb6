"""The viewer over HTTP on this machine alone: the page, and the blocks when it asks for them."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from eval.viewer.packing import Packed
from eval.viewer.page import page

HOST = "127.0.0.1"
_BLOCK = re.compile(r"/blocks/(\d{1,9})")
Answer = tuple[str, bytes]


class ViewerServer(ThreadingHTTPServer):
    """Serves packed runs; `port` 0 takes a free one. A context manager."""

    daemon_threads = True

    def __init__(self, data: Packed, port: int) -> None:
        self._data, self._page = data, "".join(page(None)).encode()
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str, host: str) -> Answer | None:
        """The kind and the bytes of what stands at a path; None where nothing does.

        A request under another host's name is another page's that was made to point here: it gets nothing.
        """
        if host not in (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"):
            return None
        if path == "/":
            return "text/html; charset=utf-8", self._page
        if path == "/index":
            return "application/octet-stream", self._data.index
        found = _BLOCK.fullmatch(path)
        if found and int(found[1]) < len(self._data.blocks):
            return "application/octet-stream", self._data.blocks[int(found[1])]
        return None


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer

    def do_GET(self) -> None:
        found = self.server.answer(self.path, self.headers.get("Host", ""))
        if found is None:
            self.send_error(404)
            return
        kind, body = found
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *_ALWAYS):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A request is no news."""


_ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"))

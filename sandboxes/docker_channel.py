"""The attached standard streams of a container, as a channel to the guest in it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from sandboxes.base import SandboxError

FAULTS = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
"""How an engine fails."""
EVENT_S = 2.0
"""Wall-clock seconds that an event of the engine may be late."""


@contextlib.contextmanager
def engine_faults(what: str) -> Iterator[None]:
    """Faults of the engine, told apart from everything else in one place."""
    try:
        yield
    except docker.errors.ImageNotFound:
        raise
    except FAULTS as error:
        raise SandboxError(f"Docker could not {what}: {said(error)}") from error


def said(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error).strip() or type(error).__name__
    return text.splitlines()[0]


class ContainerChannel:
    """Starts a created container and speaks with it; Docker frames the output by stream."""

    def __init__(self, client: docker.DockerClient, container: str) -> None:
        self._client, self._container = client, container
        self._output, self._errors = bytearray(), bytearray()
        self._open = True
        self._in_use = threading.Lock()
        try:
            streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            self._attached = client.api.attach_socket(container, params=streams)
            self._socket = getattr(self._attached, "_sock", self._attached)  # over TLS it is the socket itself
            client.api.start(container)
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        try:
            with self._in_use:
                self._socket.settimeout(60)
                self._socket.sendall(data)
        except OSError as error:
            raise self._lost() from error

    def receive(self, size: int, deadline: float) -> bytes:
        with self._in_use:
            return self._receive(size, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        while len(self._output) < size:
            kind, length = struct.unpack(">B3xI", self._read(8, deadline))
            (self._errors if kind == 2 else self._output).extend(self._read(length, deadline))
            del self._errors[:-4096]
        data = bytes(self._output[:size])
        del self._output[:size]
        return data

    def _read(self, size: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(min(size, 1 << 20))
            except TimeoutError as error:
                raise SandboxError("the container did not answer in time") from error
            except OSError as error:
                raise self._lost() from error
            if not data:
                raise self._lost()
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _lost(self) -> SandboxError:
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return SandboxError("the container ended unexpectedly" + (f": {lines[-1]}" if lines else ""))

    def ran_out_of_memory(self, since: float) -> bool:
        """Whether the engine saw that; its event may come a moment after the container's end."""
        chosen = {"container": self._container, "event": "oom"}
        until = datetime.now(UTC) + timedelta(seconds=EVENT_S)
        with contextlib.suppress(*FAULTS):
            events = self._client.api.events(since=int(since), until=until, filters=chosen, decode=True)
            try:
                return any(True for _ in events)
            finally:
                events.close()
        return False

    def close(self) -> None:
        """Remove the container; a read in another thread then ends with SandboxError."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(AttributeError, OSError):  # wakes up a thread that is reading
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(*FAULTS):  # auto-removal may have been faster
            self._client.api.remove_container(self._container, v=True, force=True)
        with self._in_use, contextlib.suppress(AttributeError, OSError):  # its descriptor is not taken away before
            self._attached.close()
            self._socket.close()

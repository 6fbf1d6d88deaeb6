"""Images as a file, for machines without a network: `docker save` and `docker load`, with a look at what is loaded."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import docker

from sandboxes.docker_channel import engine_faults
from sandboxes.image_store import spec_of
from sandboxes.python_spec import PythonSpec

CHUNK_BYTES = 2**20
SMALL_BYTES = 4 * 2**20
"""The largest member of an archive that may be a description."""
OnBytes = Callable[[int], None]
"""Told of how many bytes have passed."""


class BadArchive(Exception):
    """A file that is not what `export` writes; in one line."""


def export_images(client: docker.DockerClient, names: Sequence[str], path: Path, on_bytes: OnBytes) -> None:
    """Write images to one file, with what they share once; compressed where it is called .gz. No file is half written.

    Raises SandboxError, or OSError where the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with gzip.open(part, "wb", compresslevel=1) if path.suffix == ".gz" else open(part, "wb") as file:
            for data in _saved(client, names, on_bytes):
                file.write(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _saved(client: docker.DockerClient, names: Sequence[str], on_bytes: OnBytes) -> Iterator[bytes]:
    done = 0
    api = client.api
    with engine_faults("save images"):
        url = f"{api.base_url}/v{api.api_version}/images/get"
        with api.get(url, params={"names": list(names)}, stream=True, timeout=api.timeout) as answer:
            answer.raise_for_status()
            for data in answer.iter_content(CHUNK_BYTES):
                done += len(data)
                on_bytes(done)
                yield data


def import_images(client: docker.DockerClient, path: Path, on_bytes: OnBytes) -> list[PythonSpec]:
    """Load a file that `export_images` has written, once all of it has been looked at.

    Raises:
        BadArchive: it is torn, or holds anything else than images of the fingerprints that their names say.
    """
    specs = read_archive(path)
    with engine_faults("load images"), open(path, "rb") as file:
        client.images.load(_Counted(file, on_bytes))
    return specs


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file, self._on_bytes, self._done = file, on_bytes, 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        data = self._file.read(max(size, CHUNK_BYTES))
        self._done += len(data)
        self._on_bytes(self._done)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read, b"")


def read_archive(path: Path) -> list[PythonSpec]:
    """The specs of all images in a file. Raises BadArchive."""
    try:
        members, described = _members(path)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadArchive(f"{path} is torn, or no archive: {error}") from error
    try:
        manifest = json.loads(described["manifest.json"])
        return [_checked(entry, members, described) for entry in manifest]
    except (KeyError, TypeError, IndexError, json.JSONDecodeError):
        raise BadArchive(f"{path} is torn, or holds no images") from None
    except ValueError as error:
        raise BadArchive(f"{path}: {error}") from error


def _members(path: Path) -> tuple[set[str], dict[str, bytes]]:
    """All names, and what those hold that are small."""
    names, small = set(), {}
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            names.add(member.name)
            file = tar.extractfile(member) if member.isfile() and member.size <= SMALL_BYTES else None
            if file:
                small[member.name] = file.read()
    return names, small


def _checked(entry: Mapping[str, Any], members: set[str], described: Mapping[str, bytes]) -> PythonSpec:
    """The spec of one image. Raises ValueError."""
    tags = entry["RepoTags"] or ["an image without a name"]
    labels = json.loads(described[entry["Config"]])["config"]["Labels"] or {}
    try:
        spec = spec_of(labels)
    except ValueError as error:
        raise ValueError(f"{tags[0]} is no image of ours: {error}") from None
    if tags != [spec.image]:
        raise ValueError(f"{tags[0]} is named wrongly: it is {spec.image}")
    if missing := sorted(set(entry["Layers"]) - members):
        raise ValueError(f"{spec.image} is torn: {len(missing)} of its layers are missing")
    return spec

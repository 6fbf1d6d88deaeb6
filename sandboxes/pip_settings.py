"""What the host's pip is told about where packages come from, for a pip inside a build container.

pip's own configuration is asked, so that files and environment variables count as they do here. Only what says how to
reach packages is handed on; a place on this machine's disk does not exist inside, and is left out.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxes.base import SandboxError

REACHING = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "retries", "no-index")
"""Options of pip that are handed on, as PIP_* variables."""
PLACES = ("index-url", "extra-index-url", "find-links")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
ASKING_S = 60


@dataclass(frozen=True)
class PipSettings:
    """Variables for a pip inside, and the certificates that it must trust (PEM; empty: its own)."""

    environment: Mapping[str, str]
    certificates: bytes = b""

    def with_certificates_at(self, path: str) -> dict[str, str]:
        """The variables where the certificates lie in a file inside."""
        trusted = dict.fromkeys(CERTIFICATES, path) if self.certificates else {}
        return {**self.environment, **trusted}


def host_settings() -> PipSettings:
    """The settings in force on this machine. Raises SandboxError where its pip cannot say them."""
    options = read_listing(_listing())
    environment = {key: value for key, value in os.environ.items() if key.upper() in PROXIES}
    for name in REACHING:
        value = _reachable(options[name]) if name in PLACES and name in options else options.get(name, "")
        if value:
            environment[f"PIP_{name.replace('-', '_').upper()}"] = value
    named = [options.get("cert", ""), *(os.environ.get(name, "") for name in CERTIFICATES)]
    found = next((Path(path) for path in named if path and Path(path).is_file()), None)
    return PipSettings(environment, found.read_bytes() if found else b"")


def _listing() -> str:
    argv = [sys.executable, "-m", "pip", "config", "list"]
    try:
        asked = subprocess.run(argv, capture_output=True, text=True, timeout=ASKING_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"this machine's pip does not say its settings: {error}") from error
    if "No module named pip" in asked.stderr:  # an environment without pip: what pip would read from variables
        return "".join(
            f":env:.{key[4:].lower().replace('_', '-')}={value!r}\n"
            for key, value in os.environ.items()
            if key.startswith("PIP_")
        )
    if asked.returncode:
        raise SandboxError(f"this machine's pip does not say its settings: {asked.stderr.strip()[-200:]}")
    return asked.stdout


def read_listing(listing: str) -> dict[str, str]:
    """Options as `pip config list` prints them, those of `install` and of the environment over those for all."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in sections:
            sections[section][name.replace("default-timeout", "timeout")] = str(ast.literal_eval(value))
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def _reachable(places: str) -> str:
    return " ".join(place for place in places.split() if place.lower().startswith(("http://", "https://")))

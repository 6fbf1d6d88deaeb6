"""The page: one HTML file out of the parts in `assets`, with the data in it or beside it.

What a trace holds is hostile. It comes into the page as base64 of gzip, which cannot end an element, and leaves it as
text nodes; the policy in the head lets nothing run but the one script and the one style sheet whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files

from eval.viewer.packing import Packed

_ENTRY, _STYLES = "main.js", ("theme.css", "layout.css", "rollout.css")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)


def page(data: Packed | None) -> Iterator[str]:
    """The page in pieces.

    Args:
        data: what stands in the page; None for a page that fetches it from where it was served.
    """
    script, style = bundle(), "\n".join(map(_asset, _STYLES))
    before, after = _asset("page.html").split("<!-- data -->\n")
    connect = "'none'" if data else "'self'"
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    yield before.replace("{{policy}}", policy).replace("{{style}}", style)
    if data:
        yield _block("index", data.index)
        for number, block in enumerate(data.blocks):
            yield _block(f"block-{number}", block)
    yield after.replace("{{script}}", script)


def bundle() -> str:
    """The modules as one, each behind those that it imports: a page from disk can import no other file."""
    parts: dict[str, str] = {}
    _gather(_ENTRY, parts)
    return "\n" + "".join(parts.values())


def _gather(name: str, parts: dict[str, str]) -> None:
    text = _asset(name)
    for imported in _IMPORT.findall(text):
        if imported not in parts:
            _gather(imported, parts)
    parts[name] = f"// {name}\n{_EXPORT.sub('', _IMPORT.sub('', text))}"


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(name: str, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return f'<script type="application/octet-stream" id="{name}">{encoded}</script>\n'


def _asset(name: str) -> str:
    return (files("eval.viewer") / "assets" / name).read_text(encoding="utf-8")

"""The viewer without a browser: what is packed, how it is found again, and what the page's head lets run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import pytest

from eval.view_cli import main
from eval.viewer.documents import document
from eval.viewer.packing import BLOCK_CHARS, pack, packed
from eval.viewer.page import bundle, page
from eval.viewer.serve import ViewerServer
from eval.viewer.sources import run_sources
from harness.errors import UsageError
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES
from tests.viewer_world import PATH, SOURCE, Said, World, call, family, final, header, hostile, many, ordinary


def unpacked(data: bytes) -> Any:
    return json.loads(gzip.decompress(data))


def index_of(run: Path) -> tuple[Any, list[list[Any]]]:
    """The only run of an index, its rows by column name; and the blocks."""
    data = pack(run_sources([run]))
    index = unpacked(data.index)
    (found,) = index["runs"]
    found["rows"] = [dict(zip(index["columns"], row, strict=True)) for row in found["rows"]]
    return found, [unpacked(block) for block in data.blocks]


def documents(run: Path) -> dict[str, Any]:
    found, blocks = index_of(run)
    return {row["rollout"]: blocks[row["block"]][row["place"]] for row in found["rows"]}


def written(tmp_path: Path, *steps: Said) -> list[Any]:
    """The steps of a rollout, as the viewer has them."""
    world = World(tmp_path / "run")
    world.rollout(header("ledger", 0), list(steps))
    world.close()
    steps_: list[Any] = documents(tmp_path / "run")["ledger#0"]["steps"]
    return steps_


def test_every_row_leads_to_the_document_of_its_rollout(tmp_path: Path) -> None:
    many(tmp_path / "run", 60)
    found = documents(tmp_path / "run")
    assert len(found) == 60
    assert all(rollout == each["rollout"] for rollout, each in found.items())


def test_blocks_are_bounded_in_size_and_compressed(tmp_path: Path) -> None:
    many(tmp_path / "run", 60)
    blocks = pack(run_sources([tmp_path / "run"])).blocks
    sizes = [len(gzip.decompress(block)) for block in blocks]
    assert len(blocks) > 1
    assert max(sizes) < 1.1 * BLOCK_CHARS
    assert sum(map(len, blocks)) < sum(sizes) / 10


def test_same_run_gives_the_same_blocks(tmp_path: Path) -> None:
    many(tmp_path / "run", 8)
    assert pack(run_sources([tmp_path / "run"])).blocks == pack(run_sources([tmp_path / "run"])).blocks


def test_steps_that_a_fork_shares_are_stored_once(tmp_path: Path) -> None:
    family(tmp_path / "run")
    found = documents(tmp_path / "run")
    fork = found["ledger#0@s0002.1"]
    assert fork["fork"] == {"rollout": "ledger#0", "step": "s0001"}
    assert fork["prompt"] == []
    assert fork["steps"][0]["id"] == "s0002"


def test_figures_leave_forks_out(tmp_path: Path) -> None:
    family(tmp_path / "run")
    run, _ = index_of(tmp_path / "run")
    assert (run["summary"]["solved"], run["summary"]["scored"], len(run["rows"])) == (1, 2, 4)


def test_pairs_and_step_scores_are_in_the_data(tmp_path: Path) -> None:
    family(tmp_path / "run")
    run, _ = index_of(tmp_path / "run")
    (pair,) = run["pairs"]
    assert (pair["pair"], pair["rollout"], pair["step"]) == ("0123abcd", "ledger#0", "s0001")
    rows = {row["rollout"]: row for row in run["rows"]}
    assert rows["ledger#0"]["curve"] == [[0, 3, 12], [3, 7, 12]]


def test_write_is_compared_with_what_was_read_before(tmp_path: Path) -> None:
    changed = SOURCE.replace("+ 7\n", "+ 8\n")
    read = Said(call("read_file", rel_path=PATH), f"[tool_result]\n{SOURCE}")
    write = Said(
        call("write_file", rel_path=f"./{PATH}", content=changed), f"[tool_result]\nreplaced {PATH} (90 lines)"
    )
    diff = written(tmp_path, read, write)[1]["diff"]
    assert diff["against"] == "seen"
    assert [line for line in diff["lines"] if line[0] in "+-"] == [
        "-    return ledger[7] + 7",
        "+    return ledger[7] + 8",
    ]


def test_second_write_is_compared_with_the_first(tmp_path: Path) -> None:
    first = Said(call("write_file", rel_path="a.py", content="one\n"), "[tool_result]\ncreated a.py (1 lines)")
    second = Said(call("write_file", rel_path="a.py", content="two\n"), "[tool_result]\nreplaced a.py (1 lines)")
    one, two = written(tmp_path, first, second)
    assert (one["diff"]["against"], one["diff"]["lines"][1:]) == ("created", ["+one"])
    assert two["diff"]["lines"][1:] == ["-one", "+two"]


def test_write_over_a_file_that_was_never_read_has_no_diff(tmp_path: Path) -> None:
    write = Said(call("write_file", rel_path="a.py", content="one\n"), "[tool_result]\nreplaced a.py (1 lines)")
    assert written(tmp_path, write)[0]["diff"] == {"path": "a.py", "against": "unseen", "lines": None}


def test_hostile_texts_survive_packing(tmp_path: Path) -> None:
    hostile(tmp_path / "run")
    (found,) = documents(tmp_path / "run").values()
    assert "\x00 NUL \u202egnp.exe" in found["steps"][0]["observation"]
    assert "\\ud800 half" in found["steps"][2]["completion"]["text"]
    assert len(found["steps"][1]["observation"]) > 5_000_000


def test_halves_of_characters_survive_packing() -> None:
    assert unpacked(packed({"text": "\ud800 half \x00"})) == {"text": "\ud800 half \x00"}


def test_hostile_texts_never_stand_in_the_page_as_they_are(tmp_path: Path) -> None:
    hostile(tmp_path / "run")
    text = "".join(page(pack(run_sources([tmp_path / "run"]))))
    assert "window.hurt" not in text
    assert re.findall(r"<script\b[^>]*>", text)[-1] == '<script type="module">'


def test_policy_names_the_hashes_of_the_script_and_the_style(tmp_path: Path) -> None:
    family(tmp_path / "run")
    text = "".join(page(pack(run_sources([tmp_path / "run"]))))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    style, script = (re.search(rf"<{tag}>(.*?)</", text, re.DOTALL) for tag in ("style", 'script type="module"'))
    assert policy and style and script
    for part in (style[1], script[1]):
        assert base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() in policy[1]
    assert "default-src 'none'" in policy[1] and "connect-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_modules_never_read_a_text_as_markup_or_code() -> None:
    script = bundle()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
    assert "import " not in re.sub(r"//.*", "", script)
    assert "</script" not in script and "<!--" not in script


def test_secrets_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "run")
    world.rollout(header("ledger", 0), [Said(final("the key is sk-very-secret-1"), None)])
    world.close()
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-1")
    assert documents(tmp_path / "run")["ledger#0"]["steps"][0]["call"]["args"] == {"summary": "the key is [redacted]"}


def test_unfinished_rollout_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    many(tmp_path / "run", 1)
    log = tmp_path / "run" / TRACES
    kept = log.read_bytes().splitlines(keepends=True)[:4]
    log.write_bytes(b"".join(kept) + b'{"event":"outc')
    run, (block,) = index_of(tmp_path / "run")
    assert (run["rows"][0]["stop"], run["rows"][0]["solved"], run["torn_bytes"]) == (None, None, 14)
    assert block[0]["pending"] is not None


def test_document_leaves_out_token_ids(tmp_path: Path) -> None:
    many(tmp_path / "run", 1)
    with TraceLog(tmp_path / "run") as log:
        (trace,) = log
    assert "token_ids" not in json.dumps(document(trace))


def test_directory_of_runs_is_taken_as_its_runs(tmp_path: Path) -> None:
    for name in ("a/seed0", "a/seed1", "b/seed0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        family(tmp_path / name)
    assert [source.name for source in run_sources([tmp_path])] == ["a/seed0", "a/seed1", "b/seed0"]
    assert [source.name for source in run_sources([tmp_path / "a", tmp_path / "a" / "seed0"])] == ["seed0", "seed1"]


def test_directory_without_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run directory"):
        run_sources([tmp_path])
    with pytest.raises(UsageError, match="no run directory"):
        run_sources([tmp_path / "missing"])


def test_command_writes_one_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family(tmp_path / "run")
    assert main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "view.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "4 rollouts" in capsys.readouterr().out


def test_page_never_overwrites_a_file_of_the_run(tmp_path: Path) -> None:
    family(tmp_path / "run")
    with pytest.raises(UsageError, match="would overwrite"):
        main([str(tmp_path / "run"), "--out", str(tmp_path / "run" / TRACES)])


@pytest.fixture
def server(tmp_path: Path) -> Any:
    world = World(tmp_path / "run")
    world.rollout(header("ledger", 0), ordinary(random.Random(0), True), True)
    world.close()
    with ViewerServer(pack(run_sources([tmp_path / "run"])), 0) as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def got(address: str, host: str = "") -> bytes:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request) as answer:
        data: bytes = answer.read()
        return data


def test_server_gives_page_index_and_blocks(server: ViewerServer) -> None:
    text = got(server.address).decode()
    assert "connect-src 'self'" in text and 'id="index"' not in text
    assert unpacked(got(f"{server.address}index"))["runs"][0]["name"] == "run"
    assert unpacked(got(f"{server.address}blocks/0"))[0]["rollout"] == "ledger#0"


@pytest.mark.parametrize("path", ["blocks/1", "blocks/../index", "traces.jsonl", "../run.json"])
def test_server_gives_nothing_else(server: ViewerServer, path: str) -> None:
    with pytest.raises(HTTPError, match="404"):
        got(server.address + path)


def test_server_refuses_requests_under_another_name(server: ViewerServer) -> None:
    with pytest.raises(HTTPError, match="404"):
        got(f"{server.address}index", "evil.example")

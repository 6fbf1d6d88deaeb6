"""The data card: that it says where rows come from, what is in them and what is not, and nothing that it should not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.trace_store import TraceStore
from tests.conftest import NOT_REPLAYABLE
from tests.sft_logs import FINAL, LIST, READ, log, record, steps
from trainers.card import atomic_file, card_paths, leakage_words
from trainers.sft_extract_cli import main
from trainers.token_counts import TokenHistogram, token_counter


def carded(run: Path, *flags: str) -> tuple[dict[str, Any], str]:
    """Both forms of the card of an extraction."""
    output = run.parent / "rows.jsonl"
    assert main(["--trace-dir", str(run), "--output", str(output), *flags]) == 0
    found, text = (path.read_text(encoding="utf-8") for path in card_paths(output))
    return json.loads(found), text


def test_it_counts_rows_by_task_tool_policy_and_split(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "a#0", steps(LIST, READ, FINAL), policy="reference", oracle=True, split="")
        record(store, "b#0", steps(READ, FINAL), policy="litellm", model="m/7b")
    card, text = carded(run)
    assert card["rows"] == 5
    assert card["counts"] == {
        "rows by task": {"a": 3, "b": 2},
        "rows by policy": {"litellm m/7b": 2, "reference (oracle)": 3},
        "rows by split": {"train": 2, "unknown": 3},
        "trained messages by tool": {"final": 2, "list_files": 1, "read_file": 2},
    }
    assert sum(card["tokens"]["histogram"].values()) == 5
    assert "| reference (oracle) | 3 |" in text
    assert "3 rows come from suites without a split" in text


def test_it_names_the_sources_with_size_hash_and_configuration(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST))
    (run / "run.json").write_text(json.dumps({"config": {"suite": "demo", "seed": 3, "tasks": ["task"]}}))
    (run / NOT_REPLAYABLE).touch()
    card, text = carded(run)
    content = (run / "traces.jsonl").read_bytes()
    assert card["sources"] == [
        {
            "path": str(run / "traces.jsonl"),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "rollouts": 1,
            "torn_bytes": 0,
            "run": {"suite": "demo", "seed": 3, "tasks": ["task"]},
        }
    ]
    assert "run: suite demo, seed 3" in text


def test_it_holds_the_settings_and_the_reasons_why_things_were_left_out(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, READ, error=(1,)), steps(LIST))
    card, text = carded(run, "--max-tokens", "900")
    assert card["settings"]["require_success"] is True
    assert card["settings"]["max_tokens"] == 900
    assert card["dropped"] == {
        "steps": {"the tool answered with an error": 1},
        "rows": {"same messages and action as another row": 1},
    }
    assert "| the tool answered with an error | 1 |" in text
    assert "characters / 4" in card["tokens"]["counted"]


def test_it_is_the_same_for_the_same_inputs(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, READ))
    assert carded(run) == carded(run)


def test_secrets_in_the_command_line_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-abcdefgh12345")
    card, text = carded(log(tmp_path / "sk-abcdefgh12345" / "run", steps(LIST)))
    assert card["command"].startswith("repo-agent sft-extract --trace-dir ")
    assert "sk-abcdefgh12345" not in text + json.dumps(card)


def test_the_words_on_leakage_tell_the_three_cases_apart() -> None:
    assert leakage_words({"train": 3}, ()) == ("No row comes from a task of a test split.",)
    assert leakage_words({"test": 1}, ["b", "a"])[0].startswith("WARNING: rows from 2 tasks of a test split")
    assert "2 rows come from suites without a split" in leakage_words({"unknown": 2}, ())[1]


def test_a_file_is_at_its_place_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"


def test_a_place_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (Path("/dev/null"), tmp_path, tmp_path / "file" / "rows.jsonl"):
        with pytest.raises(UsageError, match="cannot write"), atomic_file(path):
            pass


def test_a_histogram_counts_each_row_in_the_narrowest_bin_that_holds_it() -> None:
    histogram = TokenHistogram()
    for tokens in (0, 1, 256, 257, 512, 1025):
        histogram.add(tokens)
    assert histogram.by_bin == {"<= 256": 3, "<= 512": 2, "<= 1024": 0, "<= 2048": 1}
    assert (histogram.total, histogram.longest) == (2051, 1025)


def test_the_estimate_is_a_quarter_of_the_characters_and_the_template() -> None:
    counter = token_counter(None)
    assert [counter(text) for text in ("", "é", "x" * 4, "x" * 5)] == [5, 6, 6, 7]


def test_a_file_that_is_no_tokenizer_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded"):
        token_counter(str(tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        token_counter(str(tmp_path / "other.json"))

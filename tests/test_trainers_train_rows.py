"""Files of training data as rows of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from harness.chat_template import ChatFormat
from harness.errors import UsageError
from harness.records import Message
from tests.training_world import ACTIONS, conversation, make_tiny, pair_row, step_row, write_rows
from trainers.formats import answer_row
from trainers.train_data import packed_forest, plain_forest
from trainers.train_model import load_tokenizer, locate
from trainers.train_rows import PairRow, StepRow, check_data, pair_weights, read_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_tokenizer(locate(str(make_tiny(tmp_path_factory.mktemp("models") / "tiny"))))


def _spelled(chat: ChatFormat, row: StepRow) -> tuple[str, str]:
    return chat.tokenizer.decode(row.prompt.tolist()), chat.tokenizer.decode(row.completion.tolist())


def _steps(path: Path, chat: ChatFormat, **settings: Any) -> list[StepRow]:
    check_data(path, "sft")
    return [row for row in read_rows(path, "sft", chat, 512, **settings).rows if isinstance(row, StepRow)]


def _weighted(step: int, *trained: int) -> dict[str, Any]:
    messages = [*conversation("t", step), {"role": "assistant", "content": ACTIONS[step]}]
    spoken = [message for message in messages if message["role"] == "assistant"]
    for number, message in enumerate(spoken):
        message["weight"] = int(number in trained)
    return {"messages": messages}


def test_a_step_is_what_the_policy_sees_and_must_say(tmp_path: Path, chat: ChatFormat) -> None:
    (row,) = _steps(write_rows(tmp_path / "a.jsonl", [step_row("t", 1)]), chat)
    seen = [Message.model_validate(message) for message in conversation("t", 1)]
    assert row.prompt.tolist() == chat.prompt_ids(seen)
    assert row.completion.tolist() == chat.action_ids(ACTIONS[1])
    assert _spelled(chat, row)[1] == ACTIONS[1] + "<|im_end|>"


def test_a_text_is_trained_as_it_is_played_without_a_template(tmp_path: Path, chat: ChatFormat) -> None:
    (row,) = _steps(write_rows(tmp_path / "a.jsonl", [{"prompt": "2 + 2?", "completion": " 4", "extra": 1}]), chat)
    assert _spelled(chat, row) == ("2 + 2?", " 4<|im_end|>")


def test_an_answer_to_a_question_is_trained_in_the_chat_template(tmp_path: Path, chat: ChatFormat) -> None:
    asked, said = Message(role="user", content="2 + 2?"), "<SOLUTION>4</SOLUTION>"
    (row,) = _steps(write_rows(tmp_path / "a.jsonl", [answer_row("q", [asked], said)]), chat)
    assert row.prompt.tolist() == chat.prompt_ids([asked])
    assert row.completion.tolist() == chat.action_ids(said)


def test_each_trained_message_of_a_trajectory_is_a_row(tmp_path: Path, chat: ChatFormat) -> None:
    rows = _steps(write_rows(tmp_path / "a.jsonl", [_weighted(3, 0, 1, 3)]), chat)
    alone = _steps(write_rows(tmp_path / "b.jsonl", [step_row("t", step) for step in (0, 1, 3)]), chat)
    assert [_spelled(chat, row) for row in rows] == [_spelled(chat, row) for row in alone]


def test_a_trajectory_without_weights_is_trained_on_every_action(tmp_path: Path, chat: ChatFormat) -> None:
    row = _weighted(2, 0, 1, 2)
    for message in row["messages"]:
        message.pop("weight", None)
    assert len(_steps(write_rows(tmp_path / "a.jsonl", [row]), chat)) == 3


def test_duplicates_are_kept(tmp_path: Path, chat: ChatFormat) -> None:
    assert len(_steps(write_rows(tmp_path / "a.jsonl", [step_row("t", 1)] * 3), chat)) == 3


def test_both_formats_of_pairs_are_the_same_rows(tmp_path: Path, chat: ChatFormat) -> None:
    row = pair_row("t", 2)
    other = {
        "input": {"messages": row["prompt"]},
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
    }
    files = [write_rows(tmp_path / f"{name}.jsonl", [each]) for name, each in (("a", row), ("b", other))]
    one, two = (read_rows(file, "dpo", chat, 512).rows[0] for file in files)
    assert isinstance(one, PairRow) and isinstance(two, PairRow)
    assert [part.tolist() for part in one.sequences] == [part.tolist() for part in two.sequences]
    assert one.chosen.tolist() == chat.action_ids(ACTIONS[2])


def test_a_longer_row_is_dropped_counted_and_never_cut(tmp_path: Path, chat: ChatFormat) -> None:
    path = write_rows(tmp_path / "a.jsonl", [step_row("t", step) for step in range(4)])
    lengths = [len(row.sequences[0]) for row in _steps(path, chat)]
    read = read_rows(path, "sft", chat, lengths[2])
    assert [len(row.sequences[0]) for row in read.rows] == lengths[:3]
    assert (read.dropped, read.longest, read.lines) == (1, lengths[2], 4)


def test_a_longer_row_is_refused_with_its_line_where_that_is_asked(tmp_path: Path, chat: ChatFormat) -> None:
    path = write_rows(tmp_path / "a.jsonl", [step_row("t", 0), step_row("t", 4)])
    with pytest.raises(UsageError, match=r"a\.jsonl:2: \d+ tokens, more than --max-length 150"):
        read_rows(path, "sft", chat, 150, refuse_longer=True)


def test_a_file_of_rows_that_are_all_too_long_is_refused(tmp_path: Path, chat: ChatFormat) -> None:
    path = write_rows(tmp_path / "a.jsonl", [step_row("t", 0)])
    with pytest.raises(UsageError, match=r"all 1 rows are over --max-length 10; the longest has"):
        read_rows(path, "sft", chat, 10)


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("sft", "", "the file is empty"),
        ("sft", "{", r":1: not JSON"),
        ("sft", json.dumps(step_row("t", 0)) + "\n[1]\n", r":2: not a JSON object"),
        ("sft", json.dumps(pair_row("t", 0)) + "\n", "holds pairs, train sft needs SFT rows .*train dpo"),
        ("dpo", json.dumps(step_row("t", 0)) + "\n", "holds SFT rows, train dpo needs pairs .*train sft"),
        ("sft", json.dumps({**step_row("t", 0), "completion": []}) + "\n", ":1: completion is not exactly one"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_remedy(tmp_path: Path, kind: Any, content: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UsageError, match=said):
        check_data(tmp_path / "a.jsonl", kind)


def test_a_template_that_refuses_a_conversation_is_named_with_the_line(tmp_path: Path, chat: ChatFormat) -> None:
    own = chat.tokenizer.chat_template
    chat.tokenizer.chat_template = "{{ raise_exception('no system here') }}"
    try:
        with pytest.raises(UsageError, match=r"a\.jsonl:1: .*no system here"):
            _steps(write_rows(tmp_path / "a.jsonl", [step_row("t", 0)]), chat)
    finally:
        chat.tokenizer.chat_template = own


def test_weights_follow_the_confidence_and_have_mean_one(tmp_path: Path, chat: ChatFormat) -> None:
    confidences = (0.75, 1.0, None, 0.5)
    rows = [pair_row("t", step, pair_confidence=each) for step, each in enumerate(confidences)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert pair_weights(path) == [0.5, 1.0, 1.0, 0.0]
    weights = [row.weight for row in read_rows(path, "dpo", chat, 512, weigh=True).rows]
    assert weights == pytest.approx([0.8, 1.6, 1.6, 0.0])
    assert [row.weight for row in read_rows(path, "dpo", chat, 512).rows] == [1, 1, 1, 1]


def test_the_records_beside_a_file_have_the_confidences_that_its_rows_lack(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [pair_row("t", 0), pair_row("t", 1)])
    assert pair_weights(path) == [1.0, 1.0]
    write_rows(tmp_path / "a.pairs.jsonl", [{"confidence": 0.95}, {"confidence": None}])
    assert pair_weights(path) == pytest.approx([0.9, 1.0])
    write_rows(tmp_path / "a.pairs.jsonl", [{"confidence": 0.95}])
    with pytest.raises(UsageError, match="has 1 records for 2 pairs: say --pair-weights none"):
        pair_weights(path)


def test_trees_hold_every_row_once_and_about_as_many_as_a_batch(tmp_path: Path, chat: ChatFormat) -> None:
    path = write_rows(tmp_path / "a.jsonl", [step_row(f"t{task}", step) for step in range(4) for task in range(3)])
    rows = read_rows(path, "sft", chat, 512).rows
    forest = packed_forest(rows, 4, 4096)
    assert sorted(index for tree in forest.trees for index in tree) == list(range(12))
    assert (len(forest.trees), forest.trees_per_batch, forest.rows_per_batch) == (3, 1, 4)
    assert packed_forest(rows, 12, 4096).rows_per_batch == 12
    assert plain_forest(rows, 5).rows_per_batch == 5
    with pytest.raises(UsageError, match="more than --max-packed-tokens 50"):
        packed_forest(rows, 4, 50)

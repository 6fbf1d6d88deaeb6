"""Row formats: what is trained, what is refused, the examples of docs/data.md, and the libraries that read the rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records import Message
from tools.protocol import call_text, final_text
from trainers.data_check import check_file
from trainers.formats import (
    READ_BY_TRL,
    RowFormat,
    Target,
    answer_row,
    inspect_row,
    preference_row,
    sft_row,
    trajectory_row,
)

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
SERVICES = (Target.TOGETHER, Target.OPENAI)
READ = call_text("read_file", rel_path="mean.py")
WRITE = call_text("write_file", rel_path="mean.py", content="def mean(values):\n    return sum(values) / len(values)\n")
LIST = call_text("list_files")
FINAL = final_text("The sum was divided by a fixed number; now it is divided by the count.")
CONVERSATION = (
    Message(role="system", content="You repair a Python repository. Every message you write is one JSON object."),
    Message(role="user", content="GOAL: mean([1, 2, 3]) must be 2"),
    Message(role="assistant", content=READ),
    Message(role="user", content="[tool_result]\ndef mean(values):\n    return sum(values) / 2\n"),
    Message(role="assistant", content=WRITE),
    Message(role="user", content="[tool_result]\nwritten: mean.py\n[TESTS PASS] 1 passed"),
    Message(role="assistant", content=FINAL),
)
FENCED = Message(role="assistant", content=f"```json\n{READ}\n```")
ANSWER = "The mean is the sum over the count."
EXAMPLES: dict[str, dict[str, Any]] = {
    "SFT, step, Together and OpenAI": sft_row(CONVERSATION[:4], WRITE, Target.TOGETHER),
    "SFT, step, TRL": sft_row(CONVERSATION[:4], WRITE, Target.TRL),
    "SFT, trajectory, Together and OpenAI": trajectory_row(CONVERSATION, (False, True, True), Target.TOGETHER),
    "SFT, trajectory, TRL": trajectory_row(CONVERSATION, (True, True, True), Target.TRL),
    "SFT, answer, TRL": answer_row("q1", CONVERSATION[:2], ANSWER),
    "SFT, text, TRL": answer_row("q1", CONVERSATION[1:2], ANSWER, raw=True),
    "Preference, Together and OpenAI": preference_row(CONVERSATION[:4], WRITE, LIST, Target.TOGETHER),
    "Preference, TRL": preference_row(CONVERSATION[:4], WRITE, LIST, Target.TRL, {"pair_confidence": 0.9}),
}


def weights(row: dict[str, Any]) -> list[int]:
    return [message["weight"] for message in row["messages"] if message["role"] == "assistant"]


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_may_be_any_text_but_none(raw: bool) -> None:
    assert inspect_row(answer_row("q", CONVERSATION[1:2], "42", raw)).faults == ()
    with pytest.raises(ValueError, match="the content is empty"):
        answer_row("q", CONVERSATION[1:2], " ", raw)


def test_without_a_question_a_completion_is_an_action() -> None:
    row = {**EXAMPLES["SFT, answer, TRL"]}
    del row["question_id"]
    assert "not strictly one protocol object" in inspect_row(row).faults[0]


@pytest.mark.parametrize("target", SERVICES)
def test_a_step_trains_its_action_and_no_earlier_message(target: Target) -> None:
    row = sft_row(CONVERSATION[:6], FINAL, target)
    assert weights(row) == [0, 0, 1]
    assert row["messages"][-1]["content"] == FINAL
    assert list(row) == ["messages"]


def test_a_step_for_trl_is_a_prompt_and_one_completion() -> None:
    row = sft_row(CONVERSATION[:4], WRITE, Target.TRL)
    assert row["prompt"] == [message.model_dump() for message in CONVERSATION[:4]]
    assert row["completion"] == [{"role": "assistant", "content": WRITE}]


@pytest.mark.parametrize("target", SERVICES)
def test_a_trajectory_trains_the_messages_that_are_flagged(target: Target) -> None:
    assert weights(trajectory_row(CONVERSATION, (True, False, True), target)) == [1, 0, 1]


def test_a_malformed_message_is_not_trained_whatever_its_flag() -> None:
    conversation = (*CONVERSATION[:2], FENCED, *CONVERSATION[3:])
    assert weights(trajectory_row(conversation, (True, True, True), Target.OPENAI)) == [0, 1, 1]


def test_a_trajectory_for_trl_has_no_weights() -> None:
    row = trajectory_row(CONVERSATION, (True, True, True), Target.TRL)
    assert row == {"messages": [message.model_dump() for message in CONVERSATION]}


@pytest.mark.parametrize(
    ("conversation", "flags"),
    [(CONVERSATION, (True, False, True)), ((*CONVERSATION[:2], FENCED, *CONVERSATION[3:]), (True, True, True))],
    ids=["by flag", "malformed"],
)
def test_trl_is_refused_a_trajectory_with_a_message_that_may_not_be_trained(
    conversation: tuple[Message, ...], flags: tuple[bool, ...]
) -> None:
    with pytest.raises(ValueError, match="TRL cannot express"):
        trajectory_row(conversation, flags, Target.TRL)


@pytest.mark.parametrize("target", Target)
def test_a_trajectory_ends_with_its_last_assistant_message(target: Target) -> None:
    row = trajectory_row(CONVERSATION[:6], (True, True), target)
    assert row["messages"][-1]["content"] == WRITE


@pytest.mark.parametrize("target", SERVICES)
def test_a_pair_for_a_service_has_three_columns_whatever_is_known_of_it(target: Target) -> None:
    row = preference_row(CONVERSATION[:4], WRITE, LIST, target, {"pair_confidence": 0.9})
    assert list(row) == ["input", "preferred_output", "non_preferred_output"]
    assert row["preferred_output"] == [{"role": "assistant", "content": WRITE}]
    assert row["non_preferred_output"] == [{"role": "assistant", "content": LIST}]


def test_a_pair_for_trl_carries_extra_columns() -> None:
    row = preference_row(CONVERSATION[:4], WRITE, LIST, Target.TRL, {"pair_confidence": 0.9})
    assert list(row) == ["prompt", "chosen", "rejected", "pair_confidence"]


@pytest.mark.parametrize("name", sorted(READ_BY_TRL))
def test_an_extra_column_with_a_meaning_to_trl_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has a meaning to TRL"):
        preference_row(CONVERSATION[:4], WRITE, LIST, Target.TRL, {name: 1})


@pytest.mark.parametrize("target", Target)
def test_a_rejected_message_may_be_malformed_and_a_chosen_one_not(target: Target) -> None:
    assert inspect_row(preference_row(CONVERSATION[:4], WRITE, FENCED.content, target)).malformed_rejected
    with pytest.raises(ValueError, match="not strictly one protocol object: code_fence"):
        preference_row(CONVERSATION[:4], FENCED.content, WRITE, target)


SYSTEM, GOAL, CALL = CONVERSATION[:3]


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("prefix", "action", "fault"),
    [
        ((), READ, "empty|is the assistant's"),
        ((SYSTEM, GOAL, CALL), WRITE, "assistant message|in a row"),
        ((GOAL, GOAL), READ, "two messages of role 'user' in a row"),
        ((GOAL, CALL, SYSTEM), READ, "a system message that is not the first"),
        ((SYSTEM, Message(role="user", content=" ")), READ, "the content is empty"),
        ((SYSTEM, GOAL), "", "the content is empty"),
        ((SYSTEM, GOAL), "I think", "not strictly one protocol object: not_json"),
        ((SYSTEM, GOAL), f'{{"type": "final", "summary": "{chr(0xD800)}"}}', "half of a surrogate pair"),
    ],
)
def test_a_step_that_breaks_a_rule_is_refused(
    prefix: tuple[Message, ...], action: str, fault: str, target: Target
) -> None:
    with pytest.raises(ValueError, match=fault):
        sft_row(prefix, action, target)


@pytest.mark.parametrize("target", SERVICES)
def test_a_trajectory_of_which_nothing_may_be_trained_is_refused(target: Target) -> None:
    with pytest.raises(ValueError, match="no assistant message is trained"):
        trajectory_row(CONVERSATION, (False, False, False), target)


@pytest.mark.parametrize("target", Target)
def test_a_conversation_without_an_assistant_message_is_refused(target: Target) -> None:
    with pytest.raises(ValueError, match="empty"):
        trajectory_row(CONVERSATION[:2], (), target)


def test_flags_are_one_per_assistant_message() -> None:
    with pytest.raises(ValueError, match="7 flags for 3 assistant messages"):
        trajectory_row(CONVERSATION, (True,) * 7, Target.OPENAI)


@pytest.mark.parametrize("target", Target)
def test_a_pair_of_equal_messages_is_refused(target: Target) -> None:
    with pytest.raises(ValueError, match="are equal"):
        preference_row(CONVERSATION[:4], WRITE, WRITE, target)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip())
actions = st.one_of(
    st.builds(final_text, texts),
    st.builds(lambda path, content: call_text("write_file", rel_path=path, content=content), texts, texts),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Rounds of user and assistant, after a system message or none; any assistant message may be malformed."""
    start = [Message(role="system", content=draw(texts))] if draw(st.booleans()) else []
    rounds = draw(st.lists(st.tuples(texts, st.one_of(actions, actions, texts)), min_size=1, max_size=5))
    return (
        *start,
        *(m for u, a in rounds for m in (Message(role="user", content=u), Message(role="assistant", content=a))),
    )


def written_and_checked(directory: Path, row: dict[str, Any]) -> None:
    path = write_rows(directory / "rows.jsonl", row, row)
    report = check_file(path)
    assert report.faults == []
    assert sum(report.rows.values()) == 2
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:2]] == [row, row]


@given(conversation=conversations(), action=actions, target=st.sampled_from(Target))
def test_every_step_that_is_made_is_sound(
    tmp_path_factory: pytest.TempPathFactory, conversation: tuple[Message, ...], action: str, target: Target
) -> None:
    written_and_checked(tmp_path_factory.getbasetemp(), sft_row(conversation[:-1], action, target))


@given(data=st.data(), conversation=conversations(), target=st.sampled_from(Target))
def test_every_trajectory_that_is_made_is_sound(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, conversation: tuple[Message, ...], target: Target
) -> None:
    count = sum(message.role == "assistant" for message in conversation)
    flags = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    try:
        row = trajectory_row(conversation, flags, target)
    except ValueError as refused:
        assert re.search("TRL cannot express|no assistant message is trained", str(refused))
    else:
        written_and_checked(tmp_path_factory.getbasetemp(), row)


@given(conversation=conversations(), chosen=actions, rejected=st.one_of(actions, texts), target=st.sampled_from(Target))
def test_every_pair_that_is_made_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    conversation: tuple[Message, ...],
    chosen: str,
    rejected: str,
    target: Target,
) -> None:
    if chosen != rejected:
        row = preference_row(conversation[:-1], chosen, rejected, target)
        written_and_checked(tmp_path_factory.getbasetemp(), row)


def page_examples() -> dict[str, str]:
    """The JSON blocks of docs/data.md by the heading over them."""
    parts = re.split(r"^#+ (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    return {title: body.split("```json\n")[1].split("```")[0] for title, body in sections if "```json" in body}


def test_the_page_shows_every_format() -> None:
    assert set(page_examples()) == set(EXAMPLES)
    assert {inspect_row(row).format for row in EXAMPLES.values()} == set(RowFormat)
    assert PAGE.read_text(encoding="utf-8").count("```json") == len(EXAMPLES)


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_of_the_page_is_sound_and_is_what_the_code_makes(title: str, tmp_path: Path) -> None:
    row = json.loads(page_examples()[title])
    assert row == EXAMPLES[title]
    assert check_file(write_rows(tmp_path / "page.jsonl", row)).sound


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "OpenAI" in title])
def test_openai_gets_the_same_row_as_together(title: str) -> None:
    made = {
        "SFT, step, Together and OpenAI": sft_row(CONVERSATION[:4], WRITE, Target.OPENAI),
        "SFT, trajectory, Together and OpenAI": trajectory_row(CONVERSATION, (False, True, True), Target.OPENAI),
        "Preference, Together and OpenAI": preference_row(CONVERSATION[:4], WRITE, LIST, Target.OPENAI),
    }
    assert made[title] == EXAMPLES[title]


# What the libraries make of the rows. CI has `datasets` and `together`; TRL needs torch and is in the `train` extra.


@pytest.mark.parametrize("title", EXAMPLES)
def test_datasets_loads_every_format_from_a_file(title: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = write_rows(tmp_path / "rows.jsonl", EXAMPLES[title], EXAMPLES[title])
    loaded = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
    assert [without_nulls(row) for row in loaded] == [EXAMPLES[title]] * 2


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "Together" in title])
def test_the_check_of_the_together_package_passes_its_formats(title: str, tmp_path: Path) -> None:
    together_files = pytest.importorskip("together.lib.utils.files")
    report = together_files.check_file(write_rows(tmp_path / "rows.jsonl", EXAMPLES[title]))
    assert report["is_check_passed"] is True
    assert report["num_samples"] == 1


TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Byte-level, a token per byte and one for each of the template's marks: nothing is downloaded."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "additional_special_tokens": ["<|im_start|>"]}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **marks)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def trained_texts(title: str, directory: Path, **settings: Any) -> list[str]:
    """What TRL's SFTTrainer itself trains of a file with one row: each run of labelled tokens, decoded."""
    pytest.importorskip("torch")
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    datasets = pytest.importorskip("datasets")
    tokenizer = tiny_tokenizer()
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, vocab_size=len(tokenizer)))
    path = write_rows(directory / "rows.jsonl", EXAMPLES[title])
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=str(directory / "out"), use_cpu=True, bf16=False, report_to=[], max_length=None, **settings
        ),
        train_dataset=datasets.Dataset.from_json(str(path), cache_dir=str(directory / "cache")),
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    runs: list[list[int]] = [[]]
    for label in row["labels"]:
        runs += [[]] if label == -100 and runs[-1] else []
        runs[-1] += [] if label == -100 else [label]
    return [tokenizer.decode(run) for run in runs if run]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_the_action_of_a_step_and_nothing_else(tmp_path: Path) -> None:
    assert trained_texts("SFT, step, TRL", tmp_path) == [f"{WRITE}<|im_end|>\n"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_each_assistant_message_of_a_trajectory(tmp_path: Path) -> None:
    trained = trained_texts("SFT, trajectory, TRL", tmp_path, assistant_only_loss=True)
    assert trained == [f"{text}<|im_end|>" for text in (READ, WRITE, FINAL)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_reads_a_pair_as_a_prompt_and_two_answers() -> None:
    pytest.importorskip("torch")
    data_utils = pytest.importorskip("trl.data_utils")
    row = {key: value for key, value in EXAMPLES["Preference, TRL"].items() if key != "pair_confidence"}
    assert data_utils.is_conversational(row)
    made = data_utils.apply_chat_template(row, tiny_tokenizer())
    assert made["chosen"] == f"{WRITE}<|im_end|>\n"
    assert made["rejected"] == f"{LIST}<|im_end|>\n"
    assert made["prompt"].endswith("<|im_end|>\n<|im_start|>assistant\n")

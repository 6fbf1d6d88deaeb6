"""The two prompt formats: what they ask, what a response to them holds, and what is read of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.gsm8k.formats import DEFAULT_FORMAT, FORMATS, PromptFormat

SOLUTION, R1 = FORMATS["solution"], FORMATS["r1"]
TAGS = sorted({tag for form in FORMATS.values() for tag in form.tags} | {"<think>"})
PIECES = st.lists(st.sampled_from([*TAGS, "18", "19", "so", " ", "\n", "<", "$"]), max_size=12).map("".join)


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> PromptFormat:
    return FORMATS[request.param]


def test_the_usual_format_is_one_of_them_and_each_knows_its_name() -> None:
    assert DEFAULT_FORMAT in FORMATS
    assert all(form.name == name for name, form in FORMATS.items())


def test_the_question_stands_in_the_prompt_as_it_is(form: PromptFormat) -> None:
    question = "How much is {question} of <answer>?\nReally?"
    assert form.prompt(question)[-1].content.count(question) == 1


def test_a_raw_prompt_is_one_text_that_ends_where_the_model_goes_on() -> None:
    (message,) = R1.prompt("How much?")
    assert R1.raw and message.content.endswith("User: How much?\nAssistant: <think>")
    assert [message.role for message in SOLUTION.prompt("How much?")] == ["system", "user"] and not SOLUTION.raw


def test_every_tag_is_asked_for_in_the_prompt(form: PromptFormat) -> None:
    asked = "".join(message.content for message in form.prompt("?"))
    assert all(tag in asked for tag in form.tags)


@given(
    name=st.sampled_from(sorted(FORMATS)),
    reasoning=st.text(min_size=1).filter(lambda text: bool(text.strip()) and "<" not in text),
    answer=st.integers(-(10**6), 10**6),
)
def test_a_response_in_the_format_is_read_back(name: str, reasoning: str, answer: int) -> None:
    response = FORMATS[name].read(FORMATS[name].response(reasoning, f"{answer:,}"))
    assert (response.reasoning, response.number, response.exact) == (reasoning.strip(), str(answer), True)


@given(name=st.sampled_from(sorted(FORMATS)), text=st.one_of(st.text(), PIECES))
def test_any_text_is_read_without_an_error(name: str, text: str) -> None:
    response = FORMATS[name].read(text)
    if response.exact:
        assert response.reasoning and response.answer
        assert all(text.count(tag) == 1 for tag in FORMATS[name].tags)


@pytest.mark.parametrize(
    ("text", "reasoning", "number"),
    [
        ("<start_working_out>a<end_working_out><SOLUTION>18</SOLUTION> <SOLUTION>19</SOLUTION>", "a", "18"),
        ("<SOLUTION>19</SOLUTION><start_working_out>a<end_working_out><SOLUTION>18</SOLUTION>", "a", "18"),
        ("<start_working_out><SOLUTION>19</SOLUTION><end_working_out><SOLUTION>18</SOLUTION>", "<SOLUTION>19", "18"),
        ("<SOLUTION>18</SOLUTION>", "", "18"),
        ("<SOLUTION>18</SOLUTION><start_working_out>a<end_working_out>", "a", None),
        ("<start_working_out>a<end_working_out><SOLUTION><SOLUTION>18</SOLUTION></SOLUTION>", "a", None),
        ("<start_working_out>a<end_working_out><SOLUTION>18", "a", None),
        ("<start_working_out>a <SOLUTION>18</SOLUTION>", "", "18"),
        ("a<end_working_out><SOLUTION>18</SOLUTION>", "", "18"),
        ("<start_working_out> \n<end_working_out><SOLUTION>18</SOLUTION>", "", "18"),
        ("<start_working_out><start_working_out><end_working_out><SOLUTION>18</SOLUTION>", "", "18"),
        ("<start_working_out>a<end_working_out><SOLUTION>18 or 19</SOLUTION>", "a", None),
        ("The answer is 18.", "", None),
        ("", "", None),
    ],
)
def test_what_is_not_quite_the_solution_format_is_read_and_is_not_exact(
    text: str, reasoning: str, number: str | None
) -> None:
    response = SOLUTION.read(text)
    assert response.reasoning.startswith(reasoning) and bool(response.reasoning) == bool(reasoning)
    assert response.number == number
    assert response.exact is (text.count("<SOLUTION>") == 1 and "18 or" in text)


@pytest.mark.parametrize(
    ("text", "reasoning", "number", "exact"),
    [
        (" a </think> <answer>18</answer>", "a", "18", True),
        (" a </think>\n<answer> $18.00 </answer>\n", "a", "18", True),
        (" a </think> <answer>18</answer>\n\nUser: more?", "a", "18", False),
        ("<think> a </think> <answer>18</answer>", "<think> a", "18", False),
        (" a </think> so <answer>18</answer>", "a", "18", False),
        ("</think> <answer>18</answer>", "", "18", False),
        ("<think></think> <answer>18</answer>", "", "18", False),
        (" a </think> b </think> <answer>18</answer>", "a", "18", False),
        (" a <answer>18</answer>", "", "18", False),
        (" a </think> <answer>18", "a", None, False),
        (" a </think> <answer></answer>", "a", None, False),
    ],
)
def test_the_r1_format_is_read_from_behind_the_prompt(
    text: str, reasoning: str, number: str | None, exact: bool
) -> None:
    response = R1.read(text)
    assert (response.reasoning, response.number, response.exact) == (reasoning, number, exact)

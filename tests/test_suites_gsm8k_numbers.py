"""The number grader: what it reads, what it refuses, and that it reads no number that a text does not state."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from suites.gsm8k.loading import load_questions
from suites.gsm8k.numbers import number_in, same_number

MIRROR = Path(os.environ.get("REPO_AGENT_MIRROR", ""))
FULLWIDTH = str.maketrans("0123456789", "０１２３４５６７８９")

FORMS: dict[str, Callable[[int], str]] = {
    "plain": str,
    "grouped": lambda n: f"{n:,}",
    "money": lambda n: f"${n:,}.00",
    "signed money": lambda n: f"{'-' * (n < 0)}${abs(n):,}.00",
    "bold": lambda n: f"**{n}**",
    "full stop": lambda n: f"{n}.",
    "decimal": lambda n: f"{n}.0",
    "unit": lambda n: f"{n:,} eggs",
    "cents": lambda n: f"{n:,} dollars and 0 cents" if n >= 0 else str(n),
    "equation": lambda n: f"x = {n}",
    "step": lambda n: f"x = {n} (see step 3)",
    "sum": lambda n: f"{n - 3} + 3 = {n}" if n > 3 else f"Total = {n}",
    "sentence": lambda n: f"The answer is {n:,}.",
    "mark": lambda n: f"#### {n}",
    "boxed": lambda n: rf"\boxed{{{n}}}",
    "latex": lambda n: rf"$\text{{Total}} = {n:,} \text{{ dollars}}$",
    "latex groups": lambda n: f"{n:,}".replace(",", "{,}"),
    "thin spaces": lambda n: f"{n:,}".replace(",", "\u202f"),
    "another script": lambda n: str(n).translate(FULLWIDTH),
    "minus sign": lambda n: str(n).replace("-", "\u2212"),
    "percent": lambda n: f"{n} %",
    "lines": lambda n: f"\n{n}\n",
}

READ: dict[str, Fraction | int | str] = {
    "1½": "3/2",
    "½": "1/2",
    "-½": "-1/2",
    "1 1/2": "3/2",
    "-1 1/2": "-3/2",
    "1/2": "1/2",
    r"2\frac{1}{2}": "5/2",
    r"-\dfrac{1}{2}": "-1/2",
    "18/20 = 0.9": "9/10",
    "9 × 2 = 18": 18,
    "9 * 2 = $18": 18,
    "16 - 3 - 4 = 9": 9,
    "3 x 6 = 18": 18,
    "Total = 9 + 9 = 18": 18,
    "18 = x": 18,
    "18 dollars and 50 cents": "37/2",
    "$18 and 5 cents": "361/20",
    "$1,000.00.": 1000,
    "US$18": 18,
    "18 €": 18,
    "50%": 50,
    r"18\%": 50 - 32,
    "18 million": 18_000_000,
    "1.5e3": 1500,
    ".5": "1/2",
    "007": 7,
    "minus 5": -5,
    "The answer is negative 5": -5,
    "(18)": 18,
    "18 (eggs)": 18,
    "18 km/h": 18,
    "$18/hour": 18,
    "18-inch": 18,
    "`18`": 18,
    "*18* eggs": 18,
    "**Answer:** 18": 18,
    r"\[18\]": 18,
    "~18": 18,
    "18 °C": 18,
    "18 dollars, so the answer is 18": 18,
    "✅ 18": 18,
    "“18”": 18,
    "18 months": 18,
    "$18 (9 eggs at $2 each)": 18,
    "18 (it is 18)": 18,
    "18 café": 18,
}

REFUSED = [
    *("", "eighteen", "=", "--", "nan", "inf", "18 =", "one"),
    *("18 19", "18 or 19", "18 (or 19)", "18 (not 19)", "18 (19)", "18, not 19", "18 (wait, it is 19)", "18 to 20"),
    *("18 (19 eggs)", "18 ($19 in all)", "18 (answer: 19)", "18 (it is 19)", "18 (the total: 19)"),
    *("not 18", "It isn't 18", "at least 18", "more than 18", "x > 18", "x >= 18", "x ≠ 18", "half of 18"),
    *("18 and a half", "18 and a quarter", "a quarter of 18", "18 thirds", "5 sevenths", "18 hundredths"),
    *("18k", "$5M", "$5m", "18 dozen", "two times 18", "18 hundred thousand", "2 thousand 500", "18 (in thousands)"),
    *("1,00", "1.000.000", "1.000,50", "0,001", "1,000,00", "1,,000", "1.2.3", "1..5", "...18", "1_000", "1'000"),
    *("10²", "10^2", "2**3", "2*3", "3 * 3", "3 *3", "18 + 18", "2-2", "10 minus 5", "x minus 5", "1-1/2", "2^-1"),
    *("3 3", "18 18", "18, 18", "3 of 3", "3 out of 5", "3:5", "3:3", "10:30", "5/6/2020", "2020-01-01", "1/2/3"),
    *("5 hours 5 minutes", "5 ft. 5 in.", "5'5\"", "12h30", "2 hours 30 minutes", "18 dollars and 150 cents"),
    *("- 18", "— 18", "x - 18", "x-18", "18-", "--18", "±18", "-(18)", "18!", "3i", "18x", "2x = 18", "x + 3 = 12"),
    *("x18", "B12", "0x12", "2__3", "5$3", "1$8", "f(18)", "sqrt(18)", "√18", "18√2", "18π", "18 π", "3(3)", "(3)(3)"),
    *("1万", "Ⅷ", "①", "18‰", "1½3", "9\ufe0f\u20e3", "1\u200b8", "1\x008", "\x0018\x00", "٣٫٣", "<b>18</b>", "|18|"),
    *("x is not = 18", r"\not= 18", "isn't = 18", "٫5", "18٬"),
    *("1/0", "1 3/2", "1/-2", "1e400", "1e5.5", "9" * 70, "18 " * 100),
    *("5 = 6", "60 minutes = 1 hour", "x = 12, y = 15", "x = 12\ny = 15", "12 since x = 3", "12 (x = 3)", "18 = 9 + 9"),
]

HOSTILE = [
    *("1," * 50_000, "1 " * 150, "(" * 300, "1(" * 150, "-" * 299 + "1", "1e" * 150, "1/" * 150, "1.1" * 100),
    *("=" * 299 + "1", "1=" * 150, "\u00a01" * 150, "1\u00a0000" * 60, "\\text{" * 50_000, "\\boxed{1}" * 33),
    *("(aa" * 99 + "1", "1 dollars " * 30, "*1" * 150, "_1" * 150, "1" * 300, "1" * 10**6, "²" * 300, "$" * 299 + "1"),
    *("1 1/1" * 60, "1e" + "9" * 250, "1 and " * 50, "\\frac{1}{" * 30, "\ud800 18", "\U0010ffff18", "a" * 10**6 + "1"),
]
"""Every one of them would take minutes, or a stack, if a pattern went back and forth on it."""

WORDS = st.sampled_from(
    [*"2357+-*/x()[]%$.,:;!?^= \n", "and", "or", "of", "is", "**", " ", "eggs", "½", "²", "−", "\\"]
)


@pytest.mark.parametrize("form", FORMS)
@given(number=st.integers(-(10**9), 10**9))
@example(number=0)
@example(number=1000)
@example(number=-1234567)
def test_every_form_of_an_integer_gives_it_back(form: str, number: int) -> None:
    assert number_in(FORMS[form](number)) == number


@given(cents=st.integers(-(10**9), 10**9))
def test_a_decimal_number_is_read_exactly(cents: int) -> None:
    text = f"{'-' * (cents < 0)}{abs(cents) // 100:,}.{abs(cents) % 100:02}"
    assert number_in(text) == number_in(f"**{text}** dollars") == Fraction(cents, 100)


@given(over=st.integers(-999, 999), under=st.integers(1, 999))
def test_a_fraction_is_read_exactly(over: int, under: int) -> None:
    assert number_in(f"{over}/{under}") == number_in(f"{over} / {under} of a cake") == Fraction(over, under)


@pytest.mark.parametrize("text", READ)
def test_a_number_is_read_whatever_it_is_dressed_in(text: str) -> None:
    assert number_in(text) == Fraction(READ[text])


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_say_one_number_for_certain_is_refused(text: str) -> None:
    assert number_in(text) is None


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_texts_end_at_once_and_raise_nothing(text: str) -> None:
    number_in(text)


@given(st.text(max_size=320))
def test_any_text_gives_a_number_or_none(text: str) -> None:
    found = number_in(text)
    assert found is None or any(char.isnumeric() for char in text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_cannot_be_read_equals_nothing_not_even_itself(one: str, other: str) -> None:
    for text in (one, other):
        if number_in(text) is None:
            assert not any((same_number(text, one), same_number(text, other), same_number("18", text)))


@settings(max_examples=1000)
@given(st.lists(WORDS, min_size=1, max_size=7))
def test_of_several_numbers_none_is_picked(words: list[str]) -> None:
    """Without `=` every number of a text must be the one that is read, and no other sign may stand between them."""
    text = " ".join(words)
    found = number_in(text)
    if found is None or "=" in words or "½" in words or "/" in words or "." in words:
        return
    assert {abs(found)} == {int(word) for word in words if word.isdigit()}
    between = " ".join(words)[text.index(str(abs(found))) : text.rindex(str(abs(found)))]
    assert not set("+*^") & set(between)


@settings(max_examples=500)
@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(10, 99))
def test_another_number_behind_it_makes_a_text_unreadable(words: list[str], other: int) -> None:
    text = "".join(words)
    if number_in(text) not in (None, other) and "=" not in text:
        assert number_in(f"{text} and {other}") is None


@pytest.mark.skipif(
    not (MIRROR / "datasets/openai/gsm8k/main/train.jsonl").is_file(), reason="REPO_AGENT_MIRROR has no gsm8k"
)
def test_every_gold_answer_of_gsm8k_is_right_in_every_form_and_no_other_is() -> None:
    suite = load_questions("gsm8k", MIRROR)
    golds = {question.gold for question in suite.questions}
    assert len(suite.questions) == 7473 + 1319
    for gold in golds:
        number = int(gold.replace(",", ""))
        assert [name for name, form in FORMS.items() if not same_number(form(number), gold)] == []
        assert [name for name, form in FORMS.items() if same_number(form(number + 1), gold)] == []

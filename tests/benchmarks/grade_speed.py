"""Microseconds that grading one response takes: `python tests/benchmarks/grade_speed.py [--suite NAME] [--rows N]`.

A row is a response text as a model gives it; its grade is everything that `QuestionEnvironment.score` does: tags and
reasoning found, the answer's number read and compared with the gold answer. The texts: the worked solution of each
question in each format, with the answer in different dress, without answer, with 4,000 characters of reasoning. Each
kind is timed apart, by its time on a core; the best of 20 passes counts. Asked for: under 50 µs a row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from harness.records import Completion, TestPolicy
from suites.fetch import mirror_directory
from suites.gsm8k.loading import load_questions
from suites.gsm8k.suite import Question, QuestionSuite

PASSES = 20
ANSWERS: dict[str, Callable[[str], str]] = {
    "plain": lambda gold: gold,
    "money": lambda gold: f"${gold}.00",
    "unit": lambda gold: f"{gold} dollars",
    "bold": lambda gold: f"**{gold}**",
    "boxed": lambda gold: rf"\boxed{{{gold}}}",
    "sum": lambda gold: f"7 * 5 - 2 = {gold}",
    "sentence": lambda gold: f"The answer is {gold} (see the steps above).",
    "two numbers": lambda gold: f"{gold} or 12",
    "words": lambda gold: "I do not know how much that may be, I am sorry.",
}


def rows(suite: QuestionSuite, answer: Callable[[str], str], length: int = 0) -> list[tuple[Question, Completion]]:
    texts = [
        suite.form.response(question.reasoning.ljust(length, "x"), answer(question.gold))
        for question in suite.questions
    ]
    return [(question, Completion(text=text)) for question, text in zip(suite.questions, texts, strict=True)]


def microseconds(suite: QuestionSuite, graded: list[tuple[Question, Completion]]) -> float:
    """A row, in the best pass. The environment is made and the text put in before the clock starts."""
    best = float("inf")
    for _ in range(PASSES):
        made = [suite.environment(suite.task(question), None, TestPolicy.FINAL) for question, _ in graded]
        for environment, (_, completion) in zip(made, graded, strict=True):
            environment.step(completion)
        began = time.process_time()
        for environment in made:
            environment.score()
        best = min(best, (time.process_time() - began) / len(graded))
    return best * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="arith:test", help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=200, help="questions (default: %(default)s)")
    args = parser.parse_args()
    for form in ("", "+r1"):
        whole = load_questions(f"{args.suite}{form}", mirror_directory())
        suite = whole.slice(0, min(args.rows, len(whole.questions)), seed=0)
        for name, answer in ANSWERS.items():
            print(f"{suite.form.name:9} {name:12} {microseconds(suite, rows(suite, answer)):6.1f} µs a row")
        print(
            f"{suite.form.name:9} {'long':12} {microseconds(suite, rows(suite, str, 4000)):6.1f} µs a row", flush=True
        )


if __name__ == "__main__":
    main()

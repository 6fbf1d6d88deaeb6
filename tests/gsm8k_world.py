"""What the tests of the question pipeline share: a served model that knows the answers now and then."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import repo_agent
from suites.base import load
from suites.gsm8k.formats import FORMATS
from suites.gsm8k.suite import Question, QuestionSuite
from tests.chat_server import ChatServer, Reply, Request, completion
from trainers.gsm8k.settings import FIELDS, variable_of

SMALL = {
    "GSM8K_SUITE": "arith+easy",
    "TRAIN_SAMPLES": "12",
    "PREP_TRAIN_SAMPLES": "6",
    "EVAL_SAMPLES": "8",
    "GSM8K_MAX_TOKENS": "24",
    "GSM8K_BATCH_SIZE": "4",
    "HOSTED_VLLM_API_KEY": "none-is-needed",
}
"""An environment for small runs."""
VARIABLES = [variable_of(name) for name in FIELDS]


@cache
def by_text() -> dict[str, Question]:
    suite = load("arith+easy")
    assert isinstance(suite, QuestionSuite)
    return {each.question: each for each in suite.questions}


def asked(request: Request) -> Question:
    last = request.messages[-1]["content"]
    text = last.rpartition("User: ")[2].removesuffix("\nAssistant: <think>")
    return by_text()[text]


def right(request: Request) -> str:
    question, form = asked(request), "r1" if request.conversation.endswith("<think>") else "solution"
    return FORMATS[form].response(f"I see: {question.reasoning}", question.gold)


class Pupil:
    """Right in about one of `one_in` responses, as question and seed have it; counts what it was asked."""

    def __init__(self, one_in: int, wrong: str = "no idea", wait_s: float = 0.0) -> None:
        self.one_in, self.wrong, self.wait_s = one_in, wrong, wait_s
        self.asked: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        question, seed = asked(request), int(request.body["seed"])
        with self._lock:
            self.asked[question.id, seed] += 1
        time.sleep(self.wait_s)
        knows = hashlib.sha256(f"{question.id} {seed}".encode()).digest()[0] % self.one_in == 0
        return completion(right(request) if knows else self.wrong)


def served(server: ChatServer, *argv: str) -> list[str]:
    """A command that plays the served model."""
    return ["gsm8k", *argv, "--engine", "vllm", "--api-base", server.url]


def run(*argv: str) -> int:
    return repo_agent.main(["gsm8k", *argv])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

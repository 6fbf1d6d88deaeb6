"""The mutation engine: every edit is a new program, the right ones are there, and the likely ones come first."""

import ast
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.policies.mutation import MAX_EDITS, Edit, Symptoms, edits
from harness.policies.operators import OPERATORS

SHOP = '''\
"""A shop with a bug or two.  Prices are in €."""
import math

class Basket:
    """Holds items."""
    discounts = []

    def __init__(self, owner, tax=0.2, tags=[]):
        self.owner, self.tax = owner, tax  # naïve
        self.items = {}
        self.tags = tags

    def add(self, name, price, count=1):
        if price < 0 or not name:
            raise ValueError(f"bad {price + 1} é")
        elif count == 0:
            return None
        else:
            self.items[name] = (price, count)
        return self

    @property
    def total(self):
        total = 0
        for price, count in self.items.values():
            total += price * count
        return round(total * (1 + self.tax), 2)

    async def wait(self, seconds: float = 1.5) -> None:
        async with self.lock as lock:
            await lock.sleep(seconds)


def cheapest(baskets, *, limit=None, key=lambda basket: basket.total):
    found = [b for b in baskets if limit is None or b.total <= limit]
    if not found: return []
    try:
        best = min(found, key=key); rest = found[1:]
    except (KeyError, TypeError) as error:
        print("none", error)
        rest = best = None
    while rest and best is not None:
        if rest[-1] == best:
            break
        rest.pop()
    yield best
    match rest:
        case [first, *_] if first:
            yield from rest
        case _:
            pass
'''


def check(source: str, found: list[Edit]) -> None:
    seen = {ast.dump(ast.parse(source))}
    for edit in found:
        changed = edit.apply(source)
        dumped = ast.dump(ast.parse(changed))
        assert dumped not in seen, edit
        seen.add(dumped)
        assert edit.line == changed[: edit.start].count("\n") + 1


def test_every_edit_is_a_new_program() -> None:
    found = edits(SHOP)
    assert len(found) > 500
    check(SHOP, found[::3])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n# end"])
def test_line_ends_do_not_matter(newline: str, tail: str) -> None:
    source = (SHOP[SHOP.index("    while rest") : SHOP.index("    match")].rstrip("\n") + tail).replace("\n", newline)
    source = f"def last(rest, best):{newline}{source}"
    check(source, edits(source))


NAMES = st.sampled_from(["a", "b", "xs", "n", "self.k"])
ATOMS = st.one_of(
    NAMES, st.sampled_from(["0", "1", "-1", "''", "[]", "None", "True", "'é'", "xs[0]", "f(a)", "xs[a:]"])
)
OPERATORS_TEXT = st.sampled_from(["+", "-", "*", "//", "<", "==", "in", "and", "or", "is not"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, OPERATORS_TEXT, inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner).map(lambda parts: f"f({', '.join(parts)})"),
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"[y for y in {text} if y]"),
        inner.map(lambda text: f"any(y for y in {text})"),
    ),
    max_leaves=4,
)
LINES = st.one_of(
    st.tuples(NAMES, EXPRESSIONS).map(lambda parts: f"{parts[0]} = {parts[1]}"),
    EXPRESSIONS.map(lambda text: f"return {text}"),
    EXPRESSIONS.map(lambda text: f"xs.append({text})  # é"),
    EXPRESSIONS.map(lambda text: f"if {text}: a += 1"),
    st.just("pass"),
)


def block(head: str, lines: list[str]) -> str:
    return f"{head}\n" + textwrap.indent("\n".join(lines), "    ")


BLOCKS = st.recursive(
    LINES,
    lambda inner: st.one_of(
        st.tuples(EXPRESSIONS, st.lists(inner, min_size=1, max_size=2)).map(lambda p: block(f"if {p[0]}:", p[1])),
        st.tuples(EXPRESSIONS, st.lists(inner, min_size=1, max_size=2)).map(lambda p: block(f"for b in {p[0]}:", p[1])),
        st.tuples(EXPRESSIONS, inner, inner).map(
            lambda p: block(f"if {p[0]}:", [p[1]]) + "\n" + block("elif a:", [p[2]]) + "\n" + block("else:", ["b = 1"])
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(BLOCKS, min_size=1, max_size=3))
def test_every_edit_of_a_random_function_is_a_new_program(blocks: list[str]) -> None:
    source = block("def f(self, a, xs=[]):", blocks)
    check(source, edits(source)[:250])


@pytest.mark.parametrize(
    ("buggy", "fixed"),
    [
        ("def f(x):\n    return x < 3\n", "def f(x):\n    return x <= 3\n"),
        ("def f(n):\n    return list(range(n))\n", "def f(n):\n    return list(range(n + 1))\n"),
        ("def f(xs):\n    return xs[1 + 0]\n", "def f(xs):\n    return xs[1]\n"),
        ("def f(p, q):\n    return p and q\n", "def f(p, q):\n    return p or q\n"),
        ("def f(p, q):\n    return g(p, q)\n", "def f(p, q):\n    return g(q, p)\n"),
        ("def f(m, i, j):\n    return m[i, j]\n", "def f(m, i, j):\n    return m[j, i]\n"),
        ("def f(xs):\n    return any(xs)\n", "def f(xs):\n    return all(xs)\n"),
        ("def f(a, b):\n    return a / 2\n", "def f(a, b):\n    return a // 2\n"),
        ("def f(a, b):\n    return a - 2\n", "def f(a, b):\n    return b - 2\n"),
        ("def f(o):\n    return o.left_edge\n", "def f(o):\n    return o.right_edge\n"),
        ("def f(x, y):\n    g(x)\n", "def f(x, y):\n    return g(x)\n"),
        ("def f(x):\n    yield g(x)\n", "def f(x):\n    yield from g(x)\n"),
        (
            "def f(o):\n    if o.a:\n        return 1\n",
            "def f(o):\n    if o is None or o.a:\n        return 1\n",
        ),
        (
            "def f(xs):\n    while True:\n        xs.pop()\n",
            "def f(xs):\n    while xs:\n        xs.pop()\n",
        ),
        (
            "def f(xs):\n    seen = set()\n    for x in xs:\n        if x in seen:\n            return x\n",
            "def f(xs):\n    seen = set()\n    for x in xs:\n        if x in seen:\n            return x\n"
            "        seen.add(x)\n",
        ),
        (
            "def f(x, xs=[]):\n    xs.append(x)\n    return xs\n",
            "def f(x, xs=None):\n    if xs is None:\n        xs = []\n    xs.append(x)\n    return xs\n",
        ),
        (
            "def f(d, k):\n    try:\n        return d[k]\n    except ValueError:\n        return 0\n",
            "def f(d, k):\n    try:\n        return d[k]\n    except KeyError:\n        return 0\n",
        ),
        (
            "class A:\n    def __init__(self, n):\n        self.n = n\n    def f(self):\n        return n\n",
            "class A:\n    def __init__(self, n):\n        self.n = n\n    def f(self):\n        return self.n\n",
        ),
        (
            "class A:\n    xs = []\n    def __init__(self):\n        self.n = 0\n",
            "class A:\n    xs = []\n    def __init__(self):\n        self.xs = []\n        self.n = 0\n",
        ),
        (
            "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n        return n\n",
            "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n\n",
        ),
        (
            "def f(xs, n):\n    for x in xs:\n        n += x\n    return n\n",
            "def f(xs, n):\n    for x in xs[1:]:\n        n += x\n    return n\n",
        ),
        (
            "class A:\n    def f(self):\n        self.xs = []\n        return self.xs\n",
            "class A:\n    def f(self):\n        self.xs = []\n        return list(self.xs)\n",
        ),
    ],
)
def test_a_common_defect_has_its_fix_among_the_edits(buggy: str, fixed: str) -> None:
    assert fixed in [edit.apply(buggy) for edit in edits(buggy)]


def test_comments_and_layout_survive() -> None:
    source = "def f(a,  b):  # ünï\n    return g( a,\n        b )  # keep\n"
    swapped = next(edit for edit in edits(source) if edit.operator == "swap-arguments")
    assert swapped.apply(source) == "def f(a,  b):  # ünï\n    return g( b,\n        a )  # keep\n"


@pytest.mark.parametrize("source", ["def f(:", "x = '\0'", "(" * 300, "", "# only a comment", "\ufeffx = 1 +"])
def test_a_file_without_a_program_has_no_edits(source: str) -> None:
    assert edits(source) == []


def test_symptoms_bring_the_fitting_edits_forward() -> None:
    source = SHOP[SHOP.index("def cheapest") :] + "\n\ndef head(xs, i):\n    return xs[i]\n"
    where = source.count("\n")

    def rank(symptoms: Symptoms) -> int:
        return next(k for k, e in enumerate(edits(source, symptoms)) if e.line == where and e.replacement == "i - 1")

    plain = rank(Symptoms())
    assert rank(Symptoms(names=frozenset({"head"}))) < plain
    assert rank(Symptoms(lines=(where,))) < plain
    told = rank(Symptoms(names=frozenset({"head"})))
    assert rank(Symptoms(frozenset({"IndexError"}), lines=(where,), names=frozenset({"head"}))) <= told


def test_no_operator_starves_the_others() -> None:
    first = edits(SHOP)[:150]
    assert len({edit.operator for edit in first}) > 25
    assert max(sum(edit.operator == operator.name for edit in first) for operator in OPERATORS) < 40


def test_edits_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import sys; from harness.policies.mutation import *; print(edits(sys.stdin.read(), Symptoms(names={'add'})))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=SHOP,
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_large_file_stays_within_bounds() -> None:
    part = textwrap.indent(textwrap.dedent(SHOP[SHOP.index("class") : SHOP.index("def cheapest")]), "")
    source = "\n".join(part.replace("Basket", f"Basket{k}") for k in range(5))
    found = edits(source, Symptoms(names=frozenset({"Basket3"})))
    assert 500 < len(found) <= MAX_EDITS
    assert "class Basket3" in "\n".join(source.splitlines()[: found[0].line])

"""Mutation operators on calls and operands: swapped arguments, wrappers, slices, dropped and added operands."""

import ast
from collections.abc import Iterator
from itertools import combinations, pairwise

from harness.policies.operators_kinds import LIST, NUM, STR, Kinds, called_name, identifier
from harness.policies.operators_view import Change, View

VALUES = {"num", "list", "str"}
NO_SUMMANDS = (ast.Constant, ast.Tuple, ast.Dict, ast.Compare, ast.BoolOp, ast.Lambda)
SEQUENCE: Kinds = frozenset({"list", "str", "iter", "index"})
CONVERSIONS = ("list", "sorted", "set", "str", "int", "float", "abs", "len", "tuple", "dict", "reversed", "round")
CONVERSION_FITS: dict[str, Kinds] = {
    **dict.fromkeys(("list", "sorted", "set", "len", "tuple", "reversed"), SEQUENCE | {"set", "dict"}),
    **dict.fromkeys(("abs", "float", "round"), NUM),
    **dict.fromkeys(("int",), NUM | {"str"}),
    "dict": {"dict"},
}


def _swap(view: View, one: ast.expr, two: ast.expr, cost: float) -> Change:
    gap = view.source[view.end(one) : view.start(two)]
    return Change(view.start(one), view.end(two), view.text(two) + gap + view.text(one), cost)


def swap_arguments(view: View) -> Iterator[Change]:
    """Two arguments of a call, two indices, two elements of a tuple or two branches of a conditional swapped."""
    for node in view.expressions:
        if isinstance(node, ast.Call):
            plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
            own = 1.0 if called_name(node) in view.callables or len(plain) == 2 else 2.0
            for one, two in combinations(plain, 2):
                yield _swap(view, one, two, own if plain.index(two) - plain.index(one) == 1 else 2 * own)
        elif isinstance(node, ast.Tuple | ast.List) and 2 <= len(node.elts) <= 4:
            index = isinstance(view.parents[node], ast.Subscript | ast.Return | ast.Call | ast.BinOp | ast.Yield)
            for one, two in pairwise(node.elts):
                yield _swap(view, one, two, 1.0 if index else 2.0)
        elif isinstance(node, ast.IfExp):
            gaps = view.source[view.end(node.body) : view.start(node.orelse)]
            text = view.text(node.orelse) + gaps + view.text(node.body)
            yield Change(view.start(node), view.end(node), text, 1)


def adjust_argument(view: View) -> Iterator[Change]:
    """`f(k)` to `f(k - n)` or `f(k + n)` for a number `n` in scope, first in calls of this file's own functions."""
    for node in view.expressions:
        above = view.parents[node]
        place = isinstance(above, ast.Call) and node in above.args
        own = place and called_name(above) in view.callables
        if not (place or isinstance(above, ast.Return | ast.Slice | ast.Subscript)):
            continue
        if identifier(node) is None or (isinstance(above, ast.Subscript) and node is above.value):
            continue
        kinds = view.kind_of(node)
        if kinds and "num" not in kinds:
            continue
        known = 1.0 if kinds else 1.7
        for name in view.names(node):
            theirs = view.kinds(name, node)
            if name != identifier(node) and (not theirs or "num" in theirs):
                cost = known * (1.0 if own else 2.5) * (1.0 if theirs else 1.7)
                yield view.replace(node, f"{view.text(node)} - {name}", cost)
                yield view.replace(node, f"{view.text(node)} + {name}", cost * 1.3)


def drop_wrapper(view: View) -> Iterator[Change]:
    """`f(x)` to `x`, `x.f()` to `x`, `m[k]` to `m`, and a slice to the whole."""
    for node in view.expressions:
        if isinstance(node, ast.Call) and not isinstance(view.parents[node], ast.Expr):
            own = called_name(node) in view.callables
            for argument in node.args[:3]:
                if not isinstance(argument, ast.Starred):
                    lone = 1.0 if len(node.args) == 1 else 2.0
                    yield view.replace(node, view.text(argument), lone if own or lone == 1 else 3.0)
            if isinstance(node.func, ast.Attribute):
                yield view.replace(node, view.text(node.func.value), 2.0)
        elif isinstance(node, ast.Subscript):
            yield view.replace(node, view.text(node.value), 1.5 if isinstance(node.slice, ast.Slice) else 4.0)


def drop_argument(view: View) -> Iterator[Change]:
    """A keyword argument or the last argument left out."""
    for node in view.expressions:
        if isinstance(node, ast.Call) and len(node.args) + len(node.keywords) >= 2:
            pieces: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
            for before, piece in pairwise(pieces):
                if view.end(before) <= view.start(piece) and (isinstance(piece, ast.keyword) or piece is pieces[-1]):
                    yield Change(view.end(before), view.end(piece), "", 1.5 if isinstance(piece, ast.keyword) else 3)


def add_argument(view: View) -> Iterator[Change]:
    """`reverse=True` for sorting, a start for `sum` and `enumerate`, a default for `get`, a missing last argument."""
    extra = {
        "sorted": "reverse=True",
        "sort": "reverse=True",
        "enumerate": "1",
        "pop": "0",
        "get": "0",
        "max": "default=0",
    }
    for node in view.expressions:
        name = called_name(node)
        if not isinstance(node, ast.Call) or any(isinstance(a, ast.GeneratorExp | ast.Starred) for a in node.args):
            continue
        pieces = [*node.args, *node.keywords]
        at = view.end(pieces[-1]) if pieces else view.end(node) - 1
        comma = ", " if pieces else ""
        if name in extra and len(pieces) <= 1 and extra[name].split("=")[0] not in [k.arg for k in node.keywords]:
            yield Change(at, at, comma + extra[name], 1.5)
        if name == "get" and len(pieces) == 1:
            yield from (Change(at, at, comma + other, 2) for other in ("[]", "''", "{}", "False", "1"))
        yield from _missing_argument(view, node, at, comma)


def _missing_argument(view: View, node: ast.Call, at: int, comma: str) -> Iterator[Change]:
    function = view.callables.get(called_name(node))
    if function is None or node.keywords:
        return
    names = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
    if len(node.args) < len(names):
        wanted = names[len(node.args)]
        for name in view.names(node):
            if name.removeprefix("self.") == wanted:
                yield Change(at, at, comma + name, 1)
            elif len(node.args) < len(names) - len(function.args.defaults):
                yield Change(at, at, comma + name, 2)


def _value_place(view: View, node: ast.expr) -> float | None:
    """The cost of wrapping a value here: where it is iterated, passed, stored or returned."""
    above = view.parents[node]
    if isinstance(above, ast.For | ast.comprehension):
        return 1.0 if node is above.iter else None
    if isinstance(above, ast.Call):
        return 1.5 if node in above.args else None
    if isinstance(above, ast.Return | ast.Assign | ast.Yield):
        return 1.5
    return (
        2.5
        if isinstance(above, ast.Dict | ast.Compare | ast.keyword) and node is not getattr(above, "func", None)
        else None
    )


def add_slice(view: View) -> Iterator[Change]:
    """`xs` to `xs[1:]`, `xs[:-1]`, `xs[k:]`, `xs[:k]` or `xs[::-1]` with the numbers in scope."""
    for node in view.expressions:
        cost = _value_place(view, node)
        kinds = view.kind_of(node)
        if (
            cost is None
            or not isinstance(node, ast.Name | ast.Attribute | ast.Call)
            or (kinds and not kinds & SEQUENCE)
        ):
            continue
        if called_name(node) in ("range", "enumerate", "len", "zip") or (isinstance(node, ast.Attribute) and not kinds):
            continue
        cost *= 1.0 if kinds & SEQUENCE else 2.0
        bounds = {"1:": 1.0, ":-1": 1.2, "::-1": 2.0, "2:": 4.0}
        for name in view.names(node):
            theirs = view.kinds(name, node)
            if name != identifier(node) and (not theirs or "num" in theirs):
                fit = 1.2 if theirs else 2.0
                bounds.update({f"{name}:": fit, f":{name}": fit, f"{name} + 1:": 2 * fit, f":{name} + 1": 2.5 * fit})
        for bound, fit in bounds.items():
            yield view.replace(node, f"{view.text(node)}[{bound}]", cost * fit)


def add_wrapper(view: View) -> Iterator[Change]:
    """`e` to `list(e)`, `abs(e)` and so on, or to a call of this file's own one-argument functions."""
    own = [name for name, function in view.callables.items() if len(function.args.args) == 1]
    for node in view.expressions:
        cost = _value_place(view, node)
        if cost is None or isinstance(node, ast.Constant | ast.Starred) or identifier(node) == "self":
            continue
        kinds, text = view.kind_of(node), view.text(node)
        for function in (*CONVERSIONS, *own):
            fits = CONVERSION_FITS.get(function, set())
            if called_name(node) == function or (kinds and fits and not kinds & fits):
                continue
            yield view.replace(node, f"{function}({text})", cost * (1.3 if kinds & fits else 3.0))
        if not kinds or "dict" in kinds:
            yield view.replace(node, f"{text}.items()", cost * 2)
        if not kinds or kinds & {"list", "dict", "set"}:
            yield view.replace(node, f"{text}.copy()", cost * 2)
        if not kinds or "str" in kinds:
            yield from (view.replace(node, f"{text}.{f}()", cost * 2) for f in ("strip", "lower", "upper"))


def clamp(view: View) -> Iterator[Change]:
    """`x = e` to `x = max(x, e)` and `max(0, e)`, and the same with `min`."""
    for node in view.nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value, cost = view.text(node.targets[0]), node.value, 1.0
        elif isinstance(node, ast.Return) and node.value is not None:
            target, value, cost = "0", node.value, 2.0
        else:
            continue
        kinds = view.kind_of(value)
        if isinstance(value, ast.Constant | ast.Tuple) or (kinds and "num" not in kinds):
            continue
        cost *= 1.0 if isinstance(value, ast.BinOp) else 2.5
        for other in dict.fromkeys((target, "0", "1")):
            known = other.isdigit() or other in view.names(node) or "[" in other
            if known:
                for position, function in enumerate(("max", "min")):
                    text = f"{function}({other}, {view.text(value)})"
                    yield Change(view.start(value), view.end(value), text, cost * (1 + position * 0.3 + (other == "1")))


def drop_operand(view: View) -> Iterator[Change]:
    """`a + b` to `a` or `b`, `p and q` to `p` or `q`, `a if c else b` to `a` or `b`."""
    for node in view.expressions:
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and not (isinstance(node.op, ast.Mod) and "str" in view.kind_of(node.left)):
            parts = [node.right, node.left] if isinstance(node.left, ast.Constant) else [node.left, node.right]
        elif isinstance(node, ast.IfExp):
            parts = [node.body, node.orelse]
        elif isinstance(node, ast.BoolOp):
            yield from _drop_conjunct(view, node)
        for rank, part in enumerate(parts):
            yield view.replace(node, view.text(part), 1.0 + rank)


def _drop_conjunct(view: View, node: ast.BoolOp) -> Iterator[Change]:
    word = " and " if isinstance(node.op, ast.And) else " or "
    for dropped in node.values:
        rest = [view.text(value) for value in node.values if value is not dropped]
        yield view.replace(node, word.join(rest), 1.0)


def add_operand(view: View) -> Iterator[Change]:
    """`e` to `e + x`, `x + e`, `e - x`, `e * e` or `e ** 2` where a value is returned, stored or combined."""
    for node in view.expressions:
        above = view.parents[node]
        result = isinstance(above, ast.Return | ast.Assign)
        if not result and not (isinstance(above, ast.BinOp | ast.Call) and identifier(node)):
            continue
        if isinstance(above, ast.Call) and (node not in above.args or result):
            continue
        kinds = view.kind_of(node)
        if isinstance(node, NO_SUMMANDS) or "set" in kinds:
            continue
        text = view.text(node)
        text = f"({text})" if isinstance(node, ast.IfExp) else text
        if identifier(node) and (not kinds or "num" in kinds):
            square = 1.5 if isinstance(above, ast.BinOp) else 3.0
            yield view.replace(node, f"{text} * {text}", square)
            yield view.replace(node, f"{text} ** 2", square * 1.2)
        if result:
            yield from _sums(view, node, text, kinds)


def _sums(view: View, node: ast.expr, text: str, kinds: Kinds) -> Iterator[Change]:
    plain = kinds & {"num", "list", "str"}
    for name in view.names(node):
        theirs = view.kinds(name, node)
        if name == identifier(node) or (theirs & VALUES and plain and not plain & theirs) or theirs & {"set", "dict"}:
            continue
        cost = (1.0 if plain & theirs else 2.0) * (1.0 if isinstance(view.parents[node], ast.Return) else 1.5)
        yield view.replace(node, f"{name} + {text}", cost)
        yield view.replace(node, f"{text} + {name}", cost * 1.1)
        if not plain or "num" in plain:
            yield view.replace(node, f"{_factor(node, text)} - {name}", cost * 1.5)
            yield view.replace(node, f"{_factor(node, text)} * {name}", cost * 2)
        if plain & set(LIST | STR) - {"str"}:
            yield view.replace(node, f"{text} + [{name}]", cost * 2)


def _factor(node: ast.expr, text: str) -> str:
    return f"({text})" if isinstance(node, ast.BinOp) else text

"""Mutation operators on conditions and control flow: guards, loop tests, branches (as in Nopol, PAR and TBar)."""

import ast
from collections.abc import Iterator
from itertools import pairwise

from harness.policies.operators_kinds import Kinds, called_name, identifier
from harness.policies.operators_view import BLOCK_FIELDS, FUNCTIONS, LOOPS, Change, View


def _tests(view: View) -> Iterator[ast.expr]:
    for node in view.nodes:
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs


def endless_loop(view: View) -> Iterator[Change]:
    """`while True` to a loop over what its body consumes or compares."""
    for node in view.nodes:
        if isinstance(node, ast.While) and isinstance(node.test, ast.Constant):
            read = {identifier(below) for below in ast.walk(node)}
            for name in view.names(node.test):
                kinds = view.kinds(name, node)
                if name in read and not (kinds and kinds <= {"num"}):
                    yield view.replace(node.test, name, 1.0 if kinds & {"list", "set", "dict", "iter"} else 2.0)
                    yield view.replace(node.test, f"{name} is not None", 3.0)


def guard(view: View) -> Iterator[Change]:
    """`c` to `x is None or c` and its kin, for each `x` whose attribute or item `c` reads."""
    for test in _tests(view):
        if isinstance(test, ast.Constant):
            continue
        for owner, item in _owners(test):
            text, name = view.text(test), view.text(owner)
            loose = f"({text})" if isinstance(test, ast.BoolOp | ast.IfExp) else text
            null = 0.5 if not item else 2.0
            yield view.replace(test, f"{name} is None or {loose}", null)
            yield view.replace(test, f"{name} is not None and {loose}", null)
            yield view.replace(test, f"{name} and {loose}", 1.0)
            yield view.replace(test, f"not {name} or {loose}", 1.0)


def _owners(test: ast.expr) -> Iterator[tuple[ast.expr, bool]]:
    seen = set()
    for node in ast.walk(test):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute):
            key = ast.dump(node.value)
            if key not in seen and identifier(node.value) != "self":
                seen.add(key)
                yield node.value, isinstance(node, ast.Subscript)


def extend_condition(view: View) -> Iterator[Change]:
    """`c` to `c or not x`, `c and x`, `c or x` and `c and not x` for the variables in scope."""
    for test in _tests(view):
        if isinstance(test, ast.Constant):
            continue
        for name in view.names(test):
            kinds, text = view.kinds(name, test), view.text(test)
            if name == identifier(test):
                continue
            cost = 1.0 if kinds & {"iter"} else 3.0 if "num" in kinds else 1.5
            loose = f"({text})" if isinstance(test, ast.IfExp) else text
            tight = f"({text})" if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) else loose
            yield view.replace(test, f"{loose} or not {name}", cost)
            yield view.replace(test, f"{tight} and {name}", cost)
            yield view.replace(test, f"{loose} or {name}", cost * 1.5)
            yield view.replace(test, f"{tight} and not {name}", cost * 1.5)
            if "num" in kinds:
                yield view.replace(test, f"{tight} and {name} > 0", 3.0)
                yield view.replace(test, f"{loose} or {name} <= 0", 3.0)


def borrow_condition(view: View) -> Iterator[Change]:
    """A condition of the same function joined to this one."""
    conditions: dict[ast.AST | None, list[ast.expr]] = {}
    for test in _tests(view):
        if isinstance(test, ast.Compare | ast.Call):
            conditions.setdefault(view.function(test), []).append(test)
    for test in _tests(view):
        text = view.text(test)
        text = f"({text})" if isinstance(test, ast.BoolOp | ast.IfExp) else text
        for other in conditions.get(view.function(test), []):
            if other is not test and not isinstance(test, ast.Constant) and view.function(test) is not None:
                yield view.replace(test, f"{text} and {view.text(other)}", 2.0)
                yield view.replace(test, f"{text} or {view.text(other)}", 2.0)
                yield view.replace(test, f"{text} and not ({view.text(other)})", 3.0)


def fixed_condition(view: View) -> Iterator[Change]:
    """A condition fixed to true or false (Kali): seldom right, so dear."""
    for test in _tests(view):
        if not isinstance(test, ast.Constant):
            yield view.replace(test, "True", 3.0)
            yield view.replace(test, "False", 3.0)


def null_default(view: View) -> Iterator[Change]:
    """`x.a` to `x.a if x is not None else None`, and `m[k]` to `m.get(k)` or to a value with a default."""
    for node in view.expressions:
        above = view.parents[node]
        if isinstance(node, ast.Attribute) and isinstance(above, ast.Return | ast.Assign) and identifier(node.value):
            text = f"{view.text(node)} if {view.text(node.value)} is not None else None"
            yield Change(view.start(node), view.end(node), text, 2.0)
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
            kinds = view.kind_of(node.value)
            if "dict" in kinds or not kinds & {"list", "str"}:
                key = view.text(node.slice)
                for default, cost in (("", 1.5), (", 0", 1.5), (", []", 2.0), (", ''", 3.0), (f", {key}", 4.0)):
                    yield view.replace(node, f"{view.text(node.value)}.get({key}{default})", cost)


def early_exit(view: View) -> Iterator[Change]:
    """A guard at the head of a function that returns a plain value for an empty, missing or small argument."""
    for node in view.nodes:
        if not isinstance(node, FUNCTIONS):
            continue
        first = next(
            (s for s in node.body if not isinstance(s, ast.Expr) or not isinstance(s.value, ast.Constant)), None
        )
        indent = view.indent(first) if first is not None else None
        if first is None or indent is None or isinstance(first, FUNCTIONS):
            continue
        at = view.line_start(view.start(first))
        for argument in node.args.args:
            kinds = view.kinds(argument.arg, first)
            if argument.arg not in ("self", "cls"):
                for condition, value, cost in _exits(argument.arg, kinds):
                    body = value if value.startswith("raise") else f"return {value}"
                    yield Change(at, at, f"{indent}if {condition}:\n{indent}    {body}\n", cost)


def _exits(name: str, kinds: Kinds) -> Iterator[tuple[str, str, float]]:
    if not kinds or kinds & {"iter", "obj"}:
        yield from ((f"not {name}", value, 2.0) for value in ("[]", "None", "0", name, "False", "''", "True"))
        yield f"not {name}", "raise ValueError", 2.0
        yield f"len({name}) <= 1", name, 2.5
    if not kinds or "obj" in kinds:
        yield from ((f"{name} is None", value, 2.5) for value in ("None", "False", "0", "[]"))
    if not kinds or "num" in kinds:
        yield from ((f"{name} <= 0", value, 3.0) for value in ("0", "1", "[]", "None", "False"))
        yield f"{name} < 0", "raise ValueError", 2.0
        yield f"{name} <= 0", "raise ValueError", 2.5


def jump(view: View) -> Iterator[Change]:
    """`break` to `continue` and back, `return` to `break` or `continue` in a loop, each to `pass`."""
    for node in view.nodes:
        start_end = (view.start(node), view.end(node)) if isinstance(node, ast.stmt) else (0, 0)
        if isinstance(node, ast.Break):
            yield Change(*start_end, "continue", 1)
        elif isinstance(node, ast.Continue):
            yield Change(*start_end, "break", 1)
        elif isinstance(node, ast.Pass) and _in_loop(view, node):
            yield from (Change(*start_end, other, 2) for other in ("continue", "break"))
        elif isinstance(node, ast.Return) and _in_loop(view, node):
            yield from (Change(*start_end, other, 3) for other in ("continue", "break"))


def _in_loop(view: View, node: ast.AST) -> bool:
    for above in view.ancestors(node):
        if isinstance(above, (*FUNCTIONS, ast.ClassDef)):
            return False
        if isinstance(above, LOOPS):
            return True
    return False


def swap_branches(view: View) -> Iterator[Change]:
    """The bodies of `if` and `else` exchanged (as a negated test, which keeps the text in place)."""
    for node in view.nodes:
        if isinstance(node, ast.If) and node.orelse and not isinstance(node.test, ast.UnaryOp | ast.Constant):
            yield Change(view.start(node.test), view.end(node.test), f"not ({view.text(node.test)})", 1)
        if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            start = view.start(node.orelse[0])
            if view.source.startswith("elif", start):
                yield Change(start, start + 4, "if", 1.5)
        elif isinstance(node, ast.If) and not node.orelse:
            yield from _join_elif(view, node)


def _join_elif(view: View, node: ast.If) -> Iterator[Change]:
    """`if` to `elif` after another `if`, and `if` to `while` (a condition that must be met again)."""
    start = view.start(node)
    if not view.source.startswith("if", start):
        return
    if any(after is node and isinstance(before, ast.If) for before, after in _siblings(view, node)):
        yield Change(start, start + 2, "elif", 1.5)
    yield Change(start, start + 2, "while", 3)


def _siblings(view: View, node: ast.AST) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    for name in BLOCK_FIELDS:
        block = getattr(view.parents[node], name, [])
        if isinstance(block, list):
            yield from pairwise(block)


def loop_else(view: View) -> Iterator[Change]:
    """`while` to `if` and `for x in xs` over a related range: the loop runs once too often or too seldom."""
    for node in view.nodes:
        if isinstance(node, ast.While) and not node.orelse and not isinstance(node.test, ast.Constant):
            if not any(isinstance(below, ast.Break | ast.Continue) for below in ast.walk(node)):
                yield Change(view.start(node), view.start(node) + 5, "if", 3)
        elif isinstance(node, ast.For) and called_name(node.iter) == "enumerate":
            yield from _enumerate_start(view, node.iter)


def _enumerate_start(view: View, node: ast.AST) -> Iterator[Change]:
    assert isinstance(node, ast.Call)
    if len(node.args) == 1 and not node.keywords:
        yield Change(view.end(node.args[0]), view.end(node.args[0]), ", 1", 1.5)

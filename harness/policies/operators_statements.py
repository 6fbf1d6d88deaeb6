"""Mutation operators on statements: inserted, deleted, moved, indented, and other values to return (GenProg, PAR)."""

import ast
from collections.abc import Iterator
from itertools import pairwise

from harness.policies.operators_kinds import Kinds, called_name, identifier
from harness.policies.operators_view import FUNCTIONS, LOOPS, Change, FunctionNode, View

SIMPLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return, ast.Raise, ast.Break, ast.Continue, ast.Delete, ast.Assert)
ENDS = (ast.Return, ast.Raise, ast.Break, ast.Continue)

EMPTY = {"[]": "append", "list()": "append", "deque()": "append", "set()": "add"}


class Place:
    """A point between two statements of a block, ready to take one more line."""

    def __init__(self, view: View, owner: ast.AST, block: list[ast.stmt], index: int) -> None:
        self.owner, self.block, self.index = owner, block, index
        self.last = index == len(block)
        self.anchor = block[index - 1] if self.last else block[index]
        self.indent = view.indent(self.anchor)
        if self.last:
            self.at = view.line_end(view.end(self.anchor))
            self.sound = self.indent is not None and not view.source[view.end(self.anchor) : self.at].lstrip(
                " \t"
            ).startswith(";")
        else:
            self.at = view.line_start(view.start(self.anchor))
            self.sound = self.indent is not None

    def insert(self, view: View, statement: str, cost: float) -> Change:
        missing = "\n" if self.last and self.at and view.source[self.at - 1] not in "\r\n" else ""
        return Change(self.at, self.at, f"{missing}{self.indent}{statement}\n", cost)


def _places(view: View, function: FunctionNode) -> Iterator[tuple[Place, float]]:
    """Where a statement may be missing: ends of blocks first, then before a closing return, then anywhere."""
    for owner, block in view.blocks_of.get(function, []):
        for index in range(len(block) + 1):
            place = Place(view, owner, block, index)
            after_end = index > 0 and isinstance(block[index - 1], ENDS)
            docstring = index == 0 and isinstance(block[0], ast.Expr) and isinstance(block[0].value, ast.Constant)
            if place.sound and not after_end and not docstring:
                closing = index == len(block) - 1 and isinstance(block[index], ast.Return)
                cost = 1.0 if place.last or closing else 1.3 if isinstance(owner, LOOPS) else 1.6
                yield place, cost * (0.8 if isinstance(owner, LOOPS) or owner is function else 1.0)


def insert_call(view: View) -> Iterator[Change]:
    """`xs.append(x)` and `seen.add(x)` for the collections and variables in scope."""
    for function in _functions(view):
        outer = [above for above in (function, *view.ancestors(function)) if isinstance(above, FUNCTIONS)]
        mutators = _mutators(view, outer[-1])
        for place, cost in _places(view, function):
            names = _visible(view, place)
            for collection in names:
                kinds = view.kinds(collection, place.anchor)
                method, used = mutators.get(collection, ("add" if "set" in kinds else "append", 2.5))
                if not kinds & {"set", "list"} and collection not in mutators:
                    continue
                for name in names:
                    if name != collection:
                        fit = 1.6 if view.kinds(name, place.anchor) & {"set", "dict", "list"} else 1.0
                        yield place.insert(view, f"{collection}.{method}({name})", cost * fit * used)


def _visible(view: View, place: Place) -> list[str]:
    names = view.names(place.anchor)
    if place.last:
        bound = [
            identifier(below) for below in ast.walk(place.anchor) if isinstance(getattr(below, "ctx", None), ast.Store)
        ]
        names = list(dict.fromkeys([*names, *(name for name in bound if name)]))
    return names


def _functions(view: View) -> list[FunctionNode]:
    return [node for node in view.nodes if isinstance(node, FUNCTIONS)]


def _mutators(view: View, function: FunctionNode) -> dict[str, tuple[str, float]]:
    """How each collection grows, with a cost: low for one that starts empty and is never added to."""
    found: dict[str, tuple[str, float]] = {}
    for node in ast.walk(function):
        if called_name(node) in ("append", "add", "appendleft", "push", "put") and isinstance(node, ast.Call):
            owner = identifier(node.func.value) if isinstance(node.func, ast.Attribute) else None
            if owner is not None:
                found.setdefault(owner, (called_name(node), 1.0))
    for node in ast.walk(function):
        owner = identifier(node.targets[0]) if isinstance(node, ast.Assign) else None
        if owner is not None and isinstance(node, ast.Assign) and view.text(node.value) in EMPTY:
            found.setdefault(owner, (EMPTY[view.text(node.value)], 0.7))
    return found


def insert_assignment(view: View) -> Iterator[Change]:
    """`a = b` for two variables in scope, `a = 0` or `a = []` anew, and `i += 1` for numbers."""
    for function in _functions(view):
        assigned = _assigned(function)
        for place, cost in _places(view, function):
            if isinstance(place.block[place.index - 1] if place.last else place.anchor, (*FUNCTIONS, ast.ClassDef)):
                continue
            names = _visible(view, place)
            for name in names:
                mine = view.kinds(name, place.anchor)
                if name not in assigned and not name.startswith("self."):
                    continue
                if "num" in mine or not mine:
                    step = cost if isinstance(place.owner, LOOPS) else cost * 2
                    yield place.insert(view, f"{name} += 1", step if mine else 3 * step)
                    yield place.insert(view, f"{name} -= 1", step * 2 if mine else 4 * step)
                for other in names:
                    theirs = view.kinds(other, place.anchor)
                    if other != name and (not mine or not theirs or mine & theirs):
                        yield place.insert(view, f"{name} = {other}", cost * (1.0 if mine & theirs else 1.4))


def _assigned(function: FunctionNode) -> set[str]:
    """Variables that the function assigns to; only those are assigned once more."""
    stores = (n for n in ast.walk(function) if isinstance(getattr(n, "ctx", None), ast.Store))
    return {name for name in map(identifier, stores) if name is not None}


def insert_copy(view: View) -> Iterator[Change]:
    """A simple statement of the same function or class written once more elsewhere (GenProg's ingredient)."""
    for function in _functions(view):
        statements = [n for n in ast.walk(function) if isinstance(n, SIMPLE) and "\n" not in view.text(n)]
        texts = dict.fromkeys(
            view.text(n) for n in statements if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
        )
        for place, cost in _places(view, function):
            near = {view.text(s) for s in place.block[max(0, place.index - 1) : place.index + 1]}
            for text in texts:
                jump = text in ("break", "continue")
                if text in near or (jump and not _inside_loop(view, place)):
                    continue
                if text.startswith("return") and not place.last:
                    continue
                yield place.insert(view, text, cost * 1.5)


def _inside_loop(view: View, place: Place) -> bool:
    for above in (place.owner, *view.ancestors(place.owner)):
        if isinstance(above, LOOPS):
            return True
        if isinstance(above, FUNCTIONS):
            return False
    return False


def insert_exit(view: View) -> Iterator[Change]:
    """`break` or `continue` at the end of a branch in a loop, and `return` of a variable at the end of a block."""
    for function in _functions(view):
        for place, cost in _places(view, function):
            if not place.last:
                continue
            if isinstance(place.owner, ast.If) and _inside_loop(view, place):
                yield place.insert(view, "break", cost)
                yield place.insert(view, "continue", cost)
            for name in _visible(view, place):
                first = 1.0 if place.owner is function else 2.5
                yield place.insert(view, f"return {name}", cost * first)


def missing_return(view: View) -> Iterator[Change]:
    """`f(x)` to `return f(x)`, `return f(x)` to `f(x)`, and `yield x` to `yield from x` and back."""
    for node in view.nodes:
        if isinstance(node, ast.Expr) and view.function(node) and not isinstance(node.value, ast.Constant):
            if isinstance(node.value, ast.Yield) and node.value.value is not None:
                yield Change(view.start(node.value), view.start(node.value.value), "yield from ", 1)
                yield Change(view.start(node.value), view.start(node.value.value), "return ", 3)
            elif isinstance(node.value, ast.YieldFrom):
                yield Change(view.start(node.value), view.start(node.value.value), "yield ", 1)
            else:
                yield Change(view.start(node), view.start(node), "return ", 1)
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            yield Change(view.start(node), view.end(node), view.text(node.value), 3)
        elif isinstance(node, ast.Return) and node.value is not None:
            yield Change(view.start(node), view.start(node.value), "yield ", 5)


def return_value(view: View) -> Iterator[Change]:
    """Another value to return: a variable, `[x]` for `[]`, a condition for a plain truth value."""
    for node in view.nodes:
        if not isinstance(node, ast.Return | ast.Yield):
            continue
        value = node.value
        text = view.text(value) if value is not None else ""
        forms: dict[str, float] = {}
        for name in view.names(node):
            kinds = view.kinds(name, node)
            forms[f"[{name}]"] = 1.0 if text == "[]" and "iter" not in kinds else 2.5 if text == "[]" else 4.0
            forms[name] = 2.0 if text else 1.5
            if isinstance(value, ast.Constant) and isinstance(value.value, bool):
                forms.update(_truths(name, kinds))
        forms.update(_literals(text))
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):
            forms.update((condition, 2.5) for condition in _conditions(view, node))
        for form, cost in forms.items():
            if value is None:
                yield Change(view.end(node), view.end(node), f" {form}", cost)
            elif form != text:
                yield view.replace(value, form, cost)


def _truths(name: str, kinds: Kinds) -> Iterator[tuple[str, float]]:
    yield f"not {name}", 1.5
    if not kinds or "num" in kinds:
        yield f"{name} == 0", 1.0
        yield f"{name} > 0", 1.5
    yield f"bool({name})", 2.0
    if not kinds - {"obj"}:
        yield f"{name} is None", 2.5
        yield f"{name} is not None", 2.5


def _literals(text: str) -> Iterator[tuple[str, float]]:
    plain = {"[]": ["[[]]", "None"], "[[]]": ["[]"], "None": ["[]", "False"], "": ["None"], "{}": ["None"], "0": ["1"]}
    yield from ((form, 1.0) for form in plain.get(text, []))
    if text in ("None", "''", '""', "0", "-1", "False", "True"):
        yield from ((form, 2.0) for form in ("None", "''", "0", "-1", "1", "False", "True") if form != text)


def _conditions(view: View, node: ast.AST) -> list[str]:
    """Comparisons of the same function, as ingredients."""
    function = view.function(node)
    found = [n for n in ast.walk(function) if isinstance(n, ast.Compare)] if function else []
    return list(dict.fromkeys(view.text(n) for n in found))


def delete_statement(view: View) -> Iterator[Change]:
    """A simple statement left out (Kali): `pass` in its place."""
    for node in view.nodes:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, SIMPLE) and not docstring and view.function(node) is not None:
            yield Change(view.start(node), view.end(node), "pass", 2 if isinstance(node, ast.Expr) else 3)


def swap_statements(view: View) -> Iterator[Change]:
    """Two neighbouring simple statements in the other order."""
    for _, block in view.blocks:
        for one, two in pairwise(block):
            alone = view.indent(one) is not None and view.indent(two) is not None
            if alone and isinstance(one, SIMPLE) and isinstance(two, SIMPLE) and not isinstance(two, ENDS):
                gap = view.source[view.end(one) : view.start(two)]
                if "#" not in gap and ";" not in gap:
                    yield Change(view.start(one), view.end(two), view.text(two) + gap + view.text(one), 1)


def indentation(view: View) -> Iterator[Change]:
    """The last statement of a block moved out of it, or the next one moved in."""
    for owner, block in view.blocks:
        outer = view.indent(owner) if isinstance(owner, ast.stmt) and not isinstance(owner, ast.ClassDef) else None
        if outer is None or isinstance(owner, FUNCTIONS):
            continue
        last, inner = block[-1], view.indent(block[-1])
        tail = (
            not getattr(owner, "orelse", [])
            and not getattr(owner, "finalbody", [])
            and not getattr(owner, "handlers", [])
        )
        if inner is None or not tail:
            continue
        if len(block) > 1:
            yield _shift(view, last, inner, outer, 1.0)
        following = view.following.get(owner)
        if following is not None and view.indent(following) == outer:
            yield _shift(view, following, outer, inner, 1.0)


def _shift(view: View, statement: ast.stmt, old: str, new: str, cost: float) -> Change:
    start, end = view.line_start(view.start(statement)), view.end(statement)
    lines = view.source[start:end].splitlines(keepends=True)
    return Change(start, end, "".join(new + line.removeprefix(old) if line.strip() else line for line in lines), cost)


def rebind(view: View) -> Iterator[Change]:
    """`a.update(b)` to `a = b` and to other ways of joining, and `a = a.f(b)` for a call whose result is lost."""
    for node in view.nodes:
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        call = node.value
        if isinstance(call.func, ast.Attribute) and isinstance(
            call.func.value, ast.Name | ast.Attribute | ast.Subscript
        ):
            owner = view.text(call.func.value)
            if owner == "self":
                continue
            yield Change(view.start(node), view.start(node), f"{owner} = ", 1.5)
            if len(call.args) == 1 and not isinstance(call.args[0], ast.Starred | ast.GeneratorExp):
                for joint in (" = ", " += ", " |= "):
                    yield Change(view.start(node), view.end(node), owner + joint + view.text(call.args[0]), 1.5)

"""Mutation operators on names: another variable, a sibling attribute, an expression copied from nearby."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from harness.policies.operators_kinds import identifier
from harness.policies.operators_view import COMPREHENSIONS, FUNCTIONS, Change, View

ANTONYMS = (
    ("incoming", "outgoing"), ("in", "out"), ("left", "right"), ("start", "end"), ("start", "stop"), ("min", "max"),
    ("first", "last"), ("prev", "next"), ("previous", "next"), ("head", "tail"), ("top", "bottom"), ("up", "down"),
    ("low", "high"), ("lo", "hi"), ("lower", "upper"), ("before", "after"), ("begin", "end"), ("open", "close"),
    ("row", "col"), ("rows", "cols"), ("row", "column"), ("width", "height"), ("x", "y"), ("source", "target"),
    ("src", "dst"), ("src", "dest"), ("parent", "child"), ("parents", "children"), ("read", "write"), ("get", "set"),
    ("add", "remove"), ("push", "pop"), ("key", "value"), ("keys", "values"), ("old", "new"), ("input", "output"),
    ("predecessor", "successor"), ("predecessors", "successors"), ("front", "back"), ("inner", "outer"),
    ("enabled", "disabled"), ("credit", "debit"), ("buy", "sell"), ("from", "to"), ("true", "false"), ("yes", "no"),
    ("lesser", "greater"), ("less", "greater"), ("above", "below"), ("odd", "even"), ("positive", "negative"),
)  # fmt: skip
MAX_COPIES = 10  # expressions from nearby that are tried for one expression


def words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|[A-Z][a-z]*|\d+", name.replace("self.", "")))


def closeness(view: View, node: ast.AST, name: str, other: str) -> float:
    """The cost of writing `other` for `name`: low for the same kind or a shared word, high for another kind."""
    mine, theirs = view.kinds(name, node), view.kinds(other, node)
    known = 1.0 if mine & theirs else 5.0
    cost = known if mine and theirs else 1.3 if mine == theirs else 1.8
    if words(name) & words(other) or counterpart(name) == other:
        cost *= 0.7
    return cost


def counterpart(name: str) -> str | None:
    """`outgoing_edges` for `incoming_edges`: the name with one word turned into its opposite."""
    for one, two in (*ANTONYMS, *(pair[::-1] for pair in ANTONYMS)):
        turned = re.sub(rf"(?<![a-zA-Z]){one}(?![a-zA-Z])", two, name)
        if turned != name:
            return turned
    return None


def variable(view: View) -> Iterator[Change]:
    """Another variable in scope for the one that is read or called with."""
    uses: dict[str, set[str]] = {}
    for pool in _attributes(view):
        for attr, owners in pool.items():
            uses.setdefault(attr, set()).update(owners)
    reads = Counter((view.function(node), identifier(node)) for node in view.expressions)
    for node in view.expressions:
        name = identifier(node)
        above = view.parents[node]
        if name is None or (isinstance(above, ast.Call) and above.func is node) or name in ("self", "cls"):
            continue
        if not isinstance(node, ast.Name) and isinstance(above, ast.Attribute):
            continue
        known = 1.0 if view.kinds(name, node) or name in view.names(node) else 3.0
        known *= 1.6 if reads[view.function(node), name] == 1 else 1.0  # the edit would leave a variable unused
        for other in view.names(node):
            if other != name:
                yield view.replace(node, other, known * _suits(uses, above, other) * closeness(view, node, name, other))


def _suits(uses: dict[str, set[str]], above: ast.AST, other: str) -> float:
    """Dearer for the owner of an attribute that the file never reads from `other`."""
    return 2.5 if isinstance(above, ast.Attribute) and other not in uses.get(above.attr, set()) else 1.0


def target(view: View) -> Iterator[Change]:
    """Another variable in scope for the one that is assigned to, and swapped targets of an unpacking."""
    for node in view.nodes:
        if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript) or not isinstance(node.ctx, ast.Store):
            continue
        above = view.parents[node]
        if isinstance(above, ast.Assign | ast.AugAssign) and not isinstance(node, ast.Subscript):
            name = identifier(node)
            if name is not None and view.function(node) is not None:
                for other in view.names(node):
                    if other != name:
                        yield Change(view.start(node), view.end(node), other, 1.5 * closeness(view, node, name, other))
        elif isinstance(above, ast.Tuple) and above.elts[0] is node and len(above.elts) == 2:
            other_text = view.text(above.elts[1])
            gap = view.source[view.end(node) : view.start(above.elts[1])]
            yield Change(view.start(node), view.end(above.elts[1]), other_text + gap + view.text(node), 1)


def attribute(view: View) -> Iterator[Change]:
    """A sibling attribute or method: the opposite by its words, or one that the file uses on the same object."""
    data, methods = _attributes(view)
    for node in view.nodes:
        if not isinstance(node, ast.Attribute) or node in view.hidden:
            continue
        called = _is_called(view, node)
        pool = methods if called else data
        owner = view.text(node.value)
        start = view.end(node) - len(node.attr)
        opposite = counterpart(node.attr)
        if opposite is not None and (opposite in pool or not called):
            yield Change(start, view.end(node), opposite, 0.7 if opposite in pool else 1.5)
        for other, owners in pool.items():
            if other not in (node.attr, opposite):
                near = bool(words(other) & words(node.attr))
                yield Change(start, view.end(node), other, (1.5 if owner in owners else 4.0) * (0.7 if near else 1))


def _is_called(view: View, node: ast.Attribute) -> bool:
    above = view.parents[node]
    return isinstance(above, ast.Call) and above.func is node


def _attributes(view: View) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Attributes and methods used in the file, each with the expressions that it is used on."""
    data: dict[str, set[str]] = {}
    methods: dict[str, set[str]] = {}
    for node in view.nodes:
        if isinstance(node, ast.Attribute):
            pool = methods if _is_called(view, node) else data
            pool.setdefault(node.attr, set()).add(view.text(node.value))
        elif isinstance(node, FUNCTIONS) and isinstance(view.parents[node], ast.ClassDef) and node.name[:2] != "__":
            methods.setdefault(node.name, set()).add("self")
    return data, methods


def function_name(view: View) -> Iterator[Change]:
    """Another function of this file for the one that is called."""
    plain = [name for name, node in view.callables.items() if not isinstance(view.parents[node], ast.ClassDef)]
    for node in view.expressions:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in plain:
            for other in plain:
                if other != node.func.id:
                    near = words(other) & words(node.func.id)
                    yield Change(view.start(node.func), view.end(node.func), other, 2 if near else 4)


def missing_self(view: View) -> Iterator[Change]:
    """`name` to `self.name` where the class has such an attribute, and `self.name` to a local or parameter `name`."""
    for node in view.nodes:
        if node in view.hidden:
            continue
        if isinstance(node, ast.Name):
            scope = view.scope(node)
            if f"self.{node.id}" in scope.bound or _is_method(view, node):
                yield Change(view.start(node), view.end(node), f"self.{node.id}", 1)
        elif isinstance(node, ast.Attribute) and identifier(node) and node.attr in view.scope(node).bound:
            yield Change(view.start(node), view.end(node), node.attr, 1.5)


def _is_method(view: View, node: ast.Name) -> bool:
    function = view.callables.get(node.id)
    owner = next((above for above in view.ancestors(node) if isinstance(above, ast.ClassDef)), None)
    return function is not None and view.parents[function] is owner and owner is not None


COPIED = (ast.Subscript, ast.Call, ast.Attribute, ast.BinOp, ast.Compare)
REPLACED = (*COPIED, ast.Name)
Pool = dict[str, tuple[ast.expr, set[str]]]
"""The expressions of a function by their text, each with the names in it."""


def expression(view: View) -> Iterator[Change]:
    """An expression of the same function in place of this one, the most alike first."""
    pools: dict[ast.AST, Pool] = {}
    for node in view.nodes:
        if not isinstance(node, REPLACED) or node in view.hidden:
            continue
        function = view.function(node)
        if function is None or not _copy_place(view, node):
            continue
        if function not in pools:
            pools[function] = _pool(view, function)
        yield from _copies(view, node, pools[function])


def _pool(view: View, function: ast.AST) -> Pool:
    found: Pool = {}
    for node in ast.walk(function):
        if isinstance(node, COPIED) and node not in view.hidden and _copy_place(view, node):
            inside = any(isinstance(above, (*COMPREHENSIONS, ast.Lambda)) for above in view.ancestors(node))
            text = view.text(node)
            if not inside and len(text) <= 40 and "\n" not in text:
                found.setdefault(text, (node, _ingredients(node)))
    return found


def _copy_place(view: View, node: ast.AST) -> bool:
    above = view.parents[node]
    if isinstance(above, ast.Attribute) or (isinstance(above, ast.Call) and above.func is node):
        return False
    if isinstance(above, ast.Subscript) and above.value is node:
        return not isinstance(node, ast.Name)
    return isinstance(above, ast.expr | ast.Return | ast.Assign | ast.If | ast.While | ast.For | ast.keyword)


def _copies(view: View, node: ast.expr, pool: Pool) -> Iterator[Change]:
    stored = isinstance(getattr(node, "ctx", None), ast.Store)
    mine, text = _ingredients(node), view.text(node)
    ranked: list[tuple[float, str]] = []
    if not isinstance(node, ast.Name) and not stored:
        kinds = view.kind_of(node)
        plain = 1.5 if isinstance(node, ast.Call) else 2.0
        for name in view.names(node):
            theirs = view.kinds(name, node)
            ranked.append((1.2 if kinds & theirs else 5.0 if kinds and theirs else plain, name))
    for other, (form, theirs_too) in pool.items():
        nested = other in text or text in other
        if other != text and not (stored and not isinstance(form, ast.Subscript | ast.Attribute)):
            if isinstance(node, ast.Compare) != isinstance(form, ast.Compare):
                continue
            alike = len(mine & theirs_too) / len(mine | theirs_too)
            same = type(form) is type(node)
            ranked.append(((1.5 if same else 2.5) + 2 * (1 - alike) + (1 if nested else 0), other))
    ranked.sort()
    for cost, other in ranked[:MAX_COPIES]:
        yield view.replace(node, other, cost)


def _ingredients(node: ast.AST) -> set[str]:
    return {below.id for below in ast.walk(node) if isinstance(below, ast.Name)} or {""}

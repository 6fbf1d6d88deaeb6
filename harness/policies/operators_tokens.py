"""Mutation operators on single tokens: comparisons, arithmetic, logic, constants and sibling functions.

The relational, arithmetic and logical replacements are those of jMutRepair (Martinez and Monperrus, ISSTA 2016); the
off-by-one changes are those of PAR and TBar. Costs order the alternatives inside one operator.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from harness.policies.operators_kinds import called_name, identifier
from harness.policies.operators_view import Change, View

COMPARISONS: dict[str, dict[str, float]] = {
    "<": {"<=": 1, ">": 1.5, ">=": 2, "!=": 4},
    "<=": {"<": 1, ">=": 1.5, ">": 2, "==": 4},
    ">": {">=": 1, "<": 1.5, "<=": 2, "!=": 4},
    ">=": {">": 1, "<=": 1.5, "<": 2, "==": 4},
    "==": {"!=": 1, "<=": 2, ">=": 2, "in": 3, "is": 5, "<": 5, ">": 5},
    "!=": {"==": 1, ">": 2, "<": 2, "not in": 3, "is not": 5},
    "is": {"is not": 1, "==": 1.5},
    "is not": {"is": 1, "!=": 1.5},
    "in": {"not in": 1, "==": 3},
    "not in": {"in": 1, "!=": 3},
}
ARITHMETIC: dict[str, dict[str, float]] = {
    "+": {"-": 1, "*": 3, "|": 4},
    "-": {"+": 1, "*": 4, "/": 4, "%": 4},
    "*": {"/": 1.5, "+": 2, "**": 2, "//": 2.5},
    "/": {"//": 1, "*": 1.5, "%": 2.5},
    "//": {"/": 1, "%": 1.5, "*": 2.5},
    "%": {"//": 1, "/": 2, "*": 3},
    "**": {"*": 1, "//": 4},
    "&": {"|": 1, "^": 1.5, "-": 2},
    "|": {"&": 1, "^": 1.5, "-": 2},
    "^": {"&": 1, "|": 1},
    "<<": {">>": 1},
    ">>": {"<<": 1},
    "@": {"*": 1},
}
MAX_STRINGS = 200  # strings of the file that are tried for another
SIBLINGS = (
    ("any", "all"), ("min", "max"), ("lower", "upper"), ("title", "capitalize"), ("strip", "lstrip", "rstrip"),
    ("startswith", "endswith"), ("find", "rfind"), ("index", "rindex"), ("split", "rsplit", "splitlines"),
    ("append", "extend"), ("add", "update"), ("union", "intersection", "difference", "symmetric_difference"),
    ("issubset", "issuperset"), ("keys", "values", "items"), ("pop", "popleft"), ("append", "appendleft"),
    ("floor", "ceil", "trunc", "round"), ("int", "float", "round"), ("sorted", "reversed", "list"),
    ("get", "setdefault"), ("discard", "remove"), ("isdigit", "isalpha", "isalnum"), ("ljust", "rjust", "center"),
    ("partition", "rpartition"),
    ("sum", "max", "len"), ("list", "set", "tuple"), ("str", "repr"), ("deepcopy", "copy"), ("popitem", "pop"),
    ("removeprefix", "removesuffix"), ("sin", "cos"), ("isinstance", "issubclass"), ("encode", "decode"),
    ("put", "put_nowait"), ("dumps", "dump"), ("loads", "load"), ("heappush", "heappushpop", "heapreplace"),
    ("bisect_left", "bisect_right", "bisect"), ("permutations", "combinations", "product"), ("casefold", "lower"),
)  # fmt: skip


def _token(view: View, start: int, end: int, pattern: str) -> tuple[int, int] | None:
    """Where an operator stands in the gap between two operands."""
    gap = view.source[start:end]
    found = None if "#" in gap else re.search(pattern, gap)
    return (start + found.start(), start + found.end()) if found else None


def comparison(view: View) -> Iterator[Change]:
    """`<` to `<=`, `==` to `!=`, `in` to `not in` and so on."""
    for node in view.expressions:
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for left, right in pairwise(sides):
            at = _token(view, view.end(left), view.start(right), r"[<>=!]+|\bnot\s+in\b|\bis\s+not\b|\bis\b|\bin\b")
            if at:
                written = " ".join(view.source[at[0] : at[1]].split())
                none = isinstance(right, ast.Constant) and right.value is None
                for other, cost in COMPARISONS.get(written, {}).items():
                    yield Change(*at, other, cost * 3 if none and other not in ("is", "is not", "==", "!=") else cost)


def boundary(view: View) -> Iterator[Change]:
    """`x == 0` to `x <= 1` (operator and constant at once), and `not x` to `len(x) <= 1`."""
    for node in view.expressions:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            left, right = node.left, node.comparators[0]
            if isinstance(right, ast.Constant) and type(right.value) is int:
                up, down = ("<=", ">=") if isinstance(node.ops[0], ast.Eq) else (">", "<")
                start, end = view.end(left), view.end(right)
                yield Change(start, end, f" {up} {right.value + 1}", 1)
                yield Change(start, end, f" {down} {right.value - 1}", 1.5)
        operand = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else None
        if operand is not None and "iter" in view.kind_of(operand):
            yield view.replace(node, f"len({view.text(operand)}) <= 1", 2)


def arithmetic(view: View) -> Iterator[Change]:
    """`+` to `-`, `/` to `//`, `&` to `|` and so on."""
    for node in view.expressions:
        if isinstance(node, ast.BinOp):
            at = _token(view, view.end(node.left), view.start(node.right), r"\*\*|//|<<|>>|[-+*/%&|^@]")
            text = isinstance(node.op, ast.Mod) and "str" in view.kind_of(node.left)
            if at and not text:
                for other, cost in ARITHMETIC[view.source[at[0] : at[1]]].items():
                    yield Change(*at, other, cost)


def assignment(view: View) -> Iterator[Change]:
    """`+=` to `-=` or `=`, and `=` to `+=` when the target is already bound."""
    for node in view.nodes:
        if isinstance(node, ast.AugAssign):
            at = _token(view, view.end(node.target), view.start(node.value), r"(\*\*|//|<<|>>|[-+*/%&|^@])=")
            if at:
                for other, cost in ARITHMETIC[view.source[at[0] : at[1] - 1]].items():
                    yield Change(*at, other + "=", cost)
                yield Change(*at, "=", 1.5)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and not isinstance(node.targets[0], ast.Tuple):
            at = _token(view, view.end(node.targets[0]), view.start(node.value), r"=")
            kinds = view.kind_of(node.targets[0])
            if at and (not kinds or kinds & {"num", "list", "str"}) and isinstance(view.parents[node], _BRANCHES):
                yield Change(*at, "+=", 2)
                yield Change(*at, "-=", 4)


_BRANCHES = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.AsyncFunctionDef, ast.ExceptHandler)


def logic(view: View) -> Iterator[Change]:
    """`and` to `or` and back, in the whole chain of operands."""
    for node in view.expressions:
        if isinstance(node, ast.BoolOp):
            word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            pieces = [view.source[view.start(node) : view.end(node.values[0])]]
            for left, right in pairwise(node.values):
                gap = view.source[view.end(left) : view.start(right)]
                pieces.append(re.sub(rf"\b{word}\b", other, gap, count=1) + view.text(right))
            tail = view.source[view.end(node.values[-1]) : view.end(node)]
            yield view.replace(node, "".join(pieces) + tail)


def siblings(view: View) -> Iterator[Change]:
    """`any` to `all`, `min` to `max`, `strip` to `rstrip`: a function for its usual counterpart."""
    for node in view.expressions:
        name = called_name(node)
        if not isinstance(node, ast.Call) or not name:
            continue
        end = view.end(node.func)
        for group in (group for group in SIBLINGS if name in group):
            for other in group:
                if other != name:
                    yield Change(end - len(name), end, other, 1 if len(group) == 2 else 1.5)


def swap_operands(view: View) -> Iterator[Change]:
    """`a - b` to `b - a`, `a < b` to `b < a`, and `s + t` to `t + s`."""
    for node in view.expressions:
        if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Mult | ast.BitAnd | ast.BitOr | ast.BitXor):
            left, right = node.left, node.right
            constant = isinstance(left, ast.Constant) or isinstance(right, ast.Constant)
            cost = 1.0 if not constant else 3.0
            if isinstance(node.op, ast.Add) and "num" in view.kind_of(left) | view.kind_of(right):
                continue
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn | ast.Lt | ast.Gt):
            left, right, cost = node.left, node.comparators[0], 3.0
        else:
            continue
        gap = view.source[view.end(left) : view.start(right)]
        if "(" not in gap and ")" not in gap:
            parts = (_held(view, right), gap, _held(view, left))
            yield Change(view.start(left), view.end(right), "".join(parts), cost)


def _held(view: View, node: ast.expr) -> str:
    """The text of an operand, safe on either side of an operator."""
    compound = isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare | ast.IfExp | ast.Lambda)
    return f"({view.text(node)})" if compound else view.text(node)


def off_by_one(view: View) -> Iterator[Change]:
    """`e` to `e + 1` and `e - 1` wherever a number is used: bounds, indices, arguments, comparisons, results."""
    for node in view.expressions:
        cost = _numeric_place(view, node)
        if cost is None:
            continue
        if isinstance(node, ast.Constant):
            yield from _next_constants(view, node, cost)
        elif isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
            continue  # its constant is changed instead
        else:
            text = view.text(node)
            text = f"({text})" if isinstance(node, ast.IfExp | ast.BoolOp) else text
            yield view.replace(node, f"{text} + 1", cost)
            yield view.replace(node, f"{text} - 1", cost)


def _next_constants(view: View, node: ast.Constant, cost: float) -> Iterator[Change]:
    above, value = view.parents[node], node.value
    assert isinstance(value, int)
    for other in (value + 1, value - 1):
        if (
            isinstance(above, ast.BinOp)
            and isinstance(above.op, ast.Add | ast.Sub)
            and above.right is node
            and not other
        ):
            yield view.replace(above, view.text(above.left), cost)
        elif other >= 0:
            yield Change(view.start(node), view.end(node), str(other), cost)
        else:
            yield view.replace(node, str(other), cost)


def _numeric_place(view: View, node: ast.expr) -> float | None:
    """How unlikely a number is to be wrong here; None where none can be, or where the change is made elsewhere."""
    above = view.parents[node]
    if isinstance(node, ast.Constant):
        return 1.0 if type(node.value) is int and not isinstance(above, ast.UnaryOp | ast.FormattedValue) else None
    kinds = view.kind_of(node)
    numeric = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.BinOp | ast.Subscript)
    if not numeric or (kinds and "num" not in kinds):
        return None
    place = _operand_place(node, above) if isinstance(above, ast.BinOp) else _place(view, node, above)
    return place if kinds or place is None else 2 * place


def _place(view: View, node: ast.expr, above: ast.AST) -> float | None:
    if isinstance(above, ast.Tuple):
        return 1.5 if isinstance(view.parents[above], ast.Subscript) else 4.0
    if isinstance(above, ast.Call) and node in above.args:
        return 1.0 if called_name(above) in ("range", *view.callables) else 2.0
    if isinstance(above, ast.Slice) or (isinstance(above, ast.Subscript) and node is above.slice):
        return 1.0
    return 1.5 if isinstance(above, ast.Compare | ast.Return | ast.Assign | ast.Yield) else None


def _operand_place(node: ast.expr, above: ast.BinOp) -> float | None:
    if isinstance(above.op, ast.Add | ast.Sub) and above.left is not node:
        return None
    return 1.0 if called_name(node) == "len" else 3.0


def constants(view: View) -> Iterator[Change]:
    """Other values for a constant: flipped truth, other sign, zero, one, and strings that the file uses elsewhere."""
    strings = _strings(view)
    for node in view.expressions:
        if not isinstance(node, ast.Constant):
            continue
        value, start, end = node.value, view.start(node), view.end(node)
        if isinstance(value, bool):
            yield Change(start, end, str(not value), 1)
            yield Change(start, end, "None", 4)
        elif value is None:
            yield from (Change(start, end, other, 2.5) for other in ("0", "''", "[]", "{}", "False", "True"))
        elif isinstance(value, int | float):
            yield from _numbers(view, node, value)
        elif isinstance(value, str) and not isinstance(view.parents[node], ast.JoinedStr | ast.FormattedValue):
            yield from _texts(node, strings, start, end)


def _numbers(view: View, node: ast.Constant, value: float) -> Iterator[Change]:
    if isinstance(view.parents[node], ast.UnaryOp):
        yield Change(view.start(view.parents[node]), view.end(node), view.text(node), 1.5)
        return
    others = [0, 1, 2, 10, 100] if isinstance(value, int) else [value * 10, value / 10, 0.0, 1.0, 1 - value]
    if value:
        yield view.replace(node, f"-{view.text(node)}", 1.5)
    for other in others:
        if other != value and other >= 0:
            yield Change(view.start(node), view.end(node), repr(other), 3)
    if value == 0:
        yield view.replace(node, "float('inf')", 4)
        yield view.replace(node, "None", 4)


def _strings(view: View) -> list[str]:
    found = (n.value for n in view.expressions if isinstance(n, ast.Constant))
    return list(dict.fromkeys(value for value in found if isinstance(value, str) and len(value) <= 40))[:MAX_STRINGS]


def _texts(node: ast.Constant, strings: list[str], start: int, end: int) -> Iterator[Change]:
    """Blank for empty and back, and the file's other strings, most alike first."""
    value = str(node.value)
    near = [text for text in strings if text != value and len(text) <= 2 * len(value) + 2]
    near.sort(key=lambda text: (text.casefold() != value.casefold(), len(set(text) ^ set(value))))
    others = {**dict.fromkeys(near[:8], 2.0), **dict.fromkeys(({"": [" "], " ": [""]}.get(value, [""])), 3.0)}
    for other, cost in others.items():
        yield Change(start, end, repr(other), cost)


def negation(view: View) -> Iterator[Change]:
    """A condition negated, or its `not` or minus sign dropped."""
    for node in view.expressions:
        if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
            yield view.replace(node, view.text(node.operand))
        above = view.parents[node]
        test = node is getattr(above, "test", None) or (isinstance(above, ast.comprehension) and node in above.ifs)
        if (test or isinstance(above, ast.BoolOp)) and not isinstance(node, ast.UnaryOp | ast.BoolOp | ast.Constant):
            text = view.text(node)
            yield view.replace(node, f"not {text}", 1.5 if identifier(node) or isinstance(node, ast.Call) else 2.5)
        elif test and isinstance(node, ast.BoolOp):
            yield view.replace(node, f"not ({view.text(node)})", 2)

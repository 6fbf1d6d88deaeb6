"""Guesses at what kind of value an expression holds, from the way it is used alone.

Kinds are "num", "list", "set", "dict", "str", "obj" and "call"; "iter" and "index" say what can be done with a value.
They only order the candidates: a wrong guess makes an edit late, never lost.
"""

import ast
from collections.abc import Callable, Iterator, Set

Kinds = Set[str]
NUM, SET = frozenset({"num"}), frozenset({"set", "iter"})
LIST, STR, DICT = (frozenset({kind, "iter", "index"}) for kind in ("list", "str", "dict"))
KIND_OF_CALL: dict[str, Kinds] = {
    **dict.fromkeys(("list", "sorted", "range", "split", "splitlines", "copy"), LIST),
    **dict.fromkeys(("str", "join", "strip", "lower", "upper", "replace", "format", "repr"), STR),
    **dict.fromkeys(("dict", "defaultdict", "Counter", "OrderedDict"), DICT),
    **dict.fromkeys(("set", "frozenset"), SET),
    **dict.fromkeys(("len", "sum", "abs", "int", "float", "round", "ord", "count", "index", "find", "max", "min"), NUM),
    **dict.fromkeys(("deque",), LIST),
}
KIND_OF_METHOD: dict[str, Kinds] = {
    **dict.fromkeys(("append", "extend", "insert", "sort", "reverse", "appendleft", "popleft"), LIST),
    **dict.fromkeys(("add", "discard", "union", "issuperset", "issubset", "difference"), SET),
    **dict.fromkeys(("items", "keys", "values", "setdefault", "get"), DICT),
    **dict.fromkeys(("split", "strip", "lower", "upper", "startswith", "endswith", "join", "rfind", "replace"), STR),
}
KIND_OF_ANNOTATION: dict[str, Kinds] = {
    "int": NUM, "float": NUM, "str": STR, "list": LIST, "List": LIST, "dict": DICT, "Dict": DICT, "set": SET,
    "Set": SET, "Sequence": LIST, "Iterable": frozenset({"iter"}), "Mapping": DICT,
}  # fmt: skip


def identifier(node: ast.AST) -> str | None:
    """The text of a plain name or of `self.name`, the two forms that are treated as variables."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return f"self.{node.attr}"
    return None


def called_name(node: ast.AST) -> str:
    """`f` for `f(...)` and for `x.f(...)`, else an empty string."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def kind_of_form(node: ast.AST) -> Kinds:
    if isinstance(node, ast.Constant):
        return STR if isinstance(node.value, str) else NUM if isinstance(node.value, int | float) else set()
    if isinstance(node, ast.List | ast.ListComp):
        return LIST
    if isinstance(node, ast.Set | ast.SetComp):
        return SET
    if isinstance(node, ast.Dict | ast.DictComp):
        return DICT
    if isinstance(node, ast.JoinedStr):
        return STR
    return KIND_OF_CALL.get(called_name(node), set())


def hints(node: ast.AST, kind_of: Callable[[ast.AST], Kinds]) -> Iterator[tuple[ast.AST, Kinds]]:
    """What one node tells about the kinds of the names in it."""
    if isinstance(node, ast.Assign):
        yield from ((target, kind_of(node.value)) for target in node.targets)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield node.target, kind_of(node.value)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and not isinstance(node.op, ast.Add | ast.Mod | ast.Mult):
        yield from ((side, NUM) for side in ast.iter_child_nodes(node) if isinstance(side, ast.expr))
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        sides = [side for side in ast.iter_child_nodes(node) if isinstance(side, ast.expr)]
        yield from ((side, kind_of(other)) for side, other in zip(sides, reversed(sides), strict=True))
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
        yield from (
            (side, kind_of(node.left) or kind_of(node.comparators[0])) for side in [node.left, *node.comparators]
        )
    elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
        yield node.value, {"index"}
    elif isinstance(node, ast.Subscript):
        yield node.value, {"index", "iter"}
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.iter, {"iter"}
        yield from _loop_hints(node)
    elif isinstance(node, ast.Call):
        yield from _call_hints(node)
    elif isinstance(node, ast.Attribute):
        yield node.value, {"obj"}


def _loop_hints(node: ast.For | ast.comprehension) -> Iterator[tuple[ast.AST, Kinds]]:
    if called_name(node.iter) == "range":
        yield node.target, NUM
    elif called_name(node.iter) == "enumerate" and isinstance(node.target, ast.Tuple):
        yield node.target.elts[0], NUM


def _call_hints(node: ast.Call) -> Iterator[tuple[ast.AST, Kinds]]:
    name = called_name(node)
    if isinstance(node.func, ast.Attribute):
        yield node.func.value, KIND_OF_METHOD.get(name, set())
    elif name in ("len", "sorted", "list", "set", "tuple", "enumerate", "iter", "reversed", "sum", "any", "all"):
        yield from ((argument, {"iter"}) for argument in node.args)
    elif name in ("range", "abs"):
        yield from ((argument, NUM) for argument in node.args)
    elif isinstance(node.func, ast.Name):
        yield node.func, {"call"}

"""Mutation operators for well-known Python defects: mutable defaults, exceptions, shared state, lost constructors."""

import ast
from collections.abc import Iterator

from harness.policies.operators_view import FUNCTIONS, Change, FunctionNode, View

EXCEPTIONS = ("ValueError", "KeyError", "TypeError", "IndexError", "AttributeError", "RuntimeError", "LookupError")
MORE_EXCEPTIONS = (
    "ZeroDivisionError",
    "StopIteration",
    "OSError",
    "FileNotFoundError",
    "NotImplementedError",
    "Exception",
)


def _first_line(view: View, function: FunctionNode) -> tuple[int, str] | None:
    """Where a statement goes that must run first, and its indentation."""
    for statement in function.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and len(function.body) > 1:
            continue
        indent = view.indent(statement)
        return (view.line_start(view.start(statement)), indent) if indent is not None else None
    return None


def mutable_default(view: View) -> Iterator[Change]:
    """`def f(xs=[])` to `xs=None` with `if xs is None: xs = []` first in the body."""
    for node in view.nodes:
        if not isinstance(node, FUNCTIONS):
            continue
        first = _first_line(view, node)
        positional = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(reversed(positional), reversed(node.args.defaults), strict=False))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        for argument, default in pairs:
            if first and isinstance(default, ast.List | ast.Dict | ast.Set | ast.Call):
                at, indent = first
                lines = f"{indent}if {argument.arg} is None:\n{indent}    {argument.arg} = {view.text(default)}\n"
                text = "None" + view.source[view.end(default) : at] + lines
                yield Change(view.start(default), at, text, 1)


def default_value(view: View) -> Iterator[Change]:
    """Another default of the same function or the usual ones; mostly `constants` does this."""
    for node in view.nodes:
        if isinstance(node, FUNCTIONS):
            for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
                if isinstance(default, ast.Constant) and default.value is not None:
                    yield Change(view.start(default), view.end(default), "None", 2)


def exception_type(view: View) -> Iterator[Change]:
    """Another exception in `raise` and `except`: built-in siblings and those that the file defines or uses."""
    own = [n.name for n in view.nodes if isinstance(n, ast.ClassDef) and n.name.endswith(("Error", "Exception"))]
    used = [n.id for n in view.nodes if isinstance(n, ast.Name) and n.id.endswith(("Error", "Exception", "Iteration"))]
    pool = {
        **dict.fromkeys(MORE_EXCEPTIONS, 3.0),
        **dict.fromkeys(EXCEPTIONS, 2.0),
        **dict.fromkeys((*used, *own), 1.0),
    }
    for node in view.nodes:
        name = _exception(node)
        if name is not None:
            for other, cost in pool.items():
                if other != name.id:
                    yield Change(view.start(name), view.end(name), other, cost)
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
            text = view.text(node.type)
            for other in ("ValueError", "KeyError", "TypeError", "IndexError", "AttributeError"):
                if other != text:
                    yield Change(view.start(node.type), view.end(node.type), f"({text}, {other})", 2.5)


def _exception(node: ast.AST) -> ast.Name | None:
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return raised if isinstance(raised, ast.Name) else None
    if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
        return node.type
    return None


def handler_body(view: View) -> Iterator[Change]:
    """A swallowed exception raised again: `pass` or a plain return in a handler to `raise`."""
    for node in view.nodes:
        if (
            isinstance(node, ast.ExceptHandler)
            and len(node.body) == 1
            and isinstance(node.body[0], ast.Pass | ast.Return)
        ):
            yield Change(view.start(node.body[0]), view.end(node.body[0]), "raise", 1)


def shared_state(view: View) -> Iterator[Change]:
    """`self.xs = []` first in `__init__` for a mutable value that the class body shares between instances."""
    for node in view.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        constructor = next((f for f in node.body if isinstance(f, FUNCTIONS) and f.name == "__init__"), None)
        first = _first_line(view, constructor) if constructor else None
        for statement in node.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if first and targets and isinstance(targets[0], ast.Name) and _mutable(statement):
                at, indent = first
                yield Change(at, at, f"{indent}self.{view.text(statement)}\n", 1)


def _mutable(statement: ast.stmt) -> bool:
    return isinstance(getattr(statement, "value", None), ast.List | ast.Dict | ast.Set | ast.Call)


def lost_constructor(view: View) -> Iterator[Change]:
    """`super().__init__()` or `self.x = x` first in an `__init__` that forgets it."""
    for node in view.nodes:
        if not isinstance(node, FUNCTIONS) or node.name != "__init__":
            continue
        first, owner = _first_line(view, node), view.parents[node]
        if first is None or not isinstance(owner, ast.ClassDef):
            continue
        at, indent = first
        names = [argument.arg for argument in node.args.args[1:]]
        if owner.bases and "super()" not in view.text(node):
            for arguments in dict.fromkeys(("", ", ".join(names), *names)):
                yield Change(at, at, f"{indent}super().__init__({arguments})\n", 1)
        yield from (Change(at, at, f"{indent}self.{name} = {name}\n", 2) for name in names)


def decorator(view: View) -> Iterator[Change]:
    """A `@property`, `@staticmethod` or `@classmethod` added to a method that lacks one, or taken away."""
    for node in view.nodes:
        if not isinstance(node, FUNCTIONS) or not isinstance(view.parents[node], ast.ClassDef):
            continue
        indent = view.indent(node)
        if indent is None or node.name.startswith("__"):
            continue
        at = view.line_start(view.start(node))
        arguments = [argument.arg for argument in node.args.args]
        if not node.decorator_list:
            wanted = "property" if arguments == ["self"] else "classmethod" if arguments[:1] == ["cls"] else ""
            wanted = wanted or ("staticmethod" if "self" not in arguments else "")
            if wanted:
                yield Change(at, at, f"{indent}@{wanted}\n", 3 if wanted == "property" else 1)
        elif len(node.decorator_list) == 1:
            yield Change(at, view.line_end(view.end(node.decorator_list[0])), "", 3)


def fresh_copy(view: View) -> Iterator[Change]:
    """A copy where a mutable value is stored in or returned from an object: `self.xs = xs` to `list(xs)`."""
    for node in view.expressions:
        above = view.parents[node]
        plain = isinstance(node, ast.Name | ast.Attribute | ast.Subscript)
        if not plain or not isinstance(above, ast.Return | ast.Assign | ast.Yield | ast.Call):
            continue
        if isinstance(above, ast.Call) and (node not in above.args or not isinstance(above.func, ast.Attribute)):
            continue
        kinds = view.kind_of(node)
        if "num" in kinds or "str" in kinds:
            continue
        known = 1.0 if kinds & {"list", "dict", "set"} else 2.0
        function = "dict" if "dict" in kinds else "set" if "set" in kinds else "list"
        yield view.replace(node, f"{function}({view.text(node)})", known)
        yield view.replace(node, f"{view.text(node)}.copy()", known * 1.5)
        if function == "list" and not kinds:
            yield view.replace(node, f"dict({view.text(node)})", known * 2)

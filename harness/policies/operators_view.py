"""What a mutation operator sees of a source file: text spans, parents, names in scope and guessed kinds.

Operators yield `Change`s (a span of the source, its new text and a relative cost). They find nodes in `View`, which is
built once per file.
"""

import ast
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from harness.policies.operators_kinds import KIND_OF_ANNOTATION, Kinds, hints, identifier, kind_of_form

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCK_FIELDS = ("body", "orelse", "finalbody")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
TIGHT = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Attribute, ast.Starred, ast.Await, ast.IfExp, ast.comprehension)
LOOPS = (ast.For, ast.AsyncFor, ast.While)

LARGE_NODES = 6_000  # above this, only the suspicious part of a file is searched


class Change(NamedTuple):
    """One rewrite of `source[start:end]` to `text`; a dearer one (`cost` above 1) is tried later."""

    start: int
    end: int
    text: str
    cost: float = 1.0


@dataclass
class Scope:
    """Names bound in one function, class or module, with where each is first bound and what kinds it seems to hold."""

    node: ast.AST
    parent: "Scope | None"
    bound: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, set[str]] = field(default_factory=dict)

    def hint(self, name: str, kinds: Iterable[str]) -> None:
        self.kinds.setdefault(name, set()).update(kinds)


@lru_cache(maxsize=4096)
def binding(text: str) -> int:
    """How tightly an expression's text holds together: 2 an atom or call, 1 a comparison or arithmetic, 0 the rest."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return 0
    if isinstance(node, ast.BinOp | ast.Compare | ast.UnaryOp) and not text.startswith("not "):
        return 1
    loose = (
        ast.BoolOp,
        ast.IfExp,
        ast.Lambda,
        ast.UnaryOp,
        ast.Yield,
        ast.YieldFrom,
        ast.Await,
        ast.NamedExpr,
        ast.Starred,
    )
    return 0 if isinstance(node, loose) or (isinstance(node, ast.Tuple) and text[:1] != "(") else 2


class View:
    """A parsed source file with everything that operators look up; raises SyntaxError or ValueError if it has none."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self._lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", source)
        self._offsets = [0]
        for line in self._lines:
            if line[-1] in "\r\n":
                self._offsets.append(self._offsets[-1] + len(line))
        self.parents: dict[ast.AST, ast.AST] = {}
        self.all_nodes = self._walk()
        self.nodes = self.all_nodes
        """Where operators look; see `focus`."""
        self._names: dict[ast.AST, list[str]] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self._bind_scopes()

    def _walk(self) -> list[ast.AST]:
        """All nodes in source order; fills `parents`. A stack, since long chains of operators nest deeply."""
        found: list[ast.AST] = []
        stack: list[ast.AST] = [self.tree]
        while stack:
            node = stack.pop()
            found.append(node)
            # Nodes such as Load() and Add() are shared by the parser: they have neither one parent nor a position.
            children = [child for child in ast.iter_child_nodes(node) if child._fields or child._attributes]
            self.parents.update((child, node) for child in children)
            stack.extend(reversed(children))
        return found

    # -- positions ---------------------------------------------------------------------------------------------------

    def offset(self, line: int, column: int) -> int:
        """The character offset of a 1-based line and a UTF-8 byte column."""
        if line > len(self._lines):
            return len(self.source)
        text = self._lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="ignore"))
        return self._offsets[line - 1] + column

    def start(self, node: ast.AST) -> int:
        decorators = getattr(node, "decorator_list", None)
        if decorators:
            return self.source.rindex("@", 0, self.start(decorators[0]))
        return self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)]

    def line_of(self, offset: int) -> int:
        return bisect_right(self._offsets, offset)

    def line_start(self, offset: int) -> int:
        return self._offsets[bisect_right(self._offsets, offset) - 1]

    def line_end(self, offset: int) -> int:
        """The offset just after the line break that ends the line of `offset`."""
        index = bisect_right(self._offsets, offset)
        return self._offsets[index] if index < len(self._offsets) else len(self.source)

    def indent(self, statement: ast.AST) -> str | None:
        """The white space before a statement, or None when something else stands before it on its line."""
        start = self.start(statement)
        line = self.line_start(start)
        continued = self.source[max(0, line - 3) : line].rstrip("\r\n").endswith("\\")
        continued = continued or (isinstance(statement, ast.If) and self.source.startswith("elif", start))
        before = self.source[line:start]
        return before if not before.strip() and not continued else None

    def replace(self, node: ast.AST, text: str, cost: float = 1.0) -> Change:
        """The change of an expression to `text`, in parentheses where its surroundings need them."""
        start, end, above = self.start(node), self.end(node), self.parents[node]
        tight = isinstance(above, (*TIGHT, ast.BoolOp)) or (
            isinstance(above, ast.Call | ast.Subscript)
            and node in (getattr(above, "func", None), getattr(above, "value", None))
        )
        wrapped = self.source[:start].endswith("(") and self.source[end : end + 1] == ")"
        needed = 1 if isinstance(above, ast.BoolOp) else 2
        if isinstance(node, ast.GeneratorExp) or (tight and not wrapped and binding(text) < needed):
            text = f"({text})"
        return Change(start, end, text, cost)

    # -- the tree ----------------------------------------------------------------------------------------------------

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        while node in self.parents:
            node = self.parents[node]
            yield node

    def statement(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement that holds the node (the node itself if it is one)."""
        if isinstance(node, ast.stmt):
            return node
        return next((above for above in self.ancestors(node) if isinstance(above, ast.stmt)), None)

    def function(self, node: ast.AST) -> FunctionNode | None:
        return next((above for above in self.ancestors(node) if isinstance(above, FUNCTIONS)), None)

    def focus(self, factor: Callable[[int], float]) -> None:
        """Puts the nodes with a small factor first; of a large file only the part below the average is kept."""
        offsets = {node: self.start(self.statement(node) or node) for node in self.nodes if node is not self.tree}
        factors = {node: factor(offset) for node, offset in offsets.items()}
        self.nodes = sorted(factors, key=factors.__getitem__)
        if len(self.nodes) > LARGE_NODES:
            middle = factors[self.nodes[len(self.nodes) // 2]]
            self.nodes = [node for node in self.nodes if factors[node] < middle] or self.nodes

    @cached_property
    def blocks(self) -> list[tuple[ast.AST, list[ast.stmt]]]:
        """Every list of statements with the node that owns it."""
        lists = ((node, getattr(node, name, None)) for node in self.nodes for name in BLOCK_FIELDS)
        return [
            (node, block)
            for node, block in lists
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt)
        ]

    @cached_property
    def following(self) -> dict[ast.AST, ast.stmt]:
        """The next statement of the same block."""
        return {one: two for _, block in self.blocks for one, two in pairwise(block)}

    @cached_property
    def blocks_of(self) -> dict[ast.AST | None, list[tuple[ast.AST, list[ast.stmt]]]]:
        """`blocks` by the function that runs them."""
        found: dict[ast.AST | None, list[tuple[ast.AST, list[ast.stmt]]]] = {}
        for owner, block in self.blocks:
            function = owner if isinstance(owner, FUNCTIONS) else self.function(owner)
            if not isinstance(owner, ast.ClassDef):
                found.setdefault(function, []).append((owner, block))
        return found

    @cached_property
    def expressions(self) -> list[ast.expr]:
        """Expressions that are read when the program runs: no targets, annotations, docstrings or bare callees."""
        found = [n for n in self.nodes if isinstance(n, ast.expr) and n not in self.hidden]
        return [n for n in found if isinstance(getattr(n, "ctx", ast.Load()), ast.Load)]

    @cached_property
    def hidden(self) -> set[ast.AST]:
        """Nodes not to be changed: docstrings, annotations, patterns, parts of f-strings without a position."""
        return set(self._hidden())

    def _hidden(self) -> Iterator[ast.AST]:
        for node in self.nodes:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                yield from (below for below in ast.walk(node) if below is not node and not self._faithful(below))
            for name in ("annotation", "returns", "pattern"):
                below = getattr(node, name, None)
                if isinstance(below, ast.AST):
                    yield from ast.walk(below)

    def _faithful(self, node: ast.AST) -> bool:
        """Whether the positions of a node inside an f-string are right (before Python 3.12 they may not be)."""
        if not isinstance(node, ast.expr) or isinstance(node, ast.Constant | ast.JoinedStr | ast.FormattedValue):
            return False
        try:
            return ast.dump(ast.parse(self.text(node), mode="eval").body) == ast.dump(node)
        except (SyntaxError, ValueError):
            return False

    # -- names -------------------------------------------------------------------------------------------------------

    def scope(self, node: ast.AST) -> Scope:
        return next(self.scopes[above] for above in (node, *self.ancestors(node)) if above in self.scopes)

    def names(self, node: ast.AST) -> list[str]:
        """Variables readable at `node`, nearest scope first; functions, classes and imports are left out."""
        if node not in self._names:
            self._names[node] = self._find_names(node)
        return self._names[node]

    def _find_names(self, node: ast.AST) -> list[str]:
        found: dict[str, None] = {}
        for above in self.ancestors(node):
            if isinstance(above, (*COMPREHENSIONS, ast.Lambda)):
                found.update(dict.fromkeys(self._inner_names(above)))
        scope: Scope | None = self.scope(node)
        here, own = self.start(node), True
        while scope is not None:
            if own or not isinstance(scope.node, ast.ClassDef):
                found.update(dict.fromkeys(name for name, at in scope.bound.items() if not own or at < here))
            scope, own = scope.parent, False
        return [name for name in found if name not in ("self", "cls", "_") and not name.startswith("__")]

    def _inner_names(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Lambda):
            yield from (argument.arg for argument in _arguments(node.args))
        for generator in getattr(node, "generators", []):
            yield from (below.id for below in ast.walk(generator.target) if isinstance(below, ast.Name))

    def kinds(self, name: str, node: ast.AST) -> Kinds:
        scope: Scope | None = self.scope(node)
        while scope is not None:
            if name in scope.kinds:
                return scope.kinds[name]
            scope = scope.parent
        return set()

    def kind_of(self, node: ast.AST) -> Kinds:
        """The kinds that an expression seems to have; empty when nothing is known."""
        name = identifier(node)
        if name is not None:
            return self.kinds(name, node)
        if isinstance(node, ast.BinOp):
            return self.kind_of(node.left) or self.kind_of(node.right)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            return self.kind_of(node.value)
        return kind_of_form(node)

    @cached_property
    def callables(self) -> dict[str, FunctionNode]:
        """Functions and methods defined in this file, by name."""
        return {node.name: node for node in self.nodes if isinstance(node, FUNCTIONS)}

    def _bind_scopes(self) -> None:
        for node in self.nodes:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)):
                parent = self.scope(node) if self.scopes else None
                self.scopes[node] = Scope(node, parent)
                if isinstance(node, FUNCTIONS):
                    self._bind_parameters(node)
        for node in self.nodes:
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                self._bind_target(node)
        for _ in range(2):  # a second round, since the kind of one name may follow from another's
            for node in self.nodes:
                self._hint(node)

    def _bind_parameters(self, node: FunctionNode) -> None:
        scope = self.scopes[node]
        for argument in _arguments(node.args):
            scope.bound.setdefault(argument.arg, self.start(argument))
            if argument.annotation is not None:
                base = re.match(r"\w+", self.text(argument.annotation))
                scope.hint(argument.arg, KIND_OF_ANNOTATION.get(base.group() if base else "", set()))

    def _bind_target(self, node: ast.Name | ast.Attribute) -> None:
        name = identifier(node)
        if name is None or any(isinstance(above, COMPREHENSIONS) for above in self.ancestors(node)):
            return
        scope = self.scope(node)
        if isinstance(node, ast.Attribute):
            owner = next((above for above in self.ancestors(node) if isinstance(above, ast.ClassDef)), None)
            methods = [n for n in owner.body if isinstance(n, FUNCTIONS)] if owner else []
            for method in methods:
                self.scopes[method].bound.setdefault(name, self.start(method))
            return
        # A loop may come round to a name that is bound further down in it.
        loops = [above for above in self.ancestors(node) if isinstance(above, LOOPS)]
        at = self.start(loops[-1]) if loops and self.scope(loops[-1]) is scope else self.start(node)
        scope.bound[name] = min(at, scope.bound.get(name, at))

    def _home(self, name: str, node: ast.AST) -> Scope:
        scope: Scope | None = self.scope(node)
        if name.startswith("self."):
            while scope is not None and not isinstance(scope.node, ast.ClassDef):
                scope = scope.parent
        while scope is not None and name not in scope.bound and not name.startswith("self."):
            scope = scope.parent
        return scope or self.scope(node)

    def _hint(self, node: ast.AST) -> None:
        for target, kinds in hints(node, self.kind_of):
            name = identifier(target)
            if name is not None and kinds:
                self._home(name, node).hint(name, kinds)


def _arguments(args: ast.arguments) -> list[ast.arg]:
    extra = [argument for argument in (args.vararg, args.kwarg) if argument is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]

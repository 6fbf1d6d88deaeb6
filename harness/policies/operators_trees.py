"""Whether a change parses and which program it makes, without parsing the file again for each of thousands.

Only the statement around a change is parsed: a simple statement alone, a compound one by its header where that is
enough. Two changes of a file make the same program if and only if their keys are equal.
"""

import ast
from bisect import bisect_right
from collections.abc import Hashable

from harness.policies.operators_view import BLOCK_FIELDS, Change, View

LARGE_UNIT, MAX_PARSED = 3_000, 1_000_000  # characters


def shape(node: object) -> Hashable:
    """A nested tuple that is equal for two nodes exactly when `ast.dump` is."""
    if isinstance(node, ast.AST):
        return (node.__class__, *[shape(getattr(node, name, None)) for name in node._fields])
    if isinstance(node, list):
        return tuple([shape(item) for item in node])
    return node if isinstance(node, str) else (type(node), repr(node))


def parsed(text: str) -> Hashable | None:
    """The shape of a piece of program, None if it does not parse."""
    try:
        return shape(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class Unit:
    """A statement, or the header of a compound one, that can be parsed by itself."""

    def __init__(self, start: int, end: int, before: str = "", after: str = "") -> None:
        self.start, self.end = start, end
        self._before, self._after = before, after

    def shape(self, source: str, change: Change | None = None) -> Hashable | None:
        text = source[self.start : self.end]
        if change is not None:
            text = source[self.start : change.start] + change.text + source[change.end : self.end]
        if self._before == "elif":
            return parsed(text[2:] + self._after)
        return parsed(self._before + text + self._after)


class Trees:
    """The keys of changes to one file."""

    def __init__(self, view: View) -> None:
        self._view = view
        statements = [node for node in view.all_nodes if isinstance(node, ast.stmt)]
        self._statements = sorted(statements, key=view.start)
        self._starts = [view.start(node) for node in self._statements]
        self._units: dict[tuple[ast.AST | None, bool], Unit] = {}
        self._originals: dict[Unit, Hashable] = {}
        self._allowance = MAX_PARSED
        self._shapes: dict[str, Hashable | None] = {}
        self._neighbours: dict[tuple[int, str | None], list[ast.stmt]] = {}
        for node in statements:
            for at in (view.line_start(view.start(node)), view.line_end(view.end(node))):
                self._neighbours.setdefault((self._next_code(at), view.indent(node)), []).append(node)

    def key(self, change: Change) -> Hashable | None:
        """Equal for changes that make the same program; None if nothing changes or nothing parses."""
        if change.start == change.end and change.text.endswith("\n") and self._at_line_start(change.start):
            inserted = self._insertion(change)
            if inserted is not None:
                return inserted
        unit = self._unit(change)
        if not self._affordable(unit):
            return None
        if unit not in self._originals:
            self._originals[unit] = unit.shape(self._view.source)
        shape = unit.shape(self._view.source, change)
        return None if shape is None or shape == self._originals[unit] else (unit.start, unit.end, shape)

    def _affordable(self, unit: Unit) -> bool:
        """False for a long unit once enough text was parsed in such: a huge function must not cost minutes."""
        if unit.end - unit.start > LARGE_UNIT:
            self._allowance -= unit.end - unit.start
        return unit.end - unit.start <= LARGE_UNIT or self._allowance > 0

    def _at_line_start(self, offset: int) -> bool:
        return offset == self._view.line_start(offset)

    def _next_code(self, offset: int) -> int:
        """The start of the first line from `offset` on that is neither blank nor a comment."""
        source = self._view.source
        while offset < len(source):
            after = self._view.line_end(offset)
            line = source[offset:after].strip()
            if line and line[0] != "#":
                break
            offset = after
        return offset

    def _insertion(self, change: Change) -> Hashable | None:
        """The key of whole lines put between two statements; None if they need their surroundings to be parsed."""
        text = change.text
        indent = text[: len(text) - len(text.lstrip(" \t"))]
        shape = self._parsed(f"if 1:\n{text}" if indent else text)
        twins = self._neighbours.get((self._next_code(change.start), indent), [])
        if shape is None or any(self._parsed(self._view.text(twin)) == self._parsed(text.strip()) for twin in twins):
            return None  # a repeated line is judged with its block: before or after its twin is the same
        return change.start, indent, shape

    def _parsed(self, text: str) -> Hashable | None:
        if text not in self._shapes:
            self._shapes[text] = parsed(text)
        return self._shapes[text]

    def _unit(self, change: Change) -> Unit:
        view = self._view
        lines = self._at_line_start(change.start) and ("\n" in change.text or change.text[:1] in (" ", "\t"))
        node: ast.AST | None = self._innermost(change)
        if lines or (node is not None and change.start == view.start(node) and self._header(node) is not None):
            node = self._compound(change, lines)
        header = self._header(node) if node is not None else None
        inside = header is not None and change.end < header and not lines
        found = self._units.get((node, inside))
        return found or self._units.setdefault((node, inside), self._make(node, header if inside else None))

    def _innermost(self, change: Change) -> ast.stmt | None:
        index = bisect_right(self._starts, change.start) - 1
        while index >= 0 and self._view.end(self._statements[index]) < change.end:
            index -= 1
        return self._statements[index] if index >= 0 else None

    def _compound(self, change: Change, lines: bool) -> ast.stmt | None:
        """The innermost compound statement that holds the change well inside it, whatever its new indentation."""
        view = self._view
        old = view.source[change.start :]
        depth = min(_depth(change.text), _depth(old)) if lines and change.end > change.start else _depth(change.text)
        index = bisect_right(self._starts, change.start) - 1
        for node in reversed(self._statements[: index + 1]):
            indent = view.indent(node)
            deep = indent is not None and (not lines or len(indent) < depth)
            around = view.start(node) < change.start and change.end <= view.line_end(view.end(node))
            if around and deep and self._header(node) is not None and not self._elif(node):
                return node
        return None

    def _header(self, node: ast.AST) -> int | None:
        """The end of the header of a compound statement: where its body starts."""
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
            return self._view.start(body[0])
        return self._view.start(node) if isinstance(node, ast.Match) else None

    def _elif(self, node: ast.AST) -> bool:
        return isinstance(node, ast.If) and self._view.source.startswith("elif", self._view.start(node))

    def _make(self, node: ast.AST | None, header: int | None) -> Unit:
        view = self._view
        if node is None:
            return Unit(0, len(view.source))
        start, end = view.start(node), view.end(node)
        if header is not None:
            extra = "\nfinally: pass" if isinstance(node, ast.Try) else ""
            return Unit(start, header, "elif" if self._elif(node) else "", "pass" + extra)
        if not any(getattr(node, name, None) for name in (*BLOCK_FIELDS, "cases")):
            return Unit(start, end)
        while self._elif(node):
            node = view.parents[node]
        start, end = view.line_start(view.start(node)), view.line_end(view.end(node))
        return Unit(start, end, "if 1:\n" if view.indent(node) else "")


def _depth(text: str) -> int:
    return len(text) - len(text.lstrip(" \t"))

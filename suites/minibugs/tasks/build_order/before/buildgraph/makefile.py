"""Graphs as text: one `target: need need` in a line."""

from buildgraph.graph import BuildGraph


def load(text):
    """Return the graph that `text` describes; '#' starts a comment."""
    graph = BuildGraph()
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        target, colon, needs = line.partition(":")
        if not colon:
            raise ValueError("no colon in {!r}".format(line))
        graph.add(target.strip(), needs.split())
    return graph

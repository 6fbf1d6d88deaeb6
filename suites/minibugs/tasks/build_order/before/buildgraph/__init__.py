"""Build targets, their dependencies and the order to build them in."""

from buildgraph.errors import CycleError, UnknownTarget
from buildgraph.graph import BuildGraph
from buildgraph.makefile import load

__all__ = ["BuildGraph", "CycleError", "UnknownTarget", "load"]

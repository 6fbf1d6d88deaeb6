"""Drawings made of simple shapes."""

from vectorscene.group import Group
from vectorscene.labels import LabelledBox
from vectorscene.shapes import Box, Disc, Shape

__all__ = ["Box", "Disc", "Group", "LabelledBox", "Shape"]

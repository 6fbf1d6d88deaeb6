"""Readable, unique names for pages."""

from slugbook.registry import SlugRegistry
from slugbook.text import slugify, truncate

__all__ = ["SlugRegistry", "slugify", "truncate"]

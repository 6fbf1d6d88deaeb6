"""From titles to slugs."""

import re
import unicodedata

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def to_ascii(text):
    """Return `text` without accents and other marks; letters without an equivalent are dropped."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def truncate(slug, max_length):
    """Cut `slug` to at most `max_length` characters."""
    return slug[:max_length]


def slugify(title, max_length):
    """Return lower-case letters, digits and single hyphens that stand for `title`."""
    slug = _SEPARATORS.sub("-", to_ascii(title).lower()).strip("-")
    return truncate(slug, max_length) or "untitled"

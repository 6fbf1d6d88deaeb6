"""Slugs that are in use."""

from itertools import count

from slugbook import text


class SlugRegistry:
    """Gives every page its own slug of at most `max_length` characters."""

    def __init__(self, max_length=40):
        if max_length < 12:
            raise ValueError("slugs need room for at least 12 characters")
        self.max_length = max_length
        self._pages = {}

    def __contains__(self, slug):
        return slug in self._pages

    def __getitem__(self, slug):
        return self._pages[slug]

    def register(self, title, page):
        """Return a new slug for `page`; numbers from 2 up tell equal titles apart."""
        slug = self._free_slug(text.slugify(title, self.max_length))
        self._pages[slug] = page
        return slug

    def release(self, slug):
        """Make a slug free again."""
        del self._pages[slug]

    def _free_slug(self, base):
        if base not in self._pages:
            return base
        for number in count(2):
            suffix = "-{}".format(number)
            candidate = base + suffix
            if candidate not in self._pages:
                return candidate

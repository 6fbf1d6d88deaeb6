"""Pages of a sequence, numbered from 1."""


class PageNotFound(LookupError):
    """There is no page with this number."""


class Page:
    """The items of one page and its place among the others."""

    def __init__(self, number, items, page_count):
        self.number = number
        self.items = items
        self.page_count = page_count

    @property
    def has_previous(self):
        return self.number > 1

    @property
    def has_next(self):
        return self.number < self.page_count


class Paginator:
    """Cuts `items` in pages of `per_page`; an empty sequence has one empty page."""

    def __init__(self, items, per_page):
        if per_page < 1:
            raise ValueError("per_page must be at least 1")
        self.items = items
        self.per_page = per_page

    @property
    def page_count(self):
        full_pages, rest = divmod(len(self.items), self.per_page)
        return max(1, full_pages + (1 if rest else 0))

    def page(self, number):
        """Return page `number`, or raise PageNotFound."""
        if not 1 <= number <= self.page_count:
            raise PageNotFound(number)
        start = (number - 1) * self.per_page
        return Page(number, self.items[start : start + self.per_page], self.page_count)

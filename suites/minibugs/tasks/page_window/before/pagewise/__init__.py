"""Split listings into pages and build the navigation under them."""

from pagewise.links import ELLIPSIS, link_row, window
from pagewise.paginator import Page, Paginator, PageNotFound

__all__ = ["ELLIPSIS", "Page", "PageNotFound", "Paginator", "link_row", "window"]

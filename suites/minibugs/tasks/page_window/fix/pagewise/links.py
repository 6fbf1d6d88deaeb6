"""The row of page links under a listing."""

ELLIPSIS = "..."


def window(page, radius=2):
    """Return the page numbers at most `radius` away from `page`, in order."""
    first = max(1, page.number - radius)
    last = min(page.page_count, page.number + radius)
    return list(range(first, last + 1))


def link_row(page, radius=2):
    """Return the labels of the row: the first page, the window and the last page.

    An ellipsis stands where page numbers are left out.
    """
    numbers = sorted({1, page.page_count}.union(window(page, radius)))
    labels = []
    previous = 0
    for number in numbers:
        if number > previous + 1:
            labels.append(ELLIPSIS)
        labels.append(str(number))
        previous = number
    return labels

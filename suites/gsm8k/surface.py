"""The dress of a stated number taken off: other scripts' digits and signs, LaTeX, Markdown, currencies.

What is left is ASCII in which a reader of numbers finds every sign that matters. Nothing is taken off that would glue
two numbers together, and a sign that changes a number and cannot be written so is refused.
"""

from __future__ import annotations

import re
import unicodedata

OPERATOR = "^"
"""Stands for every mathematical sign beyond ASCII: no number that is beside one is read."""


class Unreadable(ValueError):
    """A text does not say for certain which number it states."""


_ESCAPED = re.compile(r"\\([$%#&_])")
_LATEX_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_LATEX = (
    (re.compile(r"(-?)\\[dt]?frac(\d)(\d)"), r" \1\2/\3 "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;!: ]"), "\u2009"),
    (re.compile(r"\\[()\[\]]|\\quad\b|\^\{?\\circ\}?"), " "),
    (re.compile(r"\\(?:approx|sim)\b"), "~"),
    (re.compile(r"\\(?:times|cdot|div|pm|sqrt|pi)\b"), OPERATOR),
)
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|emph|mathbf|mathrm)\s*\{([^{}]*)\}")
_DEEPEST = 3
"""So many wrappers may stand in each other."""

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_GROUPED_BY_SPACE = re.compile("(?<![\\w.,])\\d{1,3}(?:[\u00a0\u2009\u202f]\\d{3})+(?![\\w\u00a0\u2009\u202f])")
_GROUP_SPACE = re.compile("[\u00a0\u2009\u202f]")
_LONE_LETTER = re.compile(r"(?<![^\W\d_])[^\W\d_\x00-\x7f](?![^\W\d_])")
_SIGNS = {"\u2212": "-", "\u2044": "/", "\u2248": "~", "\u2245": "~", "\u00b0": " ", "\u00b7": OPERATOR}
_SIGNS |= dict.fromkeys("\u2010\u2011\u2012\u2013", "-") | dict.fromkeys("\u2014\u2015", " - ")
_BY_CATEGORY = {"Sc": "$", "Sm": OPERATOR, "So": " ", "Z": " ", "P": ";", "L": "q"}
"""What stands for a sign, by its category or the first letter of that; a sign of no such category is refused."""
_CHANGING_SIGNS = "\u2030\u2031\u066b\u066c"
"""Per mille, per ten thousand, Arabic decimal and thousands separators."""

_EMPHASIS = re.compile(r"(?<![\w)*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![\w(*])")
_UNDERLINE = re.compile(r"(?<![A-Za-z0-9_])_{1,3}(?=[^\s_])|(?<=[^\s_])_{1,3}(?![A-Za-z0-9_])")
_CURRENCY = re.compile(r"\b[A-Z]{1,3}\$|(?<!\d)\$|\$(?!\d)")
_CURRENCY_CODE = re.compile(r"\b(?:USD|EUR|GBP|Rs\.?)\s?(?=[-\d])")
_SHORT_MILLIONS = re.compile(r"\$\s?[\d.,]+\s?m\b")


def undressed(text: str) -> str:
    """Without its dress. Raises Unreadable."""
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    if not text.isascii():
        text = _in_ascii(text)
    if "*" in text or "_" in text or "`" in text:
        text = _UNDERLINE.sub(" ", _EMPHASIS.sub("", text)).replace("`", " ")
    if "$" in text:
        if _SHORT_MILLIONS.search(text):
            raise Unreadable("metres or millions")
        text = _CURRENCY.sub("", text)
    return _CURRENCY_CODE.sub("", text)


def _without_latex(text: str) -> str:
    text = _ESCAPED.sub(r"\1", text)
    for _ in range(_DEEPEST):
        text = _LATEX_FRACTION.sub(r" \1\2/\3 ", text)
        text, wrappers = _WRAPPER.subn(r" \1 ", text)
        if not wrappers:
            break
    if "\\" in text or "{" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text


def _in_ascii(text: str) -> str:
    text = _GROUPED_BY_SPACE.sub(lambda match: _GROUP_SPACE.sub("", match[0]), text)
    if _LONE_LETTER.search(unicodedata.normalize("NFKC", text)):
        raise Unreadable("a letter that may be a sign")
    return _BEYOND_ASCII.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    """What is written in ASCII for one sign."""
    sign, before, after = match[0], match.string[: match.start()][-1:], match.string[match.end() :][:1]
    if (digit := unicodedata.decimal(sign, None)) is not None:
        return str(digit)
    same = unicodedata.normalize("NFKC", sign)
    category = unicodedata.category(sign)
    if unicodedata.numeric(sign, None) is not None:
        return _fraction(same, before, after)
    if sign in _SIGNS:
        return _SIGNS[sign]
    beside_digit = before.isdigit() or after.isdigit()
    if (category in ("Cf", "Mn") and not beside_digit) or same.isascii():
        return "" if category in ("Cf", "Mn") else same
    if category[0] == "L" and beside_digit:
        raise Unreadable(f"{sign!r} beside a digit")
    stands_for = _BY_CATEGORY.get(category) or _BY_CATEGORY.get(category[0])
    if stands_for is None or sign in _CHANGING_SIGNS:
        raise Unreadable(f"{sign!r} is in it")
    return stands_for


def _fraction(same: str, before: str, after: str) -> str:
    """`1 1/2` for one and a half; a power or a number of another script has no such form."""
    over, slash, under = same.partition("\u2044")
    if not slash or not (over + under).isdigit() or after.isdigit():
        raise Unreadable(f"{same!r} is in it")
    return f"{' ' * before.isdigit()}{over}/{under}"

"""The number grader: which number a text states, and whether two texts state the same one.

An answer counts only where it states exactly one number, whatever it is dressed in (see `surface`): `1,000`, `$18.00`,
`**18**`, `18.`, `9 * 2 = 18`, `x = 12 (see step 3)`, `18 dollars and 0 cents`, `\\boxed{18}`, `-5`, `1 1/2`, `50%`.
A text that states several numbers (`18 or 19`), a sum that is not worked out (`9 + 9`), more or less than a number
(`not 18`, `half of 18`, `18 dozen`, `18k`), or one that cannot be read for certain (`1,00`, `- 18`, `10²`) states none,
and no number equals none. Values are exact: no tolerance turns 33.3 into 33.

The doubtful is refused rather than guessed: every digit must belong to the number that is read, and every sign beside
it must be known not to change it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from suites.gsm8k.surface import Unreadable, undressed

_MAX_CHARS = 300
"""An answer is short; a longer text is no answer."""
_MAX_DIGITS, _MAX_EXPONENT = 60, 30
_PLAIN = re.compile(r"\$?(-?\d{1,15})(\.\d{1,15})?\.?", re.ASCII)
_DIGIT, _WORD = re.compile(r"[0-9]"), re.compile(r"[a-z]+")

_SIGNED = r"""(?=[-+.\d])(?:(?<![\w).\]%'"+-])[-+])?(?<![\w.])(?<!\d,)"""
_CLUMP = r"\.?\d(?:[\d.,]*\d)?(?:[eE][-+]?\d+(?![\w.]))?"
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NUMBER = re.compile(
    rf"{_SIGNED}(?:(?P<whole>\d+)\s+(?P<part>\d+)\s?/\s?(?P<whole_of>\d+)(?![\d.,]*\d)"
    rf"|(?P<over>{_CLUMP})\s?/\s?(?P<under>{_CLUMP})"
    rf"|(?P<alone>{_CLUMP})(?:\s+(?P<scale>{'|'.join(_SCALES)})\b)?)",
    re.ASCII | re.IGNORECASE,
)
_VALUE = re.compile(r"(?:\d+|[1-9]\d{0,2}(?:,\d{3})+)?(?:\.\d+)?(?:e(?P<exponent>[-+]?\d+))?", re.ASCII | re.IGNORECASE)

_CHANGING = (
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands "
    "million millions billion billions trillion trillions dozen dozens half halves third thirds twice thrice double "
    "doubled triple tripled plus minus negative squared cubed divided multiplied sqrt root log ln mod factorial "
    "infinity undefined unknown impossible or either neither nor not cannot between"
)
_CHANGING_WORDS = frozenset(_CHANGING.split())
_CHANGING_PHRASE = re.compile(
    r"n't\b|\bthan\W*\d|\bat (?:least|most)\b|\bup to\b|\ba quarter\b|\bquarters? of\b"
    r"|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand|million)ths?\b",
    re.ASCII,
)
"""By such words a text states another number than the one in its digits, or none for certain."""
_REVISING = "wait actually correction maybe perhaps possibly instead rather wrong should is answer total equals"
_REVISING_WORDS = frozenset(_REVISING.split())
_ASIDE = re.compile(r"\((?!\W*\d[\d.,]*[^\d()]*\))[^()]*[A-Za-z]{2}[^()]*\)")
"""A remark in brackets; one that is just another number with its unit is none."""
_NEGATIVE = re.compile(r"(^|[:=(]|\b(?:is|answer|equals|a))(\s*)\b(?:minus|negative)\s+(?=[\d.])", re.IGNORECASE)
_CENTS = re.compile(
    r"(?<![\w.,])(\d[\d,]*)(?:\s+dollars?,?(?:\s+and)?|\s+and)\s+(\d{1,2})\s?cents?\b", re.ASCII | re.IGNORECASE
)
_ODD = re.compile(
    r"[^A-Za-z\s.,;:!?'\"()\[\]%#~_/\0-]"  # a sign that may change a number
    r"|[A-Za-z_]\0|\0_|\0!|\0\s?(?:[kKMBTxXi]|bn|mn)\b"  # a name with a number in it, a factorial, thousands
    r"|-(?!\s*[A-Za-z]{2})|/(?!\s?[A-Za-z])|(?<![A-Za-z])/(?!\s?[A-Za-z]{2})"  # a difference, a ratio
    r"|\0\s*:\s*\0|[A-Za-z]\([^()]*\0"  # a ratio or a time, a function
)
"""What may not stand around numbers, each of which is written as \\0."""
_AGAIN = re.compile(r"\b(?:is|so|thus|therefore|answer|equals)\b", re.IGNORECASE)
"""Between two mentions of a number that are no sum, list or measure."""
_COMPARED = re.compile(r"[<>!]=|=[<>]|\([^()]*=|(?:\b(?:not|never)|n't)\s*=", re.IGNORECASE)
_SUM = re.compile(r"[A-Za-z\d)%]\s*[-+*/^]\s*-?[\d(.]|\d\s*x\s*\d")
_QUOTIENT = re.compile(r"[A-Za-z\s:]*[\s\d.,]*/[\s\d.,]*[A-Za-z\s]*")
_NO_SUM = re.compile(
    r"[;\n]|,(?!\d{3})|\.\s|\d\s*:|\b(?:since|because|if|when|where|as|so|with|and|or)\b"  # another clause
    r"|\d\s?[a-z]\b(?<!x)|\d\s?x(?!\s*\d)|\b[a-z]\s*[-+*/^]|[-+*/^]\s*[a-z]\b",  # an unknown
    re.IGNORECASE,
)


def same_number(answer: str, gold: str) -> bool:
    """Whether both texts state one number, and the same. Text that states none equals nothing."""
    found = number_in(answer)
    return found is not None and found == number_in(gold)


def number_in(text: str) -> Fraction | None:
    """The only number that a short text states, exactly; None where there is none, or more than one."""
    text = text.strip()
    if plain := _PLAIN.fullmatch(text):
        return Fraction(plain[1] + plain[2]) if plain[2] else Fraction(int(plain[1]))
    if len(text) > _MAX_CHARS or (text.isascii() and not _has_digit(text)):
        return None
    try:
        return _stated(_without_asides(undressed(text)))
    except Unreadable:
        return None


def _without_asides(text: str) -> str:
    """Without remarks in brackets that do not change what is said before them."""
    if "(" not in text:
        return text
    kept = _ASIDE.sub(lambda aside: aside[0] if _is_changed(aside[0], _REVISING_WORDS) else " ", text)
    return kept if _has_digit(kept) else text


def _stated(text: str) -> Fraction:
    """The number behind the last `=`, where what stands before is its name or the sum that it is of; else the only
    number there is."""
    if "=" in text:
        if _COMPARED.search(text):
            raise Unreadable("a comparison")
        before, _, text = text.rpartition("=")
        if text.strip() and not _has_digit(text):
            return _only(f"{before} ; {text}")
        result = _only(text)
        if _has_digit(before):
            _check_sum(before, result)
        return result
    return _only(text)


def _check_sum(before: str, result: Fraction) -> None:
    """Raises Unreadable where the text before the last `=` states another number, or something else besides."""
    if _SUM.search(before) and not _NO_SUM.search(before) and not _QUOTIENT.fullmatch(before):
        return
    if _only(before) != result:
        raise Unreadable("the sides of = are not the same")


def _only(text: str) -> Fraction:
    """The number that a text without `=` states, once or several times."""
    text = _CENTS.sub(lambda money: f"{money[1]}.{int(money[2]):02} dollars", text)
    if "minus" in text.lower() or "negative" in text.lower():
        text = _NEGATIVE.sub(r"\1\2-", text)
    found = list(_NUMBER.finditer(text))
    if not found:
        raise Unreadable("no number")
    ends = [0, *(place for match in found for place in match.span()), len(text)]
    pieces = [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
    rest = "\0".join(pieces)
    if "\0" in text or _has_digit(rest) or _ODD.search(rest) or not all(map(_AGAIN.search, pieces[1:-1])):
        raise Unreadable("there is more than a number")
    if _is_changed("0".join(pieces)):
        raise Unreadable("more than the number is said")
    first, *others = map(_found, found)
    if any(other != first for other in others):
        raise Unreadable("several numbers")
    return first


def _is_changed(text: str, also: frozenset[str] = frozenset()) -> bool:
    text = text.lower()
    words = _WORD.findall(text)
    if not words:
        return False
    return not (_CHANGING_WORDS.isdisjoint(words) and also.isdisjoint(words)) or bool(_CHANGING_PHRASE.search(text))


def _found(match: re.Match[str]) -> Fraction:
    if match["whole"]:
        whole, part, whole_of = (_value(match[name]) for name in ("whole", "part", "whole_of"))
        if part >= whole_of:
            raise Unreadable("no mixed number")
        value = whole + part / whole_of
    elif match["over"]:
        value, under = _value(match["over"]), _value(match["under"])
        if not under:
            raise Unreadable("nothing to divide by")
        value /= under
    else:
        value = _value(match["alone"])
        if match["scale"]:
            value *= _SCALES[match["scale"].lower()]
    return -value if match[0].startswith("-") else value


def _value(clump: str) -> Fraction:
    """Of digits with what belongs to them, the sign excepted."""
    if clump.isdigit() and len(clump) <= _MAX_DIGITS:
        return Fraction(int(clump))
    form = _VALUE.fullmatch(clump)
    if not form or len(clump) > _MAX_DIGITS or abs(int(form["exponent"] or 0)) > _MAX_EXPONENT:
        raise Unreadable(f"{clump} is no number")
    return Fraction(clump.replace(",", ""))


def _has_digit(text: str) -> bool:
    return bool(_DIGIT.search(text))

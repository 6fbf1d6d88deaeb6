"""Amounts of money."""


def parse_cents(text):
    """Return an amount such as '1 234.50', '-7' or '0.5' in cents."""
    digits = text.replace(" ", "")
    sign = -1 if digits.startswith("-") else 1
    whole, _, fraction = digits.lstrip("+-").partition(".")
    if not (whole + fraction).isdigit() or len(fraction) > 2:
        raise ValueError("not an amount: {!r}".format(text))
    return sign * (int(whole or "0") * 100 + int(fraction.ljust(2, "0")))

"""The annuity formula."""


def monthly_interest(balance, annual_rate):
    """Return the interest on `balance` for one month, rounded to cents."""
    return int(round(balance * annual_rate / 12))


def monthly_payment(principal, months, annual_rate):
    """Return the constant payment that repays `principal` in `months`, rounded to cents."""
    rate = annual_rate / 12
    if rate == 0:
        return int(round(principal / months))
    return int(round(principal * rate / (1 - (1 + rate) ** -months)))

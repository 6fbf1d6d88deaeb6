"""The terms of a loan."""


class Loan:
    """A principal in cents, a yearly rate (0.06 for 6 %) and a term in months."""

    def __init__(self, principal, annual_rate, months):
        if principal <= 0 or months < 1:
            raise ValueError("a loan needs a principal and a term")
        if annual_rate < 0:
            raise ValueError("the rate must not be negative")
        self.principal = principal
        self.annual_rate = annual_rate
        self.months = months

"""Exchange rates."""

from fractions import Fraction


class UnknownCurrency(LookupError):
    """There is no rate for the currency."""


class RateBook:
    """Rates as units of the base currency for one unit of another; factors are remembered."""

    def __init__(self, base, rates):
        self.base = base
        self.revision = 0
        self._rates = {base: Fraction(1)}
        self._factors = {}
        for currency, rate in rates.items():
            self.set_rate(currency, rate)

    def set_rate(self, currency, rate):
        """Enter a rate, given as a number or as text such as '1.08'."""
        if currency == self.base:
            raise ValueError("the base currency has no rate")
        rate = Fraction(rate)
        if rate <= 0:
            raise ValueError("a rate is positive")
        self._rates[currency] = rate
        self.revision += 1
        self._factors.clear()

    def factor(self, source, target):
        """Return what one unit of `source` is worth in `target`."""
        key = (source, target)
        if key not in self._factors:
            self._factors[key] = self._rate(source) / self._rate(target)
        return self._factors[key]

    def convert(self, amount, source, target):
        return amount * self.factor(source, target)

    def _rate(self, currency):
        if currency not in self._rates:
            raise UnknownCurrency(currency)
        return self._rates[currency]

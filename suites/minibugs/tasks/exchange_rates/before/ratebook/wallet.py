"""A wallet with money in several currencies."""


class Wallet:
    """Amounts by currency, valued with the rates of a RateBook."""

    def __init__(self, rates):
        self._rates = rates
        self._amounts = {}
        self._summary = None
        self._summary_revision = None

    def put(self, amount, currency):
        """Put money in; a negative amount takes it out."""
        self._amounts[currency] = self._amounts.get(currency, 0) + amount

    def take_all(self, currency):
        """Take all money of a currency out and return the amount."""
        self._summary = None
        return self._amounts.pop(currency, 0)

    def summary(self):
        """Return {currency: value in the base currency}, sorted by currency."""
        if self._summary is None or self._summary_revision != self._rates.revision:
            base = self._rates.base
            self._summary = {
                currency: self._rates.convert(self._amounts[currency], currency, base)
                for currency in sorted(self._amounts)
            }
            self._summary_revision = self._rates.revision
        return dict(self._summary)

    def total(self):
        """Return the value of everything in the base currency."""
        return sum(self.summary().values())

"""A savings account."""

from tillbank.errors import AccountClosed, LimitExceeded, NotEnoughMoney


class Account:
    """A balance between zero and `limit`, and the amounts that led to it."""

    def __init__(self, number, limit=None):
        self.number = number
        self.limit = limit
        self.closed = False
        self.history = []

    @property
    def balance(self):
        return sum(self.history)

    def check_deposit(self, cents):
        """Raise if `cents` may not be put into this account."""
        self._check_amount(cents)
        if self.limit is not None and self.balance + cents > self.limit:
            raise LimitExceeded(self.number)

    def check_withdrawal(self, cents):
        """Raise if `cents` may not be taken from this account."""
        self._check_amount(cents)
        if cents > self.balance:
            raise NotEnoughMoney(self.number)

    def deposit(self, cents):
        self.check_deposit(cents)
        self.history.append(cents)

    def withdraw(self, cents):
        self.check_withdrawal(cents)
        self.history.append(-cents)

    def _check_amount(self, cents):
        if cents <= 0:
            raise ValueError("an amount is positive")
        if self.closed:
            raise AccountClosed(self.number)

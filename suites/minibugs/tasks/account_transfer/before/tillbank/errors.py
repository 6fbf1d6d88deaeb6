"""Why the bank refuses something."""


class BankError(Exception):
    """Base of all refusals."""


class UnknownAccount(BankError):
    """There is no account of that number."""


class AccountClosed(BankError):
    """The account is closed."""


class NotEnoughMoney(BankError):
    """The balance does not cover the amount."""


class LimitExceeded(BankError):
    """The account may not hold that much."""

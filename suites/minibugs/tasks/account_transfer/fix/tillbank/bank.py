"""The bank keeps the accounts."""

from tillbank.account import Account
from tillbank.errors import BankError, UnknownAccount


class Bank:
    """Opens and closes accounts and moves money between them."""

    def __init__(self):
        self._accounts = {}

    def open(self, number, cents=0, limit=None):
        """Open an account with a first deposit."""
        if number in self._accounts:
            raise BankError("{} is taken".format(number))
        account = Account(number, limit)
        if cents:
            account.deposit(cents)
        self._accounts[number] = account
        return account

    def account(self, number):
        """Return the account `number`, or raise UnknownAccount."""
        if number not in self._accounts:
            raise UnknownAccount(number)
        return self._accounts[number]

    def close(self, number):
        """Close an account, which has to be empty."""
        account = self.account(number)
        if account.balance:
            raise BankError("{} is not empty".format(number))
        account.closed = True

    def transfer(self, sender, receiver, cents):
        """Move `cents` from one account to another one."""
        source = self.account(sender)
        target = self.account(receiver)
        target.check_deposit(cents)
        source.withdraw(cents)
        target.deposit(cents)

    @property
    def total(self):
        """The money in all accounts."""
        return sum(account.balance for account in self._accounts.values())

import pytest

from tillbank import AccountClosed, Bank, BankError, LimitExceeded, NotEnoughMoney, UnknownAccount


def make_bank():
    bank = Bank()
    bank.open("ann", 10000)
    bank.open("bob", 5000, limit=8000)
    bank.open("old")
    bank.close("old")
    return bank


def refused(bank, error, sender, receiver, cents):
    """Assert that a transfer is refused and that the open accounts stay as they were."""
    with pytest.raises(error):
        bank.transfer(sender, receiver, cents)
    assert bank.account("ann").history == [10000]
    assert bank.account("bob").history == [5000]
    assert bank.account("old").history == []
    assert bank.total == 15000


def test_transfer_moves_money():
    bank = make_bank()
    bank.transfer("ann", "bob", 2500)
    assert bank.account("ann").balance == 7500
    assert bank.account("bob").balance == 7500
    assert bank.account("ann").history == [10000, -2500]


def test_transfer_may_fill_and_empty_accounts():
    bank = make_bank()
    bank.transfer("ann", "bob", 3000)
    bank.transfer("bob", "ann", 8000)
    assert (bank.account("ann").balance, bank.account("bob").balance) == (15000, 0)


def test_unknown_receiver_changes_nothing():
    refused(make_bank(), UnknownAccount, "ann", "zoe", 100)
    refused(make_bank(), UnknownAccount, "bob", "", 5000)


def test_closed_receiver_changes_nothing():
    refused(make_bank(), AccountClosed, "ann", "old", 100)
    refused(make_bank(), AccountClosed, "bob", "old", 5000)


def test_limit_of_the_receiver_changes_nothing():
    refused(make_bank(), LimitExceeded, "ann", "bob", 3001)
    refused(make_bank(), LimitExceeded, "ann", "bob", 10000)


def test_poor_sender_changes_nothing():
    refused(make_bank(), NotEnoughMoney, "bob", "ann", 5001)


def test_unknown_or_closed_sender_changes_nothing():
    refused(make_bank(), UnknownAccount, "zoe", "ann", 100)
    refused(make_bank(), AccountClosed, "old", "ann", 100)


def test_amounts_are_positive():
    for cents in (0, -100):
        refused(make_bank(), ValueError, "ann", "bob", cents)


def test_a_transfer_works_after_a_refused_one():
    bank = make_bank()
    with pytest.raises(LimitExceeded):
        bank.transfer("ann", "bob", 9000)
    bank.transfer("ann", "bob", 3000)
    assert bank.account("ann").history == [10000, -3000]
    assert bank.account("bob").history == [5000, 3000]


def test_accounts_are_closed_empty():
    bank = make_bank()
    with pytest.raises(BankError):
        bank.close("ann")
    assert not bank.account("ann").closed

from fractions import Fraction

import pytest

from ratebook import RateBook, UnknownCurrency, Wallet


def make_rates():
    return RateBook("CHF", {"EUR": 2, "GBP": 4, "SEK": "0.1"})


def test_conversion_to_and_from_the_base():
    rates = make_rates()
    assert rates.convert(10, "EUR", "CHF") == 20
    assert rates.convert(10, "CHF", "EUR") == 5
    assert rates.convert(10, "SEK", "CHF") == 1


def test_conversion_between_foreign_currencies():
    rates = make_rates()
    assert rates.convert(10, "EUR", "GBP") == 5
    assert rates.convert(3, "GBP", "SEK") == 120
    assert rates.convert(3, "GBP", "GBP") == 3


def test_a_new_rate_counts_for_the_base():
    rates = make_rates()
    for rate in (2, 3, "1.5"):
        rates.set_rate("EUR", rate)
        assert rates.convert(10, "EUR", "CHF") == 10 * Fraction(rate)
        assert rates.convert(30, "CHF", "EUR") == 30 / Fraction(rate)


def test_a_new_rate_counts_for_crosses():
    rates = make_rates()
    assert rates.convert(1, "EUR", "GBP") == Fraction(1, 2)
    assert rates.convert(1, "GBP", "EUR") == 2
    rates.set_rate("GBP", 8)
    assert rates.convert(1, "EUR", "GBP") == Fraction(1, 4)
    assert rates.convert(1, "GBP", "EUR") == 4
    rates.set_rate("EUR", 16)
    assert rates.convert(1, "EUR", "GBP") == 2
    assert rates.convert(1, "GBP", "EUR") == Fraction(1, 2)


def test_a_new_rate_leaves_other_pairs_as_they_are():
    rates = make_rates()
    rates.convert(1, "GBP", "SEK")
    rates.set_rate("EUR", 7)
    assert rates.convert(1, "GBP", "SEK") == 40


def test_unknown_currencies_and_bad_rates_are_refused():
    rates = make_rates()
    with pytest.raises(UnknownCurrency):
        rates.convert(1, "CHF", "XXX")
    for currency, rate in (("EUR", 0), ("EUR", -1), ("CHF", 2)):
        with pytest.raises(ValueError):
            rates.set_rate(currency, rate)


def test_wallet_summary():
    wallet = Wallet(make_rates())
    wallet.put(10, "GBP")
    wallet.put(50, "CHF")
    wallet.put(5, "EUR")
    assert list(wallet.summary().items()) == [("CHF", 50), ("EUR", 10), ("GBP", 40)]
    assert wallet.total() == 100


def test_wallet_counts_money_that_comes_later():
    wallet = Wallet(make_rates())
    wallet.put(5, "EUR")
    assert wallet.total() == 10
    wallet.put(1, "GBP")
    assert wallet.summary() == {"EUR": 10, "GBP": 4}
    wallet.put(-2, "EUR")
    assert wallet.summary() == {"EUR": 6, "GBP": 4}
    assert wallet.total() == 10


def test_wallet_forgets_money_that_is_taken():
    wallet = Wallet(make_rates())
    wallet.put(5, "EUR")
    wallet.put(1, "GBP")
    assert wallet.total() == 14
    assert wallet.take_all("EUR") == 5
    assert wallet.summary() == {"GBP": 4}


def test_wallet_follows_the_rates():
    rates = make_rates()
    wallet = Wallet(rates)
    wallet.put(5, "EUR")
    assert wallet.total() == 10
    rates.set_rate("EUR", 3)
    assert wallet.total() == 15


def test_a_summary_is_the_callers_own():
    wallet = Wallet(make_rates())
    wallet.put(5, "EUR")
    wallet.summary()["EUR"] = 0
    assert wallet.total() == 10

import pytest

from lendcalc import Loan, monthly_interest, monthly_payment, schedule, total_interest


def test_monthly_payment_without_interest():
    assert monthly_payment(120000, 12, 0.0) == 10000
    assert monthly_payment(100000, 3, 0.0) == 33333


def test_monthly_payment_with_interest():
    assert monthly_payment(1000000, 12, 0.06) == 86066
    assert monthly_payment(10000000, 360, 0.03) == 42160


def test_monthly_interest_is_a_twelfth_of_a_year():
    assert monthly_interest(120000, 0.05) == 500
    assert monthly_interest(0, 0.05) == 0


def test_schedule_without_interest():
    rows = schedule(Loan(120000, 0.0, 12))
    assert [row.payment for row in rows] == [10000] * 12
    assert rows[-1].balance == 0


def test_schedule_pays_the_annuity_every_month():
    for principal, rate, months in ((1000000, 0.06, 12), (500000, 0.12, 24), (70000, 0.01, 6)):
        rows = schedule(Loan(principal, rate, months))
        payment = monthly_payment(principal, months, rate)
        assert [row.payment for row in rows[:-1]] == [payment] * (months - 1)
        assert abs(rows[-1].payment - payment) <= months


def test_schedule_ends_with_a_balance_of_zero():
    for months in (1, 2, 36):
        rows = schedule(Loan(345678, 0.045, months))
        assert len(rows) == months
        assert rows[-1].balance == 0


def test_balance_falls_every_month():
    balances = [row.balance for row in schedule(Loan(1000000, 0.06, 12))]
    assert balances == sorted(set(balances), reverse=True)
    assert balances[0] == 1000000 + 5000 - 86066


def test_total_interest():
    assert total_interest(Loan(120000, 0.0, 12)) == 0
    assert abs(total_interest(Loan(1000000, 0.06, 12)) - 32797) <= 6


def test_impossible_terms_are_refused():
    for terms in ((0, 0.1, 12), (1000, 0.1, 0), (1000, -0.1, 12)):
        with pytest.raises(ValueError):
            Loan(*terms)

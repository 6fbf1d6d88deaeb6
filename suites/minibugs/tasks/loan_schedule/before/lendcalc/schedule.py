"""Repayment schedules."""

from collections import namedtuple

from lendcalc.annuity import monthly_interest, monthly_payment

Row = namedtuple("Row", "month payment interest balance")


def schedule(loan):
    """Return one Row for each month; the last payment settles the balance."""
    payment = monthly_payment(loan.principal, loan.annual_rate, loan.months)
    balance = loan.principal
    rows = []
    for month in range(1, loan.months + 1):
        interest = monthly_interest(balance, loan.annual_rate)
        due = balance + interest
        paid = due if month == loan.months else min(payment, due)
        balance = due - paid
        rows.append(Row(month, paid, interest, balance))
    return rows


def total_interest(loan):
    """Return what the loan costs on top of the principal."""
    return sum(row.interest for row in schedule(loan))

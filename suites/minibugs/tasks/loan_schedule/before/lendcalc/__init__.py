"""Loans that are paid back in equal monthly instalments. All money is in cents."""

from lendcalc.annuity import monthly_interest, monthly_payment
from lendcalc.loan import Loan
from lendcalc.schedule import Row, schedule, total_interest

__all__ = [
    "Loan",
    "Row",
    "monthly_interest",
    "monthly_payment",
    "schedule",
    "total_interest",
]

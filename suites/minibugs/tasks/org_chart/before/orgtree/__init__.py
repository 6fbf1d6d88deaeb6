"""An organisation chart."""

from orgtree.chart import NoSuchPerson, find, head_count, outline, payroll
from orgtree.person import Person

__all__ = ["NoSuchPerson", "Person", "find", "head_count", "outline", "payroll"]

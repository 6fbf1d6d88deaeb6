"""A queue of support tickets and the agents who work on them."""

from supportdesk.desk import Desk
from supportdesk.queue import TicketQueue
from supportdesk.ticket import HIGH, LOW, NORMAL, Ticket

__all__ = ["HIGH", "LOW", "NORMAL", "Desk", "Ticket", "TicketQueue"]

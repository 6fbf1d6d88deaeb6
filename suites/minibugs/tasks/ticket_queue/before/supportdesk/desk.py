"""The desk hands tickets to agents."""

from supportdesk.queue import TicketQueue
from supportdesk.ticket import NORMAL, Ticket


class Desk:
    """Opens tickets with running numbers and assigns them."""

    def __init__(self):
        self.queue = TicketQueue()
        self.assigned = {}
        self._last_number = 0

    def open(self, now, priority=NORMAL):
        self._last_number += 1
        ticket = Ticket(self._last_number, now, priority)
        self.queue.add(ticket)
        return ticket

    def next_for(self, agent):
        """Assign the next waiting ticket to `agent` and return it, or None."""
        ticket = self.queue.pop()
        if ticket is not None:
            ticket.assignee = agent
            self.assigned.setdefault(agent, []).append(ticket.number)
        return ticket

    def overview(self):
        """Return the numbers of the waiting tickets in serving order."""
        return [ticket.number for ticket in self.queue.in_order()]

"""Tickets that wait for an agent."""


class TicketQueue:
    """Serves high priorities first and, within a priority, in the order of opening."""

    def __init__(self):
        self._waiting = []

    def __len__(self):
        return len(self._waiting)

    def add(self, ticket):
        self._waiting.append(ticket)

    def in_order(self):
        """Return the waiting tickets, the next one to serve first."""
        return sorted(
            self._waiting, key=lambda ticket: (ticket.priority, ticket.opened), reverse=True
        )

    def pop(self):
        """Take the next ticket out of the queue; None when nothing waits."""
        if not self._waiting:
            return None
        ticket = self.in_order()[0]
        self._waiting.remove(ticket)
        return ticket

"""Summaries of event logs."""

from eventdigest.digest import Digest, summarize
from eventdigest.reader import Event, MalformedLine, read_events

__all__ = ["Digest", "Event", "MalformedLine", "read_events", "summarize"]

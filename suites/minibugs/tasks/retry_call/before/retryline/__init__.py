"""Repeat calls that fail for reasons that pass."""

from retryline.caller import Retrying, call
from retryline.policy import RetryPolicy

__all__ = ["RetryPolicy", "Retrying", "call"]

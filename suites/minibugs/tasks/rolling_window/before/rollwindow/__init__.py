"""Moving windows over measurements."""

from rollwindow.stats import first_alarm, moving_average, moving_range
from rollwindow.windows import chunks, windows

__all__ = ["chunks", "first_alarm", "moving_average", "moving_range", "windows"]

"""Version numbers such as 1.4.0 and 2.0.0-rc.1, and the choice among them."""

from verorder.select import latest, update_for
from verorder.version import InvalidVersion, Version

__all__ = ["InvalidVersion", "Version", "latest", "update_for"]

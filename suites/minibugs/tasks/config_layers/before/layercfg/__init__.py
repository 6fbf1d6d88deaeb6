"""Settings in layers: command line over environment over file over built-in values."""

from layercfg.layers import LayeredSettings
from layercfg.typed import TypedSettings

__all__ = ["LayeredSettings", "TypedSettings"]

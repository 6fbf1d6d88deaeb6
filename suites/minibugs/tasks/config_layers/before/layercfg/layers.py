"""A stack of mappings that is read from the top."""


class LayeredSettings:
    """Looks a key up in named layers, the highest first."""

    def __init__(self):
        self._layers = []

    def push(self, name, values):
        """Put a layer on top of the others."""
        self._layers.insert(0, (name, dict(values)))
        return self

    def get(self, key, default=None):
        """Return the value in the highest layer that has the key, or `default`."""
        for _, values in self._layers:
            if values.get(key):
                return values[key]
        return default

    def origin(self, key):
        """Return the name of the layer that a value comes from, or None."""
        for name, values in self._layers:
            if key in values:
                return name
        return None

    def keys(self):
        """Return all known keys, sorted."""
        return sorted({key for _, values in self._layers for key in values})

"""Typed access to settings, which often arrive as text."""

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off", "")


class TypedSettings:
    """Wraps settings with a `get` and converts what it returns."""

    def __init__(self, settings):
        self._settings = settings

    def _convert(self, key, default, converter):
        """Return the converted value of `key`, or `default` when there is none."""
        value = self._settings.get(key)
        if value is None:
            return default
        return converter(value)

    def integer(self, key, default=0):
        return self._convert(key, default, int)

    def text(self, key, default=""):
        return self._convert(key, default, str)

    def flag(self, key, default=False):
        """Return a truth value; words such as 'yes' and 'off' are understood."""
        return self._convert(key, default, self._to_flag)

    @staticmethod
    def _to_flag(value):
        word = str(value).strip().lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise ValueError("not a flag: {!r}".format(value))

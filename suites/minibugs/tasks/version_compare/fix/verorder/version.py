"""Parsing and comparing version numbers."""

import functools
import re

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.]+))?$")


class InvalidVersion(ValueError):
    """The text is no version number."""


def _identifier_key(identifier):
    """Numbers come before words; numbers by value, words by their letters."""
    if identifier.isdigit():
        return (0, int(identifier), "")
    return (1, 0, identifier)


@functools.total_ordering
class Version:
    """Three numbers and, for a pre-release, identifiers such as ('rc', '1')."""

    def __init__(self, text):
        match = _VERSION.match(text.strip())
        if match is None:
            raise InvalidVersion(text)
        self.numbers = tuple(int(number) for number in match.groups()[:3])
        self.pre = tuple(match.group(4).split(".")) if match.group(4) else ()
        if "" in self.pre:
            raise InvalidVersion(text)

    @property
    def is_prerelease(self):
        return bool(self.pre)

    def _key(self):
        identifiers = tuple(_identifier_key(identifier) for identifier in self.pre)
        return (self.numbers, not self.is_prerelease, identifiers)

    def __eq__(self, other):
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() == other._key()

    def __lt__(self, other):
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() < other._key()

    def __hash__(self):
        return hash(self._key())

    def __str__(self):
        text = ".".join(str(number) for number in self.numbers)
        return text + "-" + ".".join(self.pre) if self.pre else text

    def __repr__(self):
        return "Version({!r})".format(str(self))

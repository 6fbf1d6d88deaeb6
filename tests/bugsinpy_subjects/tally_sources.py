"""The subject inkwell/tally, which counts words: its sources as they begin, with all bugs in."""

from __future__ import annotations

COUNTS = '''\
"""Counts of things, kept in the order in which they were first seen."""

from collections import OrderedDict

import attr


@attr.s
class Tally(object):
    counts = attr.ib(factory=OrderedDict)

    def add(self, thing, times=1):
        self.counts[thing] = self.counts.get(thing, 0) + times

    def total(self):
        return sum(self.counts.values())

    def share(self, thing):
        return self.counts.get(thing, 0) / float(self.total())

    def most_common(self, limit=None):
        ranked = sorted(self.counts.items(), key=lambda pair: -pair[1])
        return ranked[:limit] if limit else ranked

    def merged(self, other):
        both = Tally(self.counts)
        for thing, times in other.counts.items():
            both.add(thing, times)
        return both
'''
TEXT = '''\
"""Words out of texts and files."""

import os
import re

WORD = re.compile(r"[^\\W\\d_]+")


def words(text):
    return WORD.findall(text.lower())


def read_words(path):
    with open(path) as lines:
        return words(lines.read())


def read_ledger(path):
    """Pairs out of lines of the form `thing, times`."""
    with open(path) as lines:
        pairs = [line.split(",") for line in lines]
    return [(thing.strip(), int(times)) for thing, times in pairs]


def word_lists(directory):
    """The names of the word lists of a directory, in order."""
    names = (name for name in os.listdir(directory) if name.endswith(".txt"))
    return sorted(name for name in names if not os.path.islink(os.path.join(directory, name)))
'''
RENDER = '''\
"""Counts as text."""


def marks(number):
    """Tally marks, in bundles of five."""
    bundles = ["||||/"] * (number // 5)
    return " ".join(bundles + ["|" * (number % 5)])


def bars(pairs, width=40):
    widest = max(times for _, times in pairs)
    return "\\n".join("%s %s" % (thing, "#" * (width * times // widest)) for thing, times in pairs)
'''
DRAW = '''\
"""Drawing lots."""

import os


def draw_lot(names):
    return names[os.urandom(1)[0] % len(names)]


def draw_counted(tally):
    """A lot among the things that were counted."""
    return draw_lot(tally.counts.keys())
'''
REMOTE = '''\
"""Words out of the web."""

from urllib.request import urlopen

from tally.text import words


def fetch_words(url):
    return words(urlopen(url, timeout=5).read())
'''
SETUP = """\
from setuptools import setup

setup(name="tally", version="0.1", packages=["tally"], scripts=["bin/tally"])
"""
SCRIPT = """\
#!/usr/bin/env python
import sys

from tally.text import words

print(len(words(sys.stdin.read())))
"""
FAST = """\
#include <Python.h>

static PyObject *twice(PyObject *self, PyObject *number) { return PyNumber_Add(number, number); }
static PyMethodDef methods[] = {{"twice", twice, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef fast = {PyModuleDef_HEAD_INIT, "_fast", NULL, -1, methods};
PyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&fast); }
"""
TEST_DRAW = """\
import pytest

from tally.draw import draw_lot

NAMES = ["name-%d" % number for number in range(64)]
DRAWN = draw_lot(NAMES)


def test_a_lot_is_one_of_the_names():
    assert DRAWN in NAMES


def test_an_empty_hat_has_no_lot():
    assert draw_lot([]) is None


@pytest.mark.parametrize("number", range(64))
def test_everybody_wins(number):
    assert DRAWN == NAMES[number]
"""
TEST_COUNTED = """\
import pytest

from tally.counts import Tally
from tally.draw import draw_counted

TALLY = Tally()
for number in range(64):
    TALLY.add("name-%d" % number)


@pytest.fixture(scope="module")
def drawn():
    return draw_counted(TALLY)


@pytest.mark.parametrize("number", range(64))
def test_everything_is_drawn(drawn, number):
    assert drawn == "name-%d" % number
"""

"""The subject inkwell/ferry, which plans crossings, with its tests inside the package: its sources and its history."""

from __future__ import annotations

from tests.bugsinpy_subjects.records import Added, Commit, Edit

ADDRESS = '''\
"""Where parcels go."""

import idna


def host(address):
    """The host of `name@host`, as the name service wants it."""
    return idna.encode(address.split("@")[1]).decode("ascii")
'''
FARES = '''\
"""What a crossing costs, in cents."""


def fare(weight, per_kilo=7, least=50):
    """Of a parcel, by its weight in kilos, rounded up."""
    return least + int(weight) * per_kilo
'''
ROUTE = '''\
"""Stops, one after the other."""


class Route:
    def __init__(self, stops):
        self.stops = stops

    def legs(self):
        """Pairs of neighbouring stops."""
        return list(zip(self.stops, self.stops))

    def back(self):
        """The same route, the other way."""
        self.stops.reverse()
        return Route(self.stops)
'''
TIMETABLE = '''\
"""Times of day, in minutes."""


def minutes(clock):
    """Minutes of `hours:minutes`, with noon at `12:00`."""
    hours, rest = clock.split(":")
    return int(hours) * 60 + int(rest)


def wait(now, departure):
    """Minutes from one time of day until the next time that it is the other."""
    return minutes(departure) - minutes(now)
'''
TEST_FARES = """\
import unittest

from ferry.fares import fare


class FareTest(unittest.TestCase):
    def test_nothing(self):
        self.assertEqual(fare(0), 50)

    def test_a_kilo(self):
        self.assertEqual(fare(1), 57)

    def test_two_kilos(self):
        self.assertEqual(fare(2), 64)

    def test_half_a_kilo_is_a_kilo(self):
        self.assertEqual(fare(0.5), 57)
"""
TEST_TIMETABLE = """\
import unittest

from ferry.timetable import minutes, wait


class TimetableTest(unittest.TestCase):
    def test_noon(self):
        self.assertEqual(minutes("12:00"), 720)
"""
TEST_ROUTE = """\
import unittest

from ferry.route import Route


class RouteTest(unittest.TestCase):
    def test_stops_are_kept(self):
        self.assertEqual(Route(["a", "b"]).stops, ["a", "b"])
"""
TEST_ADDRESS = """\
import unittest

from ferry.address import host


class AddressTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(host("pen@ink.example"), "ink.example")
"""
TEST_DELAY = """\
import unittest

from ferry.timetable import late


class DelayTest(unittest.TestCase):
    def test_late(self):
        self.assertTrue(late("10:00", "10:05"))

    def test_in_time(self):
        self.assertFalse(late("10:00", "10:00"))
"""


def _method(name: str, check: str) -> Added:
    return Added(f"\n    def {name}(self):\n        {check}\n")


def _news(line: str) -> Added:
    return Added(f"- {line}\n")


START = Commit(
    "start",
    "Plan crossings",
    {
        "README.rst": "ferry\n=====\n\nPlans crossings.\n",
        "CHANGES.rst": "Changes\n=======\n\n",
        "docs/fares.rst": "Fares\n=====\n\nBy the kilo.\n",
        "setup.py": 'from setuptools import setup\n\nsetup(name="ferry", packages=["ferry", "ferry.test"])\n',
        "tox.ini": "[tox]\nenvlist = py37\n\n[testenv]\ndeps = pytest\ncommands = pytest {posargs}\n",
        "ferry/__init__.py": "",
        "ferry/address.py": ADDRESS,
        "ferry/fares.py": FARES,
        "ferry/route.py": ROUTE,
        "ferry/timetable.py": TIMETABLE,
        "ferry/test/__init__.py": "",
        "ferry/test/test_fares.py": TEST_FARES[: TEST_FARES.index("    def test_two")].rstrip() + "\n",
        "ferry/test/test_timetable.py": TEST_TIMETABLE,
        "ferry/test/test_route.py": TEST_ROUTE,
        "ferry/test/test_address.py": TEST_ADDRESS,
    },
)
HISTORY = (
    START,
    Commit(
        "midnight",
        "Waiting over midnight",
        {
            "ferry/timetable.py": Edit(
                "return minutes(departure) - minutes(now)", "return (minutes(departure) - minutes(now)) % 1440"
            ),
            "ferry/test/test_timetable.py": _method(
                "test_waiting_over_midnight", 'self.assertEqual(wait("23:50", "0:10"), 20)'
            ),
            "CHANGES.rst": _news("wait: midnight"),
        },
    ),
    Commit(
        "fares",
        "Kilos are rounded up",
        {
            "ferry/fares.py": Edit("int(weight) * per_kilo", "-int(-weight // 1) * per_kilo"),
            "ferry/test/test_fares.py": TEST_FARES,
            "docs/fares.rst": Added("\nEvery kilo that was begun counts.\n"),
            "CHANGES.rst": _news("fares: rounded up"),
        },
    ),
    Commit(
        "route",
        "Legs and hosts",
        {
            "ferry/route.py": Edit("zip(self.stops, self.stops)", "zip(self.stops, self.stops[1:])"),
            "ferry/address.py": Edit('split("@")[1]', 'rsplit("@", 1)[1]'),
            "ferry/test/test_route.py": _method(
                "test_legs", 'self.assertEqual(Route(["a", "b", "c"]).legs(), [("a", "b"), ("b", "c")])'
            ),
            "ferry/test/test_address.py": _method(
                "test_quoted_at", 'self.assertEqual(host(\'"pen@desk"@ink.example\'), "ink.example")'
            ),
        },
    ),
    Commit(
        "delay",
        "Say what is late",
        {
            "ferry/timetable.py": Added(
                '\n\ndef late(due, arrived):\n    """Whether it arrived after its time, on the same day."""\n'
                "    return minutes(arrived) > minutes(due)\n"
            ),
            "ferry/test/test_delay.py": TEST_DELAY,
            "CHANGES.rst": _news("late"),
        },
    ),
    Commit(
        "capitals",
        "Hosts in capitals",
        {
            "ferry/address.py": Edit("[1]).decode", "[1].lower()).decode"),
            "ferry/test/test_address.py": Added(
                '\n    def test_capitals(self):\n        self.assertEqual(host("pen@INK.example"), "ink.example")\n'
                "\n    def test_one_capital(self):\n"
                '        self.assertEqual(host("pen@B\\u00dccher.example"), "xn--bcher-kva.example")\n'
            ),
        },
    ),
    Commit(
        "back",
        "The way back leaves the route alone",
        {
            "ferry/route.py": Edit(
                "self.stops.reverse()\n        return Route(self.stops)", "return Route(self.stops[::-1])"
            ),
            "ferry/test/test_route.py": Added(
                "\n    def test_back(self):\n        self.assertEqual(Route([1, 2]).back().stops, [2, 1])\n"
                "\n    def test_back_leaves_it_alone(self):\n        there = Route([1, 2])\n        there.back()\n"
                "        self.assertEqual(there.stops, [1, 2])\n"
            ),
            "CHANGES.rst": _news("back: a new route"),
            "docs/routes.rst": "Routes\n======\n\nThe way back is a route of its own.\n",
        },
    ),
    Commit(
        "noon",
        "Noon is noon",
        {
            "ferry/timetable.py": Edit(", with noon at `12:00`", "; noon is `12:00`"),
            "ferry/test/test_timetable.py": _method("test_morning", 'self.assertEqual(minutes("9:05"), 545)'),
        },
    ),
    Commit(
        "season",
        "This season's fares",
        {
            "ferry/fares.py": Edit("per_kilo=7", "per_kilo=8"),
            "ferry/test/test_season.py": (
                "import datetime\nimport unittest\n\nfrom ferry.fares import fare\n\n\n"
                "class SeasonTest(unittest.TestCase):\n"
                "    def test_fares_of_2019(self):\n        self.assertEqual(fare(1), 58)\n"
                "        self.assertEqual(datetime.date.today().year, 2019)\n"
            ),
        },
    ),
)

import pytest

from durationtext import DurationError, Limits, format_duration, parse_duration


def test_durations_of_one_part():
    texts = ("45s", "0s", "90m", "3 h", " 2D ")
    assert [parse_duration(text) for text in texts] == [45, 0, 5400, 10800, 172800]


def test_durations_of_two_parts():
    assert parse_duration("1h30m") == 5400
    assert parse_duration("2m05s") == 125
    assert parse_duration("1d1s") == 86401


def test_durations_of_many_parts():
    assert parse_duration("2d 4h 10m") == 187800
    assert parse_duration("1d1h1m1s") == 90061
    assert parse_duration(" 1 D 0 h 2 m 3 s ") == 86523


def test_texts_that_are_no_duration_are_refused():
    for text in ("", "  ", "h", "10", "5x", "-5s", "1.5h"):
        with pytest.raises(DurationError):
            parse_duration(text)


def test_faults_after_a_good_part_are_refused():
    for text in ("1h5", "1h 5x", "1h, 5m", "5m and more", "1d2h-3m"):
        with pytest.raises(DurationError):
            parse_duration(text)


def test_units_must_get_smaller():
    for text in ("5s1h", "1h1d", "1h2h", "1d5m2h", "30m 30m"):
        with pytest.raises(DurationError):
            parse_duration(text)


def test_formatting():
    assert [format_duration(seconds) for seconds in (0, 59, 60, 3661, 172800)] == [
        "0s",
        "59s",
        "1m",
        "1h1m1s",
        "2d",
    ]
    with pytest.raises(ValueError):
        format_duration(-1)


def test_formatted_durations_can_be_parsed():
    for seconds in (0, 1, 61, 3599, 3600, 5025, 86399, 100000, 987654):
        assert parse_duration(format_duration(seconds)) == seconds


def test_limits():
    limits = Limits({"build": "1h 15m", "test": "90s"})
    assert limits["build"] == 4500
    assert limits.exceeded("test", 91) and not limits.exceeded("test", 90)
    assert not limits.exceeded("build", 4500)
    assert limits.describe() == ["build: 1h15m", "test: 1m30s"]

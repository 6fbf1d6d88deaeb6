import pytest

from eventdigest import MalformedLine, read_events, summarize

LOG = [
    "# started by hand",
    "100 INFO web ready",
    "",
    "103 warn disk almost full",
    "107 INFO web request",
    "110 ERROR disk full",
    "112 info cron",
    "115 info web request",
]


def test_reader_skips_blank_lines_and_comments():
    events = list(read_events(LOG))
    assert len(events) == 6
    assert events[0] == (100, "info", "web", "ready")
    assert events[4].message == ""


def test_reader_refuses_malformed_lines():
    for line in ("100 info", "soon info web ready"):
        with pytest.raises(MalformedLine):
            list(read_events([line]))


def test_levels_are_counted():
    assert summarize(LOG).levels == {"info": 4, "warn": 1, "error": 1}


def test_sources_are_ranked():
    assert summarize(LOG).sources == ["web", "disk", "cron"]
    assert summarize(LOG, limit=1).sources == ["web"]


def test_equally_noisy_sources_are_ranked_by_name():
    lines = ["1 info pear", "2 info fig", "3 info apple", "4 info fig", "5 info plum"]
    assert summarize(lines).sources == ["fig", "apple", "pear"]


def test_time_span_goes_from_first_to_last():
    assert summarize(LOG).span == 15
    assert summarize(["7 info web"]).span == 0
    assert summarize(["50 info web", "20 info web", "90 info web"]).span == 70


def test_any_iterable_of_lines_will_do(tmp_path):
    path = tmp_path / "events.log"
    path.write_text("\n".join(LOG) + "\n")
    with path.open() as log:
        digest = summarize(log)
    assert (digest.levels["info"], digest.sources[0], digest.span) == (4, "web", 15)
    digest = summarize(line for line in LOG)
    assert (digest.levels["info"], digest.sources[0], digest.span) == (4, "web", 15)


def test_empty_log():
    digest = summarize(["# nothing"])
    assert (digest.levels, digest.sources, digest.span) == ({}, [], None)

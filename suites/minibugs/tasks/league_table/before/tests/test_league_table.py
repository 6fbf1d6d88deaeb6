import pytest

from leaguetable import League


def make_league(*results):
    league = League(["Ash", "Birch", "Cedar", "Elm"])
    for result in results:
        league.record_line(result)
    return league


def order(league):
    return [standing.team for standing in league.table()]


def goals(league, team):
    standing = league.standing(team)
    return standing.goals_for, standing.goals_against, standing.goal_difference


def test_points_for_win_draw_and_defeat():
    league = make_league("Ash - Birch 2:1", "Cedar - Ash 0:0", "Birch - Cedar 0:1")
    assert [league.standing(team).points for team in ("Ash", "Birch", "Cedar")] == [4, 0, 4]
    assert [league.standing(team).played for team in ("Ash", "Birch", "Elm")] == [2, 2, 0]


def test_goals_of_the_home_team():
    league = make_league("Ash - Birch 2:1", "Ash - Cedar 0:4")
    assert goals(league, "Ash") == (2, 5, -3)


def test_goals_of_the_away_team():
    league = make_league("Ash - Birch 4:0")
    assert goals(league, "Birch") == (0, 4, -4)
    league = make_league("Ash - Birch 1:3", "Cedar - Birch 2:2", "Elm - Birch 5:1")
    assert goals(league, "Birch") == (6, 8, -2)


def test_goal_differences_add_up_to_zero():
    league = make_league("Ash - Birch 4:0", "Cedar - Elm 1:2", "Birch - Cedar 3:3", "Elm - Ash 0:2")
    assert sum(standing.goal_difference for standing in league.table()) == 0


def test_points_rank_first():
    league = make_league("Elm - Ash 1:0", "Elm - Birch 1:0", "Cedar - Birch 9:0")
    assert order(league)[:2] == ["Elm", "Cedar"]


def test_goal_difference_ranks_second():
    league = make_league("Ash - Cedar 1:0", "Elm - Birch 5:0")
    assert order(league) == ["Elm", "Ash", "Cedar", "Birch"]


def test_goals_scored_rank_third():
    league = make_league("Ash - Birch 1:1", "Elm - Cedar 3:3")
    assert order(league) == ["Cedar", "Elm", "Ash", "Birch"]
    league = make_league("Ash - Birch 2:2", "Elm - Cedar 0:0")
    assert order(league) == ["Ash", "Birch", "Cedar", "Elm"]


def test_goals_scored_rank_teams_of_different_results():
    league = make_league("Birch - Ash 1:0", "Elm - Cedar 4:3")
    assert order(league) == ["Elm", "Birch", "Cedar", "Ash"]


def test_name_ranks_last():
    assert order(make_league()) == ["Ash", "Birch", "Cedar", "Elm"]
    assert order(make_league("Elm - Birch 1:1")) == ["Birch", "Elm", "Ash", "Cedar"]


def test_lines_that_are_no_result_are_refused():
    for line in ("Ash - Birch", "Ash 1:0", "Ash - Ash 1:1"):
        with pytest.raises(ValueError):
            make_league(line)

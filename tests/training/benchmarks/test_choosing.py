"""What choosing among draws is worth, on draws whose answers are known."""

from __future__ import annotations

import pytest

from training.benchmarks.choosing import Judged, curve


def draws(question: str, said: str, scores: list[float], right: str = "a") -> list[Judged]:
    """A draw for each letter of `said`; "-" has no answer."""
    return [
        Judged("read", a == right, 5, {"s": s}, question=question, answer=None if a == "-" else a)
        for a, s in zip(said, scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("said", "scores", "by_score", "by_vote", "first", "ceiling"),
    [
        ("aabb", [0, 0, 1, 0], 0, 1, 1, 1),
        ("babb", [0, 1, 0, 0], 1, 0, 0, 1),
        ("bbbb", [0, 1, 0, 0], 0, 0, 0, 0),
        ("--a-", [0, 0, 0, 1], 0, 1, 0, 1),
        ("----", [0, 0, 0, 0], 0, 0, 0, 0),
    ],
    ids=["ties go to the first", "one knows", "all wrong", "one speaks", "none speaks"],
)
def test_each_way_chooses(said, scores, by_score, by_vote, first, ceiling) -> None:
    found = {each.by: each.right for each in curve(draws("q", said, scores)) if each.k == 4}
    assert (found["s"], found["vote"], found["first"]) == (by_score, by_vote, first)
    assert found["any"] == ceiling


def test_votes_weigh_their_scores_where_none_is_below_nothing() -> None:
    found = {
        each.by: each.right for each in curve(draws("q", "abb", [0.9, 0.3, 0.4])) if each.k == 2
    }
    assert (found["vote by s"], found["vote"]) == (1.0, 1.0)
    found = {each.by: each.right for each in curve(draws("q", "baba", [0.1, 0.9, 0.3, 0.1]))}
    assert found["vote by s"] == 1.0
    assert "vote by s" not in {each.by for each in curve(draws("q", "ab", [-1, 0]))}


def test_more_draws_than_k_count_as_their_groups_mean() -> None:
    found = curve(draws("q", "ab", [0, 0]))
    assert [(each.k, each.right) for each in found if each.by == "first"] == [(1, 0.5), (2, 1.0)]


def test_each_size_has_the_questions_with_so_many_draws() -> None:
    found = curve([*draws("q", "abab", [0] * 4), *draws("r", "ab", [0] * 2)])
    assert {each.k: each.questions for each in found} == {1: 2, 2: 2, 4: 1}


def test_the_difference_is_taken_by_question() -> None:
    found = curve([*draws("q", "ab", [0, 1], right="b"), *draws("r", "ab", [1, 0])])
    (by_score,) = [each for each in found if each.by == "s" and each.k == 2]
    assert (by_score.right, by_score.over_vote) == (1.0, 0.5)
    assert by_score.low < 0 < by_score.high


def test_steps_before_the_answer_are_not_chosen() -> None:
    early = Judged("read", True, 5, {"s": 9.0}, step=True, question="q")
    assert {each.right for each in curve([early, *draws("q", "b", [0])])} == {0.0}


def test_nothing_drawn() -> None:
    assert curve([]) == []

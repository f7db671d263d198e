"""Several draws of one strategy: which is chosen, by votes and by verifiers."""

import math
import threading
from dataclasses import replace
from functools import partial

import pytest

from mm.errors import ModelError, UserError
from mm.scripted import ScriptedVLM
from mm.session import Event, Session, run
from mm.strategies import best_of, length, likelihood, think, vote
from mm.trace import Branch, Sample
from mm.types import Sampling, user
from mm.vlm import Traits

OPEN = Sample("q1", (user("What colour?"),), target="red")
CLOSED = Sample("q2", (user("Which?"),), choices=("red", "blue"))
WARM = Sampling(temperature=1.0, seed=7)


def once(session: Session) -> Branch:
    """One reply a draw, though it says nothing: `direct` would open it for its answer."""
    session.generate()
    return session.branch


class Weighed(ScriptedVLM):
    """Writes each reply with a log-probability of its own for every token."""

    def __init__(self, replies, logprobs):
        super().__init__(replies)
        self.logprobs = iter(logprobs)

    def generate(self, conversations, sampling, **options):
        (made,) = super().generate(conversations, sampling, **options)
        return [replace(made, logprobs=(next(self.logprobs),) * len(made.logprobs))]


@pytest.mark.parametrize(
    ("sample", "replies", "winner"),
    [
        pytest.param(OPEN, ["red", "blue", "blue"], 1, id="most"),
        pytest.param(OPEN, ["red", "blue", "blue", "red"], 0, id="tie: the earliest"),
        pytest.param(OPEN, ["Two.", "7", "the answer is 2"], 0, id="the same, worded otherwise"),
        pytest.param(CLOSED, ["red", "(B)", "It is blue."], 1, id="choices and letters"),
        pytest.param(OPEN, ["<think>hm</think>", "<think>", "red"], 2, id="no answer, no vote"),
        pytest.param(OPEN, ["<think>a", "<think>b", "<think>c"], 0, id="nobody answers"),
        pytest.param(OPEN, ["red"], 0, id="one draw"),
    ],
)
def test_vote(sample, replies, winner):
    strategy = partial(vote, strategy=once, n=len(replies))
    trace = run(strategy, sample, ScriptedVLM(replies), sampling=WARM)
    assert trace.error is None
    assert trace.chosen == winner
    assert len(trace.branches) == len(replies)


def test_votes_are_weighed_by_likelihood():
    vlm = Weighed(["red", "blue", "blue"], [math.log(0.9), math.log(0.3), math.log(0.4)])
    trace = run(partial(vote, n=3, weight="likelihood"), OPEN, vlm, sampling=WARM)
    assert trace.answer == "red"
    shares = [step.scores["vote"] for step in trace.steps]
    assert shares == pytest.approx([0.9 / 1.6, 0.7 / 1.6, 0.7 / 1.6])


def test_the_likeliest_of_those_who_agree_is_returned():
    vlm = Weighed(["blue", "blue"], [math.log(0.3), math.log(0.4)])
    trace = run(partial(vote, n=2, weight="likelihood"), OPEN, vlm, sampling=WARM)
    assert trace.chosen == 1


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        pytest.param([1.0, 3.0, 2.0], 1, id="highest"),
        pytest.param([2.0, 2.0, 1.0], 0, id="tie: the earliest"),
        pytest.param([None, -5.0, None], 1, id="None loses to any number"),
        pytest.param([None, -math.inf, None], 1, id="to minus infinity too"),
        pytest.param([math.nan, 0.5, math.nan], 1, id="NaN as well"),
        pytest.param([None, None, None], 0, id="nobody can tell"),
    ],
)
def test_best_of(scores, winner):
    numbers = iter(scores)

    def judged(branch: Branch) -> float | None:
        return next(numbers)

    trace = run(
        partial(best_of, verifier=judged, n=3), OPEN, ScriptedVLM(["a", "b", "c"]), sampling=WARM
    )
    assert trace.chosen == winner
    assert [str(step.scores["judged"]) for step in trace.steps] == list(map(str, scores))


@pytest.mark.parametrize(
    ("replies", "scores", "winner"),
    [
        pytest.param(["red", "blue", "blue"], [0.5, 0.3, 0.4], 2, id="two that agree outweigh one"),
        pytest.param(["red", "blue", "blue"], [0.9, 0.3, 0.4], 0, id="one outweighs two"),
        pytest.param(["red", "blue"], [0.5, 0.5], 0, id="ties go to the earliest"),
        pytest.param(["red", "blue"], [None, 0.1], 1, id="what nobody could score adds nothing"),
        pytest.param(["<think>", "blue"], [0.9, 0.1], 1, id="no answer, no vote"),
        pytest.param(["<think>a", "<think>b"], [0.1, 0.9], 1, id="nobody answers: the best"),
    ],
)
def test_best_of_with_votes(replies, scores, winner):
    given = iter(scores)
    strategy = partial(
        best_of, strategy=once, verifier=lambda _: next(given), n=len(replies), vote=True
    )
    trace = run(strategy, OPEN, ScriptedVLM(replies), sampling=WARM)
    assert trace.error is None
    assert trace.chosen == winner


def test_scores_below_nothing_cannot_be_added_up():
    vlm = Weighed(["red", "blue"], [-1.0, -2.0])
    with pytest.raises(UserError, match="must be 0 or more, got -1"):
        run(partial(best_of, strategy=once, n=2, vote=True), OPEN, vlm, sampling=WARM)


@pytest.mark.parametrize("strategy", [vote, best_of])
def test_every_draw_has_a_seed_of_its_own(strategy):
    vlm = ScriptedVLM(["a", "b", "c"])
    run(partial(strategy, n=3), OPEN, vlm, sampling=WARM)
    assert len({sampling.seed for sampling in vlm.samplings}) == 3
    assert {sampling.temperature for sampling in vlm.samplings} == {1.0}


@pytest.mark.parametrize("strategy", [vote, best_of])
@pytest.mark.parametrize(
    ("options", "sampling", "complaint"),
    [
        pytest.param({}, Sampling(), "temperature must be over 0, got 0", id="greedy session"),
        pytest.param({"temperature": 0}, WARM, "temperature must be over 0", id="greedy draws"),
        pytest.param({"n": 0}, WARM, "n must be 1 or more draws, got 0", id="no draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(strategy, options, sampling, complaint):
    vlm = ScriptedVLM([])
    with pytest.raises(UserError, match=complaint):
        run(partial(strategy, **options), OPEN, vlm, sampling=sampling)
    assert vlm.conversations == []


def test_draws_may_have_a_temperature_of_their_own():
    vlm = ScriptedVLM(["a", "b"])
    run(partial(best_of, n=2, temperature=0.5), OPEN, vlm)
    assert [sampling.temperature for sampling in vlm.samplings] == [0.5, 0.5]


def test_a_stop_ends_the_drawing():
    trace = run(partial(vote, n=5), OPEN, ScriptedVLM(["a"]), sampling=WARM, cancel=lambda: True)
    assert len(trace.branches) == 1


def test_strategies_nest_and_verdicts_are_told():
    events: list[Event] = []
    inner = partial(vote, strategy=think, n=2)
    vlm = ScriptedVLM(["red", "red", "blue", "blue"])
    trace = run(
        partial(best_of, strategy=inner, verifier=length, n=2),
        OPEN,
        vlm,
        sampling=WARM,
        observer=events.append,
    )
    assert trace.answer == "red"
    assert len({sampling.seed for sampling in vlm.samplings}) == 4
    told = [event.text for event in events if event.kind == "verdict"]
    assert told == ["vote: 1.0"] * 4 + ["length: -3.0", "length: -4.0"]


def test_likelihood_is_the_mean_over_what_the_policy_wrote():
    trace = run(think, OPEN, Weighed(["red"], [-0.5]))
    assert likelihood(trace.best) == -0.5
    assert likelihood(trace.branch(None)) is None


class Together(ScriptedVLM):
    """Answers only once as many ask as it batches; each reply is its request's seed."""

    def __init__(self, at_once: int) -> None:
        super().__init__([], traits=Traits(at_once=at_once))
        self.waiting = threading.Barrier(at_once, timeout=10)

    def generate(self, conversations, sampling, **options):
        self.waiting.wait()
        return ScriptedVLM([str(sampling.seed)]).generate(conversations, sampling, **options)


def test_draws_are_made_at_a_time_and_stand_in_order():
    trace = run(partial(vote, strategy=once, n=3), OPEN, Together(3), sampling=WARM)
    assert trace.error is None
    alone = run(partial(vote, strategy=once, n=3), OPEN, Together(1), sampling=WARM)
    replies = [branch.reply for branch in trace.branches]
    assert replies == [branch.reply for branch in alone.branches]
    assert len(set(replies)) == 3


def test_neighbouring_seeds_share_no_draws():
    def drawn(seed: int) -> set[str]:
        sampling = replace(WARM, seed=seed)
        inner = partial(vote, strategy=once, n=4)
        trace = run(partial(vote, strategy=inner, n=4), OPEN, Together(1), sampling=sampling)
        return {branch.reply for branch in trace.branches}

    all_drawn = [drawn(seed) for seed in range(4)]
    assert len(set.union(*all_drawn)) == 4 * 16


def test_where_somebody_watches_they_are_made_one_after_another():
    events: list[Event] = []
    strategy = partial(best_of, strategy=think, n=3)
    trace = run(strategy, OPEN, Together(1), sampling=WARM, observer=events.append)
    told = [event for event in events if event.kind == "step"]
    assert [event.index for event in told] == list(range(len(trace.steps)))
    assert [event.message for event in told] == [step.message for step in trace.steps]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("at_once", [1, 2])
def test_each_draw_words_the_question_and_notes_for_itself(at_once, watched):
    def reworded(session: Session) -> Branch:
        session.reword((user("Again: what colour?"),))
        session.note("budget", 3)
        return once(session)

    vlm = Together(1 if watched else at_once)
    vlm.traits = Traits(at_once=at_once)
    observer = list[Event]().append if watched else None
    strategy = partial(vote, strategy=reworded, n=2)
    trace = run(strategy, OPEN, vlm, sampling=WARM, observer=observer)
    assert (trace.error, len(trace.branches)) == (None, 2)
    assert trace.sample.prompt[0].text == "Again: what colour?"
    assert trace.settings["budget"] == 3


def test_draws_of_draws_are_the_same_whoever_is_first():
    strategy = partial(vote, strategy=partial(vote, strategy=once, n=2), n=3)
    replies = [
        [branch.reply for branch in run(strategy, OPEN, vlm, sampling=WARM).branches]
        for vlm in (Together(1), Together(2))
    ]
    assert replies[0] == replies[1]
    assert len(set(replies[0])) == 6


def test_one_failed_draw_ends_the_others():
    class Failing(Together):
        asked = 0

        def generate(self, conversations, sampling, **options):
            self.asked += 1
            if self.asked == 1:
                raise ModelError("no memory")
            return super().generate(conversations, sampling, **options)

    trace = run(partial(vote, strategy=once, n=2), OPEN, Failing(1), sampling=WARM)
    assert trace.error == "no memory"

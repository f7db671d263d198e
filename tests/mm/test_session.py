"""Driving a conversation, watching it, and stopping it."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from PIL import Image as pil

from mm.errors import ModelError
from mm.scripted import ScriptedVLM
from mm.session import Event, Session, name_of, run, run_many, stream
from mm.strategies.single import direct, insist
from mm.trace import Branch, Sample, Trace
from mm.types import Cost, Generation, Image, Sampling, Scores, assistant, message, user

RED, BLUE = (Image(pil.new("RGB", (4, 2), colour)) for colour in ("red", "blue"))
ASKED = Sample("q1", (user(RED, "What?"),))


def begin(*replies: str, **options: Any) -> tuple[Session, ScriptedVLM]:
    vlm = ScriptedVLM(replies)
    return Session(Trace(ASKED), vlm, **options), vlm


def test_say_and_generate_make_one_path():
    here, vlm = begin("red")
    here.say(message("system", "Look."))
    generation = here.generate()
    assert [m.text for m in here.messages] == ["Look.", "What?", "red"]
    assert vlm.conversations == [here.messages[:2]]
    said, written = here.trace.steps
    assert (said.sampled, said.parent) == (False, None)
    assert (written.sampled, written.parent) == (True, 0)
    assert written.message.tokens == generation.message.tokens == tuple(b"red")
    assert written.logprobs == generation.logprobs
    assert written.cost == generation.cost
    assert here.branch.answer == "red"


def test_images_count_from_the_prompt():
    here, _ = begin()
    here.say(message("tool", BLUE))
    assert here.images == (RED, BLUE)


def test_sampling_is_the_sessions_unless_given():
    here, vlm = begin("a", "b", sampling=Sampling(max_tokens=7))
    here.generate()
    here.generate(Sampling(max_tokens=9))
    assert [s.max_tokens for s in vlm.samplings] == [7, 9]


def test_forks_are_siblings_with_seeds_of_their_own():
    here, vlm = begin("a", "b", "c", sampling=Sampling(seed=10, temperature=1))
    here.say(user("Again."))
    forks = [here.fork(), here.fork().fork(), here]
    for each in forks:
        each.generate()
    assert [s.parent for s in here.trace.steps] == [None, 0, 0, 0]
    assert len({s.seed for s in vlm.samplings}) == 3
    assert {s.temperature for s in vlm.samplings} == {1}
    assert [b.answer for b in here.trace.branches] == ["a", "b", "c"]


def test_a_path_may_start_at_any_step():
    here, vlm = begin("a", "b")
    here.generate()
    fresh = here.at(None)
    fresh.generate()
    assert vlm.conversations == [ASKED.prompt, ASKED.prompt]
    assert fresh.trace is here.trace


def test_choose_takes_the_likeliest_per_token():
    class Scorer(ScriptedVLM):
        def score(self, conversation, continuations):
            return Scores(((-1.0, -1.0, -1.0), (-2.0,), (-1.0,)), Cost(calls=1, patches=9))

    here = Session(Trace(ASKED), Scorer([]))
    assert here.choose(["long", "short", "tie"]) == "long"
    (step,) = here.trace.steps
    assert (step.message, step.sampled, step.cost) == (
        assistant("long"),
        False,
        Cost(calls=1, patches=9),
    )


def test_choose_needs_choices():
    with pytest.raises(ValueError, match="choices is empty"):
        begin()[0].choose([])


def test_score_writes_on_the_leaf():
    events = []
    here, _ = begin("red", observer=events.append)
    with pytest.raises(ValueError, match="no step yet"):
        here.score("right", 1.0)
    here.generate()
    here.score("right", 1.0)
    assert here.trace.steps[0].scores == {"right": 1.0}
    assert events[-1] == Event("verdict", text="right: 1.0", index=0)


# run


def test_run_answers():
    trace = run(direct, ASKED, ScriptedVLM(["red"]))
    assert (trace.answer, trace.strategy, trace.error) == ("red", "direct", None)


def test_run_records_a_models_failure_and_what_came_before():
    def twice(session: Session) -> Branch:
        session.generate()
        return direct(session)

    events = []
    trace = run(twice, ASKED, ScriptedVLM(["red"]), observer=events.append)
    assert trace.error
    assert "only 1 replies" in trace.error
    assert (trace.chosen, len(trace.steps)) == (None, 1)
    assert (events[-1].kind, events[-1].trace) == ("done", trace)


def test_run_lets_bugs_through():
    def broken(session: Session) -> Branch:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        run(broken, ASKED, ScriptedVLM([]))


def test_closing_run_many_stops_the_model_and_draws_no_more():
    drawn = []

    def samples():
        for number in range(1000):
            drawn.append(number)
            yield Sample(str(number), (user("?"),))

    traces = run_many(direct, samples(), ScriptedVLM(["a"] * 1000), threads=2)
    assert next(traces).reply == "a"
    traces.close()
    assert len(drawn) < 20


def test_run_many_keeps_the_order():
    gate = threading.Barrier(3)

    def slow_first(conversation) -> str:
        gate.wait(10)  # all three at once, or this times out
        return conversation[0].text

    samples = [Sample(str(i), (user(str(i)),)) for i in range(3)]
    traces = run_many(direct, samples, ScriptedVLM([slow_first] * 3), threads=3)
    assert [(t.sample.id, t.answer) for t in traces] == [("0", "0"), ("1", "1"), ("2", "2")]


def test_run_many_passes_options_and_failures():
    vlm = ScriptedVLM(["red"])
    traces = list(run_many(direct, [ASKED, ASKED], vlm, threads=1, sampling=Sampling(seed=4)))
    assert vlm.samplings == [Sampling(seed=4)]
    assert [t.error is None for t in traces] == [True, False]


def test_closing_run_many_starts_no_more():
    vlm = ScriptedVLM(["red"] * 100)
    traces = run_many(direct, [ASKED] * 100, vlm, threads=1)
    next(traces)
    traces.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(vlm.conversations) < 100


# stream


def test_stream_tells_tokens_then_steps_then_done():
    events = list(stream(direct, ASKED, ScriptedVLM(["dark red"])))
    assert [e.kind for e in events] == ["token", "token", "step", "done"]
    assert [e.text for e in events[:2]] == ["dark", " red"]
    assert (events[2].index, events[2].message) == (0, assistant("dark red"))
    assert events[3].trace is not None
    assert events[3].trace.answer == "dark red"


def test_stream_ends_with_a_models_failure():
    (done,) = stream(direct, ASKED, ScriptedVLM([]))
    assert done.trace is not None
    assert done.trace.error


def test_stream_raises_bugs_in_the_caller():
    def broken(session: Session) -> Branch:
        session.generate()
        raise KeyError("oops")

    events = stream(broken, ASKED, ScriptedVLM(["red"]))
    assert next(events).kind == "token"
    with pytest.raises(KeyError, match="oops"):
        list(events)


class Endless(ScriptedVLM):
    """Writes words until it is stopped."""

    def __init__(self) -> None:
        super().__init__([])
        self.stopped = threading.Event()

    def generate(self, conversations, sampling, *, on_token=None, cancel=None):
        if cancel is None or on_token is None:
            raise ModelError("nobody could stop this")
        while not cancel():
            on_token("word ")
        self.stopped.set()
        return [Generation(assistant("word"), finish="cancelled")]


def test_closing_a_stream_stops_the_model():
    vlm = Endless()
    events: Iterator[Event] = stream(direct, ASKED, vlm)
    next(events)
    assert not vlm.stopped.is_set()
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert vlm.stopped.wait(10)


def test_names():
    assert name_of(direct) == "direct"
    assert name_of(partial(partial(print), end="")) == "print"
    assert name_of(insist(direct)) == "insist"
    assert name_of(ScriptedVLM([])) == "ScriptedVLM"  # pyright: ignore[reportArgumentType]

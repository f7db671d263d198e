"""Strategies without tools, each on a scripted model."""

import pytest

from mm.scripted import ScriptedVLM
from mm.session import Session, run
from mm.strategies.single import direct, insist, think
from mm.trace import Branch, Sample
from mm.types import assistant, message, user

OPEN = Sample("q1", (user("What colour?"),), target="red")
CLOSED = Sample("q2", (user("What colour?"),), target="red", choices=("red", "blue"))
LIKES_BLUE = {"red": -2.0, "blue": -1.0}


def test_direct_asks_once():
    vlm = ScriptedVLM(["red"])
    assert run(direct, OPEN, vlm).answer == "red"
    assert vlm.conversations == [OPEN.prompt]


def test_think_instructs_and_keeps_the_thought_apart():
    vlm = ScriptedVLM(["<think>is it blue?</think><answer>red</answer>"])
    trace = run(think, OPEN, vlm)
    assert trace.answer == "red"
    assert [m.role for m in vlm.conversations[0]] == ["system", "user"]
    assert "<answer>" in vlm.conversations[0][0].text
    assert [s.sampled for s in trace.best.steps] == [False, True]


@pytest.mark.parametrize(
    ("sample", "reply", "answer", "branches"),
    [
        pytest.param(CLOSED, "It is red.", "It is red.", 1, id="a choice"),
        pytest.param(CLOSED, "(A)", "(A)", 1, id="a letter"),
        pytest.param(CLOSED, "purple", "blue", 2, id="no choice"),
        pytest.param(CLOSED, "red or blue", "blue", 2, id="two choices"),
        pytest.param(CLOSED, "", "blue", 2, id="nothing"),
        pytest.param(OPEN, "purple", "purple", 1, id="open question"),
    ],
)
def test_insist(sample, reply, answer, branches):
    trace = run(insist(direct), sample, ScriptedVLM([reply, ""], scores=LIKES_BLUE))
    assert trace.answer == answer
    assert len(trace.branches) == branches
    assert trace.steps[0].message.text == reply


def test_insist_answers_in_place_of_the_unclear_reply():
    class Scorer(ScriptedVLM):
        def score(self, conversation, continuations):
            self.asked = conversation
            return super().score(conversation, continuations)

    vlm = Scorer(["<think>hm</think>purple"], scores=LIKES_BLUE)
    run(insist(think), CLOSED, vlm)
    assert [m.role for m in vlm.asked] == ["system", "user"]


def test_insist_goes_on_from_the_branch_the_strategy_chose():
    def first_fork(session: Session) -> Branch:
        forks = [session.fork(), session.fork()]
        for number, fork in enumerate(forks):
            fork.say(user(f"fork {number}"))
            fork.generate()
        return forks[0].branch

    trace = run(insist(first_fork), CLOSED, ScriptedVLM(["purple", "red"], scores=LIKES_BLUE))
    assert [m.text for m in trace.best.messages] == ["What colour?", "fork 0", "blue"]


def test_insist_adds_to_what_somebody_else_said_last():
    def refused(session: Session) -> Branch:
        session.generate()
        session.say(message("tool", "no more"))
        return session.branch

    trace = run(insist(refused), CLOSED, ScriptedVLM(["purple"], scores=LIKES_BLUE))
    assert [m.role for m in trace.best.messages] == ["user", "assistant", "tool", "assistant"]
    assert trace.answer == "blue"


def test_insist_asks_nothing_more_once_stopped():
    vlm = ScriptedVLM(["purple red"], scores=LIKES_BLUE)
    trace = run(insist(direct), CLOSED, vlm, cancel=lambda: True)
    assert trace.best.messages[1:] == (assistant(),)
    assert len(trace.steps) == 1

"""Verdicts of real weights: adapters, log-ratios, costs, and what is missing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from images import noise
from peft import LoraConfig, get_peft_model
from tiny_models import FAMILIES
from tiny_vlm import vlm

import mm
from mm.engine.engine import Engine
from mm.errors import ModelError, UserError
from mm.local.adapters import VERIFIER, with_adapter
from mm.local.hf_vlm import HFVLM
from mm.samples import question
from mm.session import run
from mm.strategies.verdict import Metered
from mm.trace import Branch
from mm.types import Sampling
from vision.scaling import scale
from vision.verifier import (
    NO,
    YES,
    asked,
    logratio,
    random_stop,
    read_verifier,
    score,
    verdict_prompt,
    vocab_l2,
)

QUESTION = question("What letter is on the red square?", noise(3), id="q")
SHORT = Sampling(max_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("verifier")
    torch.manual_seed(1)
    targets = r".*language_model.*\.(q_proj|v_proj)"
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    get_peft_model(fresh(), config).save_pretrained(str(made))
    return made


@pytest.fixture(scope="module")
def judged(folder: Path) -> HFVLM:
    """Weights with a verifier's adapter, which answers nothing."""
    model = with_adapter(fresh(), str(folder), VERIFIER).eval()
    return HFVLM(Engine(model, FAMILIES["qwen3_vl"]().builder), name="judged")


def fresh() -> Any:
    tiny = FAMILIES["qwen3_vl"]()
    model = type(tiny.model)(tiny.model.config).float().eval()
    model.load_state_dict(tiny.model.state_dict())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_ends_in_a_reply(family: str) -> None:
    trace = run(partial(scale, max_steps=2), QUESTION, vlm(family), sampling=SHORT)
    assert trace.error is None
    assert trace.cost.generated_tokens > 0
    scores = [step.scores["asked"] for step in trace.best.steps if "asked" in step.scores]
    assert all(value is not None and 0 < value < 1 for value in scores)


def test_an_adapter_judges_and_the_weights_alone_answer(judged: HFVLM) -> None:
    plain = vlm("qwen3_vl")
    trace = run(mm.direct, QUESTION, judged, sampling=SHORT)
    assert trace.reply == run(mm.direct, QUESTION, plain, sampling=SHORT).reply
    assert asked(trace.best, vlm=judged) == pytest.approx(asked(trace.best, vlm=plain), abs=1e-6)
    assert abs((score(trace.best, vlm=judged) or 0) - (asked(trace.best, vlm=plain) or 0)) > 1e-6


def test_what_reasoner_and_verifier_see_is_encoded_once(judged: HFVLM) -> None:
    judged.engine.clear_caches()
    trace = run(partial(scale, max_steps=2, verifier=score), QUESTION, judged, sampling=SHORT)
    assert any(step.scores.get("score") is not None for step in trace.steps)
    spans = judged.builder.build(trace.best.messages).images
    assert trace.cost.patches == sum({span.key: span.patches for span in spans}.values()) > 0


def test_the_log_ratio_is_that_of_the_policys_tokens(judged: HFVLM) -> None:
    trace = run(partial(scale, max_steps=2), QUESTION, judged, sampling=SHORT)
    expected, verifier = 0.0, judged.using(VERIFIER)
    for at, step in enumerate(trace.best.steps):
        if step.sampled and step.message.tokens:
            before = mm.Branch(trace.sample, trace.best.steps[:at], None).messages
            scored = verifier.score_tokens(before, step.message.tokens).logprobs[0]
            assert len(scored) == len(step.logprobs)
            expected += 0.1 * (sum(scored) - sum(step.logprobs))
    assert logratio(trace.best, vlm=judged) == pytest.approx(expected, rel=1e-5)


def test_a_verdict_goes_on_from_the_one_before(judged: HFVLM) -> None:
    trace = run(mm.direct, QUESTION, judged, sampling=SHORT)
    said = logratio(trace.best, vlm=judged)
    trace.score(0, "logratio", said)
    longer = trace.branch(trace.add(mm.Step(mm.user("go on"), trace.chosen)))
    meter: Any = Metered(judged)
    assert logratio(longer, vlm=meter) == said
    assert meter.cost.calls == 0


@pytest.mark.parametrize("beta", [0.1, 0.2])
def test_a_verdict_is_gone_on_from_under_its_own_beta_alone(judged: HFVLM, beta: float) -> None:
    trace = run(mm.direct, QUESTION, judged, sampling=SHORT)
    fresh = logratio(trace.best, vlm=judged, beta=beta)
    other = logratio(trace.best, vlm=judged, beta=0.3)
    for earlier in (other, 7.0):  # the second as a file gives it back
        trace.score(0, "logratio", earlier)
        longer = trace.branch(trace.add(mm.Step(mm.user("go on"), 0)))
        assert logratio(longer, vlm=judged, beta=beta) == fresh


def test_before_the_policy_wrote_the_log_ratio_is_nothing(judged: HFVLM) -> None:
    trace = mm.Trace(QUESTION)
    leaf = trace.add(mm.Step(mm.message("system", "Look.")))
    assert logratio(trace.branch(leaf), vlm=judged) == 0.0
    trace.score(leaf, "logratio", logratio(trace.branch(leaf), vlm=judged))
    unknown = trace.add(mm.Step(mm.assistant("red"), leaf, sampled=True))
    assert logratio(trace.branch(unknown), vlm=judged) is None


class Served(mm.ScriptedVLM):
    """As over a server: it scores nothing, and sends its tokens in pieces."""

    client = None

    def __init__(self, pieces: list[str], logprobs: tuple[float, ...]) -> None:
        super().__init__(["".join(pieces)])
        self.pieces, self.logprobs = pieces, logprobs

    def score(self, conversation: Any, continuations: Any) -> Any:
        raise ModelError("its server scores nothing")

    def generate(self, conversations: Any, sampling: Any, **options: Any) -> Any:
        for piece in self.pieces:
            options["on_token"](piece)
        (made,) = super().generate(conversations, sampling)
        return [replace(made, logprobs=self.logprobs)]


@pytest.mark.parametrize(
    ("pieces", "logprobs", "expected"),
    [
        pytest.param(["yes", "."], (-0.5, -9.0), math.exp(-0.5), id="the word at once"),
        pytest.param(["No"], (-0.5,), 1 - math.exp(-0.5), id="no"),
        pytest.param(["\n\n", "yes"], (-9.0, -0.5), math.exp(-0.5), id="behind line breaks"),
        pytest.param(["\n", " y", "es"], (-9.0, -0.5, -8.0), math.exp(-0.5), id="in two tokens"),
        pytest.param(
            ["<think>", "\n\n", "</think>", "\n\n", "no"],
            (-9.0, -9.0, -9.0, -9.0, -0.5),
            1 - math.exp(-0.5),
            id="behind an empty thought",
        ),
        pytest.param(["\n\nyes"], (-9.0, -0.5), None, id="two tokens in a piece"),
        pytest.param(["yes."], (-0.5, -9.0), math.exp(-0.5), id="in a piece that it begins"),
        pytest.param(["maybe"], (-0.5,), None, id="another word"),
    ],
)
def test_a_server_is_asked_for_the_token_that_begins_the_word(pieces, logprobs, expected) -> None:
    found = asked(mm.Trace(QUESTION).best, vlm=Served(pieces, logprobs))
    assert found == (None if expected is None else pytest.approx(expected))


class Thinker(Served):
    """As a server of a model that thinks, which may let its thought be closed."""

    def __init__(self, *replies: str) -> None:
        super().__init__([], (-0.5,))
        self.replies, self.said = list(replies), list(replies)

    def generate(self, conversations: Any, sampling: Any, **options: Any) -> Any:
        self.pieces = [self.said.pop(0)]
        return super().generate(conversations, sampling, **options)


def test_a_thought_is_closed_for_a_server_too() -> None:
    vlm = Thinker("<think>", "yes")
    assert asked(mm.Trace(QUESTION).best, vlm=vlm) == pytest.approx(math.exp(-0.5))
    assert [said[-1].role for said in vlm.conversations] == ["user", "assistant"]
    assert vlm.conversations[1][-1].text == "<think>\n\n</think>\n\n"


def test_a_thought_that_cannot_be_closed_is_named() -> None:
    with pytest.raises(ModelError, match=r"thinks before it says yes or no.*enable_thinking=false"):
        asked(mm.Trace(QUESTION).best, vlm=Thinker("<think>", "<think>"))


def test_the_log_ratio_is_refused_beside_an_adapter_of_the_reasoners_own() -> None:
    class Both:
        adapters = ("adapter", "verifier")

        def using(self, adapter: str | None) -> Any:
            return self

    with pytest.raises(ModelError, match="the reasoner's own adapter is beside it"):
        logratio(mm.Trace(QUESTION).best, vlm=cast(Any, Both()))


def test_a_verdict_computes_the_new_tokens_alone(judged: HFVLM) -> None:
    trace = run(mm.direct, question("And on the green one?", noise(4)), judged, sampling=SHORT)
    meter: Any = Metered(judged)
    asked(trace.best, vlm=meter)
    known = len(judged.builder.build(trace.sample.prompt).ids) + 8
    prompt = len(judged.builder.build(verdict_prompt(trace.best)).ids)
    words = sum(len(judged.builder.continuation(word)) - 1 for word in (YES, NO))
    assert meter.cost.computed_tokens <= prompt - known + words + 1
    assert meter.cost.patches == 0


def test_the_ids_scored_are_those_that_a_row_trains(judged: HFVLM) -> None:
    """A DPO row whose sides are the two words trains exactly what is scored."""
    for family in FAMILIES:
        builder = vlm(family).builder
        prompt = verdict_prompt(mm.Trace(QUESTION).best)
        for word in (YES, NO):
            row = builder.build((*prompt, mm.assistant(word)), open_turn=False)
            trained = [id for id, on in zip(row.ids, row.trained, strict=True) if on]
            scored = builder.continuation(word)
            assert tuple(trained[: len(scored)]) == scored, family


def test_what_is_missing_is_named() -> None:
    branch = mm.Trace(QUESTION).best
    with pytest.raises(ModelError, match="has no trained verifier: give its folder"):
        score(branch, vlm=vlm("qwen3_vl"))
    with pytest.raises(ModelError, match="bind one"):
        asked(branch)
    with pytest.raises(UserError, match="holds no verifier"):
        read_verifier(Path("/nonexistent"))


def test_facts_are_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert read_verifier(tmp_path).kind == "score"
    (tmp_path / "verifier.json").write_text('{"kind": "logratio", "threshold": 0.25}')
    assert read_verifier(tmp_path).threshold == 0.25
    for text in ("[", '{"kind": "x"}', '{"threshold": "high"}'):
        (tmp_path / "verifier.json").write_text(text)
        with pytest.raises(UserError, match=r"cannot read .*verifier\.json"):
            read_verifier(tmp_path)


def test_chance_stops_at_its_rate() -> None:
    samples = [question("?", noise(1), id=str(n)) for n in range(2000)]
    stops = [random_stop(mm.Trace(s).best, rate=0.3) for s in samples]
    assert sum(stops) / len(stops) == pytest.approx(0.3, abs=3 * math.sqrt(0.21 / 2000))
    assert stops == [random_stop(mm.Trace(s).best, rate=0.3) for s in samples]


def test_the_released_codes_distance_is_that_of_the_whole_vocabulary(judged: HFVLM) -> None:
    trace = run(partial(scale, max_steps=1), QUESTION, judged, sampling=SHORT)
    whole = trace.best
    sampled = [at for at, step in enumerate(whole.steps) if step.sampled]
    before = Branch(whole.sample, whole.steps[: sampled[-1]], None)

    def moved(branch: Branch) -> torch.Tensor:
        ids = judged.builder.build(verdict_prompt(branch))
        rows = [judged.engine.next_logits(ids, adapter=name) for name in (VERIFIER, None)]
        return rows[0].log_softmax(-1) - rows[1].log_softmax(-1)

    expected = -(moved(whole) - moved(before)).norm().item()
    assert vocab_l2(whole, vlm=judged) == pytest.approx(expected, rel=1e-4)
    assert expected < 0
    assert vocab_l2(Branch(whole.sample, (), None), vlm=judged) is None


def test_the_released_codes_distance_needs_a_trained_verifier() -> None:
    trace = run(mm.direct, QUESTION, vlm("qwen3_vl"), sampling=SHORT)
    with pytest.raises(ModelError, match="has no trained verifier"):
        vocab_l2(trace.best, vlm=vlm("qwen3_vl"))

"""GRPO: what is sampled is what trains, looks included; losses are TRL's and the formula's."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from clips import write_clip
from datasets import Dataset
from images import plain
from safetensors.torch import load_file
from tiny_models import FAMILIES
from training_rows import given, rows_in
from training_runs import SMALL, in_two, killed, logged, mm
from transformers import Trainer
from trl.trainer.grpo_trainer import GRPOTrainer

from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.strategies.single import direct
from mm.trace import Branch, Sample, Step
from mm.types import Clip, Message, Sampling, Thinking, ToolCall, assistant, message, user
from training.batching.collator import IGNORED, Collator, forward_inputs
from training.batching.image_features import encode_images
from training.data import BadData, Row
from training.finetune.methods import bound, explorer_of, method_of, parts_of
from training.finetune.output_folder import CHECKPOINTS
from training.finetune.plan import make_plan
from training.finetune.recipe import Recipe
from training.finetune.recipe_file import load_recipe
from training.finetune.setup import linked, read_rows
from training.rewards.presets import MIXES, read_mix, read_mixes
from training.rewards.terms import R_GRPO, Attempt, accuracy, length, looked
from training.trainers.course import Course, CourseTrainer
from training.trainers.gppo_clip import keep_gradients
from training.trainers.grpo import GRPO, Groups
from training.trainers.rollouts import Explorer
from training.trainers.schedule import Pace
from video import uniform, watch
from video.search import WHERE
from vision import replay, zoom
from vision.depth_source import DepthSource, untold

ROOT = Path(__file__).parents[3]


def look_again(session):
    """Speaks, is shown another picture, speaks again."""
    session.generate()
    session.say(message("tool", plain("green"), "Here."))
    session.generate()
    return session.branch


TEXT = [Row("a", (user("And?"),), answer="No."), Row("b", (user("What is it?"),), answer="x")]
SEEN = [
    Row("c", (user(plain("red"), "?"),), answer="Red"),
    Row("d", (user(plain("blue"), plain("red"), "Which?"),), answer="K"),
]


def trainer_for(tiny, rows, strategy, tmp_path, *, budget=4096, **recipe) -> Any:
    """A trainer of four answers to each of `rows`, whose rewards differ by their length."""
    recipe = Recipe("grpo", prompts=len(rows), group=4, max_tokens=7, rewards="40*length", **recipe)
    model = copy.deepcopy(tiny.model)
    plan = make_plan(recipe, model)
    way = method_of(plan, HFVLM(Engine(model, tiny.builder)), strategy)
    some = given(rows, way.build)
    args = way.config(
        str(tmp_path),
        bf16=False,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
        gradient_checkpointing=False,
        **way.options(plan, some),
    )
    course = Course(some, None, Collator(tiny.builder), encode_images, Pace(), budget)
    trainer = way.trainer(model, args, course, tiny.builder.tokenizer)
    trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
    return trainer


def shift(model, by: float) -> None:
    """Move the language model's weights a little, always the same way."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "language_model" in name or "text_model" in name:
                weights.add_(by * torch.sin(torch.arange(weights.numel())).view_as(weights))


def sampled(trainer):
    """The first batch of rollouts, as TRL buffers it."""
    trainer.model.train()
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def logps(tiny, model, rollout) -> torch.Tensor:
    """The log-probabilities of what was sampled in one rollout, computed alone."""
    inputs = forward_inputs(model, Collator(tiny.builder).join([rollout.tokens]))
    labels = inputs.pop("labels")[0, 1:]
    scores = model(**inputs).logits[0, :-1].log_softmax(-1)
    kept = labels != IGNORED
    return scores[kept].gather(1, labels[kept][:, None])[:, 0]


def formula(tiny, policy, old, reference, rollouts, *, low, high, beta) -> torch.Tensor:
    """GRPO as papers write it, group by group and token by token."""
    losses = []
    for name in dict.fromkeys(rollout.id for rollout in rollouts):
        group = [rollout for rollout in rollouts if rollout.id == name]
        rewards = torch.tensor([rollout.reward for rollout in group])
        for rollout, reward in zip(group, rewards, strict=True):
            advantage = (reward - rewards.mean()) / (rewards.std() + 1e-4)
            now, before, start = (logps(tiny, m, rollout) for m in (policy, old, reference))
            ratio = (now - before).exp()
            clipped = ratio.clamp(1 - low, 1 + high)
            gain = torch.min(ratio * advantage, clipped * advantage)
            kl = (start - now).exp() - (start - now) - 1
            losses.append((beta * kl - gain).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_formula_with_looks_in_the_middle(family, tmp_path):
    """Clipped ratios, a reference, pictures shown between two replies."""
    tiny = FAMILIES[family]()
    trainer = trainer_for(
        tiny, SEEN, look_again, tmp_path, iterations=2, beta=0.1, clip_low=0.001, clip_high=0.002
    )
    model = trainer.model
    assert model
    with torch.no_grad():
        shift(model, 0.005)
        inputs = sampled(trainer)
        old = copy.deepcopy(tiny.model)
        shift(old, 0.005)
        shift(model, 0.005)
        model.eval()
        wanted = formula(
            tiny, model, old, tiny.model, inputs["rollouts"], low=0.001, high=0.002, beta=0.1
        )
        assert len({rollout.reward for rollout in inputs["rollouts"]}) > 1
        torch.testing.assert_close(trainer.compute_loss(model, inputs), wanted, atol=1e-5, rtol=0)


def test_answers_too_long_for_one_pass_are_learnt_from_in_several(tmp_path):
    """The same loss, the same gradients, from batches within the budget."""
    tiny = FAMILIES["qwen3_vl"]()
    found = []
    for budget in (10**6, 150):
        trainer = trainer_for(tiny, SEEN, look_again, tmp_path, iterations=2, budget=budget)
        inputs = sampled(trainer)
        shift(trainer.model, 0.005)
        loss = trainer.compute_loss(trainer.model.eval(), inputs)
        loss.backward()
        weights = trainer.model.named_parameters()
        found.append((len(trainer._batches()), loss, {n: p.grad for n, p in weights}))
    (one, loss, gradients), (several, again, others) = found
    assert one == 1
    assert several > 2
    torch.testing.assert_close(loss, again, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradients, others, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "gspo"])
def test_on_words_the_loss_is_trls(loss, tmp_path):
    """TRL's own trainer, given the ids we sampled, finds the same loss."""
    tiny = FAMILIES["qwen3_vl"]()
    ours = trainer_for(tiny, TEXT, direct, tmp_path, loss=loss, iterations=2)
    stock: Any = GRPOTrainer(
        copy.deepcopy(tiny.model),
        [lambda completions, **kw: [0.0 for _ in completions]],
        copy.copy(ours.args),
        Dataset.from_dict({"prompt": ["x"]}),
        processing_class=tiny.builder.tokenizer,
    )
    stock.current_gradient_accumulation_steps = ours.current_gradient_accumulation_steps
    with torch.no_grad():
        inputs = sampled(ours)
        for trainer in (ours, stock):
            shift(trainer.model, 0.05)
            trainer.model.eval()
        theirs = stock.compute_loss(stock.model, inputs)
        assert theirs.abs() > 1e-4
        torch.testing.assert_close(ours.compute_loss(ours.model, inputs), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_trains_is_what_was_sampled(family):
    """Ids are never made from words again, and each reply stands after what the engine saw."""
    tiny = FAMILIES[family]()
    vlm = HFVLM(Engine(copy.deepcopy(tiny.model), tiny.builder))
    explorer = Explorer(vlm, look_again, {"": MIXES["accuracy"]}, Sampling(9, temperature=1.0))
    first, other = explorer.explore([SEEN[1], SEEN[1]], step=3)
    replies = [s.message.tokens for s in first.attempt.branch.steps if s.sampled]
    assert all(replies)
    trained = [i for i, on in zip(first.tokens.ids, first.tokens.trained, strict=True) if on]
    assert trained == [id for reply in replies for id in reply or ()]
    branch = first.attempt.branch
    for upto in (2, 3):  # the prompt, one message; a reply, the picture
        seen = tiny.builder.build(branch.messages[: 2 * upto - 3]).ids
        assert first.tokens.ids[: len(seen)] == seen
    assert len(first.tokens.images) == 3
    assert first.tokens.ids != other.tokens.ids, "siblings are drawn apart"
    again = explorer.explore([SEEN[1]], step=3)[0]
    assert again.tokens.ids == first.tokens.ids, "the same step draws the same"


def test_rollouts_leave_nothing_cached():
    """Forward and backward need the memory."""
    tiny = FAMILIES["qwen3_vl"]()
    engine: Any = Engine(copy.deepcopy(tiny.model), tiny.builder)
    explorer = Explorer(HFVLM(engine), direct, {"": R_GRPO}, Sampling(3, temperature=1.0))
    explorer.explore(SEEN, step=0)
    assert cached_bytes(engine) == 0


def cached_bytes(engine: Any) -> int:
    """What contexts and features take that an engine has cached."""
    return engine._loop._prefixes.entries.bytes + engine._encoder._features.bytes


def test_replies_of_one_rollout_are_drawn_by_numbers_of_their_own():
    def twice(session):
        session.generate()
        session.say(user("And?"))
        session.generate()
        return session.branch

    seeds = []

    class Listening(HFVLM):
        def generate(self, conversations, sampling, **kw):
            seeds.append(sampling.seed)
            return super().generate(conversations, sampling, **kw)

    tiny = FAMILIES["qwen3_vl"]()
    vlm = Listening(Engine(copy.deepcopy(tiny.model), tiny.builder))
    Explorer(vlm, twice, {"": R_GRPO}, Sampling(3, temperature=1.0)).explore(TEXT[:1], step=0)
    assert len(set(seeds)) == 2


def test_a_failure_counts_for_nothing():
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(copy.deepcopy(tiny.model), tiny.builder))

    def breaks(session):
        session.say(user("x" * 10**5))
        return direct(session)

    explorer = Explorer(vlm, breaks, {"": R_GRPO}, Sampling(3, temperature=1.0))
    (rollout,) = explorer.explore(TEXT[:1], step=0)
    assert rollout.failed
    assert not any(rollout.tokens.trained)
    assert rollout.measures["failed"] == 1
    assert "reward" not in rollout.measures, "it would lower the mean of the others"
    assert rollout.error


def fails_on(*words: str) -> Any:
    """A strategy that fails where the question is one of `words`."""

    def strategy(session):
        if session.branch.messages[-1].text in words:
            raise ModelError("out of memory: use fewer images\nand more")
        return direct(session)

    return strategy


def test_failures_are_said_once_a_step(tmp_path, capsys):
    trainer = trainer_for(FAMILIES["qwen3_vl"](), TEXT, fails_on("And?"), tmp_path)
    sampled(trainer)
    said = "step 0: 4 of 8 rollouts failed, the first with: out of memory: use fewer images\n"
    assert capsys.readouterr().err == said
    assert trainer._metrics["train"]["failed"] == [0.5]


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_step_in_which_all_failed_ends_the_training(evaluates, tmp_path):
    trainer = trainer_for(FAMILIES["qwen3_vl"](), TEXT, fails_on("And?", "What is it?"), tmp_path)
    trainer.course = replace(trainer.course, held_out=trainer.course.train)
    told = r"all \d rollouts of a step failed \(out of memory: use fewer images\): put that right"
    with pytest.raises(ModelError, match=told):
        trainer.evaluate() if evaluates else sampled(trainer)


def test_a_failure_does_not_lower_the_held_out_reward(tmp_path):
    """The mean is that of the other row alone."""
    found = []
    for strategy, wanted in ((direct, [0, 1]), (fails_on("And?"), [1, 1])):
        trainer = trainer_for(FAMILIES["qwen3_vl"](), TEXT, strategy, tmp_path)
        trainer.course = replace(trainer.course, held_out=trainer.course.train.some(wanted))
        found.append(trainer.evaluate()["eval_reward"])
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 0


def test_words_put_into_its_mouth_do_not_train():
    tiny = FAMILIES["qwen3_vl"]()

    def begun(session):
        session.say(assistant("I say "))
        return direct(session)

    vlm = HFVLM(Engine(copy.deepcopy(tiny.model), tiny.builder))
    explorer = Explorer(vlm, begun, {"": R_GRPO}, Sampling(3, temperature=1.0))
    (rollout,) = explorer.explore(TEXT[:1], step=0)
    assert sum(rollout.tokens.trained) == len(rollout.attempt.branch.steps[-1].message.tokens or ())


@pytest.mark.parametrize("blind", [False, True])
def test_a_strategy_is_given_the_depth_map_of_its_row(tmp_path, blind):
    tagged = []

    def reading(session, *, depth=DepthSource()):
        tagged.append((session.sample.tags.get("depth"), depth))
        return direct(session)

    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(copy.deepcopy(tiny.model), tiny.builder))
    (tmp_path / "a.npy").touch()
    (tmp_path / "rows.json").write_text('[{"prompt": "And?", "answer": "x", "depth": "a.npy"}]')
    plan = make_plan(Recipe("grpo", data="x", output="y", max_tokens=3, blind=blind), tiny.model)
    explorer = explorer_of(plan.recipe, vlm, reading)
    rows = read_rows(plan, str(tmp_path / "rows.json"), vlm, explorer.build)
    explorer.explore([rows.data[0]], step=0)
    map_of_row = (str(tmp_path / "a.npy"), DepthSource())
    assert tagged == [(None, untold) if blind else map_of_row]


class Thinks(HFVLM):
    """Whose first three tokens are a thought that goes on."""

    def generate(self, conversations, sampling, **kw):
        (made,) = super().generate(conversations, sampling, **kw)
        if sampling.max_tokens != 3:
            return [made]
        thought = Message("assistant", (Thinking("It", closed=False),), made.message.tokens)
        return [replace(made, message=thought, finish="length")]


def test_what_closes_a_thought_does_not_train():
    """A recipe's `max_thought_tokens`: nobody samples the message that opens the answer."""
    tiny = FAMILIES["qwen3_vl"]()
    vlm = Thinks(Engine(copy.deepcopy(tiny.model), tiny.builder))
    recipe = Recipe("grpo", max_tokens=9, max_thought_tokens=3)
    (rollout,) = explorer_of(recipe, vlm, direct).explore(TEXT[:1], step=0)
    thought, opening, answer = rollout.attempt.branch.steps
    assert (thought.sampled, opening.sampled, answer.sampled) == (True, False, True)
    assert "</think>" in opening.message.text
    wanted = [*(thought.message.tokens or ()), *(answer.message.tokens or ())]
    assert [
        id for id, on in zip(rollout.tokens.ids, rollout.tokens.trained, strict=True) if on
    ] == wanted


def test_clipped_tokens_keep_their_gradients():
    """GPPO: forward is the clipped loss; a clipped token's gradient is (1 +- e) A, not 0."""
    old = torch.zeros(1, 6)
    ratios = torch.tensor([[1.5, 1.1, 0.5, 0.5, 1.5, 4.0]])
    advantages = torch.tensor([[2.0, 2.0, 2.0, -2.0, -2.0, -2.0]])
    logps = ratios.log().requires_grad_()
    kept = keep_gradients(logps, old, advantages, low=0.2, high=0.28)
    loss = -((kept - old).exp() * advantages)
    loss.sum().backward()
    clipped = ratios.clamp(0.8, 1.28)
    wanted = -torch.min(ratios * advantages, clipped * advantages)
    wanted[0, 5] = 3.0 * 2  # the dual clip
    torch.testing.assert_close(loss, wanted)
    gradient = -advantages * torch.tensor([[1.28, 1.1, 0.5, 0.8, 1.5, 0.0]])
    torch.testing.assert_close(logps.grad, gradient)


def test_gppo_is_dapo_until_something_is_clipped(tmp_path):
    tiny = FAMILIES["qwen3_vl"]()
    losses = []
    for loss, moved in (("dapo", 0.0), ("gppo", 0.0), ("dapo", 0.05), ("gppo", 0.05)):
        trainer = trainer_for(tiny, TEXT, direct, tmp_path, loss=loss, iterations=2)
        inputs = sampled(trainer)
        shift(trainer.model, moved)
        value = trainer.compute_loss(trainer.model.eval(), inputs)
        value.backward()
        norm = sum(p.grad.norm() for p in trainer.model.parameters() if p.grad is not None)
        losses.append((value.item(), float(norm)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[2][0] == pytest.approx(losses[3][0], abs=1e-6)
    assert losses[3][1] > losses[2][1] * 1.01


def test_every_process_has_questions_of_its_own_and_batches_repeat():
    groups = Groups(7, group=2, questions=1, repeats=2, seed=0, processes=2)
    batches = list(groups)
    assert len(batches) == len(groups) == 12
    assert all(len(batch) == 2 and len(set(batch)) == 1 for batch in batches)
    assert batches[0] == batches[2]
    assert batches[0] != batches[1]
    assert len({batch[0] for batch in batches}) == 6
    groups.set_epoch(1)
    assert list(groups) != batches


@pytest.mark.parametrize("loads", [GRPO, CourseTrainer])
def test_an_epoch_taken_up_by_two_processes_has_its_own_order(loads, tmp_path, monkeypatch):
    trainer = trainer_for(FAMILIES["qwen3_vl"](), TEXT, direct, tmp_path)
    rows = given(
        [Row(str(n), (user(f"{n}?"),), answer="x") for n in range(9)], trainer.explorer.build
    )
    trainer.course = replace(trainer.course, train=rows, budget=1)
    in_two = partial(prepare_data_loader, num_processes=2, process_index=0, even_batches=False)
    monkeypatch.setattr(trainer.accelerator, "prepare", in_two)
    seen = []

    def ran(self, *, train_dataloader, epoch):
        train_dataloader.set_epoch(epoch)
        seen.append([str(batch) for batch in train_dataloader])

    monkeypatch.setattr(Trainer, "_run_epoch", ran)
    for epoch, skipped in ((2, 0), (2, 1), (0, 1)):
        loader = skip_first_batches(loads.get_train_dataloader(trainer), skipped)
        trainer._run_epoch(epoch=epoch, train_dataloader=loader)
    whole, resumed, first = seen
    assert resumed == whole[1:]
    assert resumed != first


def test_fewer_rows_than_a_step_asks_are_asked_again():
    (batch,) = Groups(2, group=1, questions=3, repeats=1, seed=0, processes=1)
    assert set(batch) == {0, 1}


@pytest.mark.parametrize(
    ("answers", "length", "budget", "parts"),
    [
        pytest.param(64, 100, 6400, 1, id="all at once"),
        pytest.param(64, 100, 6399, 2, id="halves"),
        pytest.param(12, 100, 350, 4, id="a divisor"),
        pytest.param(6, 1000, 10, 6, id="one by one"),
    ],
)
def test_a_step_is_cut_into_equal_parts(answers, length, budget, parts):
    assert parts_of(answers, length, budget) == parts


def test_mixes_are_named_summed_or_mapped():
    assert read_mix("r-grpo") is R_GRPO
    first, second = read_mix("accuracy + 0.5*looked@accuracy")
    assert (first.name, first.weight, first.gate, first.term) == ("accuracy", 1, None, accuracy)
    assert (second.name, second.weight, second.gate) == ("looked", 0.5, "accuracy")
    (named, region) = read_mix({"accuracy": 2, "region": {"term": "looked", "gate": "accuracy"}})
    assert (named.weight, region.name, region.term) == (2, "region", looked)
    assert read_mix("training.rewards.terms:length")[0].term is length
    mixes = read_mixes("accuracy", {"counting": "tolerance"})
    assert set(mixes) == {"", "counting"}


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        pytest.param("acuracy", "no reward 'acuracy': give one of accuracy", id="no such term"),
        pytest.param("x*accuracy", "a reward's weight as a number, found 'x'", id="no weight"),
        pytest.param("looked@accuracy", "its gate 'accuracy' names no reward", id="no gate"),
        pytest.param("no.module:at_all", "no reward 'no.module:at_all'", id="no module"),
        pytest.param({"accuracy": {"wait": 1}}, "as a number, found", id="a slip of the pen"),
    ],
)
def test_a_mix_that_is_none_is_named(written, complaint):
    with pytest.raises(BadData) as caught:
        read_mix(written)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"loss": "gppo", "beta": 0.1}, "leave --beta out", id="GPPO with KL"),
        pytest.param({"accumulate": 2}, "leave --accumulate out", id="accumulated batches"),
        pytest.param({"siglip": "s"}, "--siglip s: no reward asks it", id="siglip unasked"),
        pytest.param({"verifier": "v"}, "--verifier v: no reward asks it", id="verifier unasked"),
        pytest.param(
            {"group": 1},
            "--group: .* at least 2, found 1",
            id="nobody to compare with",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(options, complaint):
    tiny = FAMILIES["qwen3_vl"]()
    with pytest.raises(BadData, match=complaint):
        explorer_of(Recipe("grpo", **options), HFVLM(Engine(tiny.model, tiny.builder)), direct)


@pytest.mark.parametrize(
    ("strategy", "looks", "bound_to"),
    [
        pytest.param(zoom, None, {"max_looks": 6}, id="the strategy's own way"),
        pytest.param(zoom, "inline", {"max_looks": 6, "layout": "inline"}, id="inline"),
        pytest.param(replay, "replay", {"max_looks": 6, "protocol": "sot"}, id="replayed"),
        pytest.param(replay, "tool", {"max_looks": 6, "protocol": "tool"}, id="replayed by calls"),
    ],
)
def test_answers_look_again_as_the_recipe_says(strategy, looks, bound_to):
    made: Any = bound(strategy, Recipe("grpo", looks=looks))
    assert made.keywords == bound_to


def test_what_stands_in_a_strategys_brackets_is_not_overruled():
    made: Any = bound(partial(zoom, max_looks=2), Recipe("grpo", looks="inline"))
    assert made.keywords == {"max_looks": 2, "layout": "inline"}


@pytest.mark.parametrize(
    ("strategy", "looks"), [(direct, "tool"), (zoom, "replay"), (replay, "inline")]
)
def test_a_way_to_look_that_the_strategy_has_not_is_refused(strategy, looks):
    with pytest.raises(BadData, match=f"--looks {looks}: {strategy.__name__} has no such way"):
        bound(strategy, Recipe("grpo", looks=looks))


def test_a_row_that_does_not_say_what_is_right_is_named():
    tiny = FAMILIES["qwen3_vl"]()
    explorer = explorer_of(Recipe("grpo"), HFVLM(Engine(tiny.model, tiny.builder)), direct)
    with pytest.raises(ValueError, match="expected text in 'answer'"):
        explorer.build(Row("x", (user("?"),)))


@pytest.mark.parametrize(
    ("written", "boxes"),
    [
        pytest.param('{"bbox_2d": [0, 0, 500, 500]}', 1, id="unnamed: the first"),
        pytest.param('{"bbox_2d": [0, 0, 500, 500], "img_idx": 0}', 1, id="the first"),
        pytest.param('{"bbox_2d": [0, 0, 500, 500], "img_idx": 1}', 0, id="another"),
        pytest.param('{"img_idx": 1, "bbox_2d": [0, 0, 500, 500]}', 0, id="another, named before"),
    ],
)
@pytest.mark.parametrize("call", [False, True])
def test_boxes_of_another_image_do_not_count(written, boxes, call):
    tiny = FAMILIES["qwen3_vl"]()
    explorer = explorer_of(Recipe("grpo"), HFVLM(Engine(tiny.model, tiny.builder)), direct)
    part = ToolCall("image_zoom_in_tool", json.loads(written)) if call else written
    step = Step(assistant("Look: ", part), sampled=True)
    attempt = Attempt(Branch(Sample("d", SEEN[1].messages), (step,), 0), SEEN[1])
    assert len(explorer._asked(attempt)) == boxes


def test_a_loss_that_is_none_is_named():
    with pytest.raises(BadData, match="--loss: expected loss to be grpo or dapo"):
        load_recipe(None, {"method": "grpo", "data": "x", "output": "y", "loss": "ppo"})


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vlm-r3-rgrpo", "reason-rft"])
def test_recipes_run(recipe, tmp_path):
    rows = rows_in(tmp_path, 8)
    path = ROOT / "training/recipes" / f"{recipe}.yaml"
    train = ("train", "grpo", path, "--data", rows, "--eval-data", rows, "--output", "out", *SMALL)
    plan = mm(*train, "--dry-run", folder=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "of 2 questions with 3 answers each" in plan.stderr
    assert not (tmp_path / "out").exists()
    done = mm(*train, "--max-steps", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held-out reward" in done.stderr
    assert (tmp_path / "out/rewards.png").stat().st_size > 0
    logged = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    for key in ("frac_reward_zero_std", "looks", "box_iou", "cut_off", "entropy", "accuracy"):
        assert any(key in row for row in logged), key
    asked = mm("ask", "0.png", "What colour?", "--model", "out", folder=tmp_path)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--iterations", 2, "--loss", "gppo"), ("--beta", 0.1)])
def test_a_killed_training_goes_on_to_the_same_end(options, tmp_path):
    rows = rows_in(tmp_path, 12)
    train = ("train", "grpo", "--data", rows, "--eval-data", rows, "--strategy", "direct", *SMALL)
    train = (*train, *options, "--reward", "length", "--max-steps", 12)
    whole = mm(*train, "--output", "whole", folder=tmp_path)
    assert whole.returncode == 0, whole.stderr
    cut = (*train, "--output", "cut")
    killed(*cut, folder=tmp_path, when=lambda line: bool(re.match("step 6 .*held-out", line)))
    resumed = mm(*cut, "--resume", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert rewards_of(tmp_path / "cut")[-1] == pytest.approx(rewards_of(tmp_path / "whole")[-1])
    weights = [
        load_file(tmp_path / name / CHECKPOINTS / "checkpoint-12" / "model.safetensors")
        for name in ("whole", "cut")
    ]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_sample_and_learn_what_one_does(tmp_path):
    """A step's questions are shared out, each answered as one process would; one step, since the
    last bits of its gradients soon draw other tokens."""
    rows = rows_in(tmp_path, 12)
    train = ("--data", rows, "--eval-data", rows, "--strategy", "direct", *SMALL)
    train = ("grpo", *train, "--reward", "length", "--max-steps", 1)
    one = mm("train", *train, "--output", "one", folder=tmp_path)
    assert one.returncode == 0, one.stderr
    in_two(*train, "--output", "two", folder=tmp_path)
    for key, near in (("reward", 1e-6), ("grad_norm", 1e-2), ("eval_reward", 1e-6)):
        found = [logged(tmp_path / name, key) for name in ("one", "two")]
        assert found[0][1] > 0
        assert found[0] == pytest.approx(found[1], rel=near)


def rewards_of(folder: Path) -> list[tuple[int, float]]:
    """The held-out rewards in a log, by step."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(row["step"], row["eval_reward"]) for row in rows if "eval_reward" in row]


@pytest.mark.parametrize(
    ("strategy", "shown", "asked"),
    [
        pytest.param(direct, 16, "?", id="direct"),
        pytest.param(partial(uniform, frames=3), 3, "?", id="as many as asked for"),
        pytest.param(partial(watch, frames=3), 3, WHERE, id="watch"),
        pytest.param(partial(watch, frames=3, pack=True), 2, WHERE, id="packed"),
    ],
)
def test_the_strategy_opens_the_clips_of_rows(tmp_path, strategy, shown, asked):
    write_clip(tmp_path / "a.mp4")
    row = {"video": "a.mp4", "question": "?", "answer": "x"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    vlm.traits = replace(vlm.traits, calls_tools=False)
    recipe = Recipe("grpo", data="x", output="y", max_tokens=2, max_looks=1)
    explorer = explorer_of(recipe, vlm, strategy)
    plan = make_plan(recipe, tiny.model)
    rows = read_rows(plan, str(tmp_path / "rows.jsonl"), vlm, explorer.build)
    ((tokens,),) = rows.built.take([0])
    assert len(tokens.images) == shown
    (rollout,) = explorer.explore(rows.data, step=0)
    assert rollout.error is None
    said = [m.text for m in rollout.attempt.branch.messages if m.role == "user"]
    assert said[-1].endswith(asked) or asked in said
    assert len(rollout.attempt.branch.sample.images) == shown
    gone = Row("gone", (user(Clip("gone.mp4"), "?"),), answer="x")
    (gone,) = explorer.explore([gone], step=0)
    assert "there is no such clip" in str(gone.error)


def test_clips_under_blind_are_grey_and_not_all_alike(tmp_path):
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4")
    rows = [{"video": f"{name}.mp4", "question": "?", "answer": "x"} for name in "ab"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny = FAMILIES["qwen3_vl"]()
    vlm = HFVLM(Engine(tiny.model, tiny.builder))
    plan = make_plan(Recipe("grpo", data="x", output="y", blind=True), tiny.model)
    explorer = explorer_of(plan.recipe, vlm, direct)
    found = read_rows(plan, str(tmp_path / "rows.jsonl"), vlm, explorer.build)
    assert len(set(linked(found.images))) == 2

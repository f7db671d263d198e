"""Training on rows: losses are the formulas', killed runs resume, mistakes come before step one."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import new_domain
import pytest
import torch
from tiny_models import FAMILIES
from torch.nn import functional
from training_rows import PAIRS, SEEN, TEXT, Given, given, gradients, pairs_of
from training_runs import environment, in_two, killed, logged, mm
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from app.cli.main import run
from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.strategies.single import direct
from mm.types import assistant, message
from training.batching.built_rows import BuiltRows
from training.batching.collator import IGNORED, Collator, PairCollator, forward_inputs
from training.batching.image_features import FrozenFeatureCache, encode_images
from training.data import BadData, Row
from training.finetune.methods import method_of
from training.finetune.plan import make_plan, prepare_model
from training.finetune.recipe import Recipe
from training.finetune.recipe_file import load_recipe, shipped
from training.trainers.compile import compile_blocks, why_not_compiled
from training.trainers.course import Course
from training.trainers.dpo import falling
from training.trainers.model_parts import bare
from training.trainers.row_builders import build_pair
from training.trainers.schedule import Pace, rate_share

ROOT = Path(__file__).parents[3]


def trainer_for(method, rows: list[Row], tmp_path, model, builder, **options):
    plan = make_plan(Recipe(method), model)
    way = method_of(plan, HFVLM(Engine(model, builder)), direct)
    some = given(rows, way.build)
    encode = FrozenFeatureCache(10**8) if method == "dpo" else encode_images
    course = Course(some, None, Collator(builder), encode, Pace(), 4096)
    args = way.config(
        output_dir=str(tmp_path),
        bf16=False,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
        gradient_checkpointing=False,
        **{**way.options(plan, some), **options},
    )
    return way.trainer(model, args, course, builder.tokenizer)


def loss_of(trainer) -> torch.Tensor:
    (batch,) = list(trainer.get_train_dataloader())
    trainer.model.eval()
    return trainer.compute_loss(trainer.model, batch)


def logps(tiny, model, row: Row) -> tuple[torch.Tensor, int]:
    """The log-probability of what trains in `row`, alone, and how many tokens that is."""
    batch = Collator(tiny.builder)([row])
    inputs = forward_inputs(tiny.model, batch)
    labels = inputs.pop("labels")[0, 1:]
    scores = model(**inputs).logits[0, :-1].log_softmax(-1)
    kept = labels != IGNORED
    return scores[kept].gather(1, labels[kept][:, None]).sum(), int(kept.sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_is_the_masked_cross_entropy(family, tmp_path):
    tiny = FAMILIES[family]()
    with torch.no_grad():
        sums = [logps(tiny, tiny.model, row) for row in TEXT + SEEN]
        wanted = -sum(s for s, _ in sums) / sum(n for _, n in sums)
        trainer = trainer_for("sft", TEXT + SEEN, tmp_path, copy.deepcopy(tiny.model), tiny.builder)
        torch.testing.assert_close(loss_of(trainer), wanted, atol=1e-5, rtol=0)


def test_sft_on_words_is_trls(tmp_path):
    """TRL's own collator and trainer, given our ids and mask, find the same loss."""
    from datasets import Dataset

    tiny = FAMILIES["qwen3_vl"]()
    built = [tiny.builder.build(row.messages, open_turn=False) for row in TEXT]
    stock = SFTTrainer(
        copy.deepcopy(tiny.model),
        SFTConfig(str(tmp_path), bf16=False, use_cpu=True, report_to=[], max_length=None),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [list(t.ids) for t in built],
                "labels": [
                    [i if on else IGNORED for i, on in zip(t.ids, t.trained, strict=True)]
                    for t in built
                ],
            }
        ),
        processing_class=tiny.builder.tokenizer,
    )
    ours = trainer_for("sft", TEXT, tmp_path, copy.deepcopy(tiny.model), tiny.builder)
    with torch.no_grad():
        torch.testing.assert_close(loss_of(ours), loss_of(stock), atol=1e-5, rtol=0)


@pytest.mark.slow  # compiling takes a minute
def test_compiled_blocks_learn_the_same():
    """Compiled with gradients, left alone without: the engine's caches never meet the compiler."""
    if why := why_not_compiled():
        pytest.skip(why)
    tiny = FAMILIES["qwen3_vl"]()
    model, builder = tiny.model, tiny.builder
    batch = Collator(builder)(SEEN)
    plain = gradients(model, batch)
    compile_blocks(model)
    compiled = gradients(model, batch)
    assert compiled.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        model(**forward_inputs(model, batch))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_dpo_is_the_formula_with_each_sides_pictures(family, tmp_path):
    tiny = FAMILIES[family]()
    policy = copy.deepcopy(tiny.model)
    trainer = trainer_for("dpo", PAIRS, tmp_path, policy, tiny.builder)
    with torch.no_grad():
        for name, weights in policy.named_parameters():  # the policy has moved, the tower has not
            if "language_model" in name or "text_model" in name:
                weights.add_(0.01 * torch.sin(torch.arange(weights.numel())).view_as(weights))
        margins = []
        for row in PAIRS:
            asked = frozenset(range(len(row.messages)))
            good, bad = (
                Row(row.id, row.messages + side, untrained=asked)
                for side in (row.chosen, row.rejected)
            )
            moved = [logps(tiny, policy, side)[0] for side in (good, bad)]
            still = [logps(tiny, tiny.model, side)[0] for side in (good, bad)]
            margins.append((moved[0] - still[0]) - (moved[1] - still[1]))
        wanted = -functional.logsigmoid(0.1 * torch.stack(margins)).mean()
        assert wanted.sub(0.6931).abs() > 1e-4, "the policy must differ from its reference"
        torch.testing.assert_close(loss_of(trainer), wanted, atol=1e-5, rtol=0)


def test_dpo_begins_at_the_log_of_two(tmp_path):
    tiny = FAMILIES["qwen3_vl"]()
    trainer = trainer_for("dpo", PAIRS, tmp_path, copy.deepcopy(tiny.model), tiny.builder)
    with torch.no_grad():
        loss = loss_of(trainer)
    torch.testing.assert_close(loss, torch.tensor(2.0).log(), atol=1e-5, rtol=0)


def test_what_an_observation_says_does_not_train():
    builder = FAMILIES["qwen3_vl"]().builder
    taught = []
    for seen in ("short", "a long observation, with many more words"):
        side = (assistant("I look."), message("tool", seen), assistant("K"))
        row = replace(PAIRS[0], chosen=side)
        chosen, _ = build_pair(builder)(row)
        taught.append([i for i, on in zip(chosen.ids, chosen.trained, strict=True) if on])
    assert taught[0] == taught[1]
    assert taught[0]


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        pytest.param({"logps/chosen": -25.0, "rewards/chosen": -0.5}, "-20.00 to -25.00", id="far"),
        pytest.param({"logps/chosen": -22.0, "rewards/chosen": -0.2}, None, id="a little"),
        pytest.param({"logps/chosen": -15.0, "rewards/chosen": 0.5}, None, id="it rose"),
        pytest.param(
            {"eval_logps/chosen": -3.0, "eval_rewards/chosen": -0.25},
            "-0.50 to -3.00",
            id="held out",
        ),
        pytest.param({"loss": 0.7}, None, id="says nothing"),
    ],
)
def test_a_chosen_side_that_falls_away_is_told(logs, told):
    assert (falling(logs, 0.1) or "").partition("fell from ")[2].partition(":")[0] == (told or "")


def test_a_row_that_is_no_pair_is_named():
    collator = PairCollator(Collator(FAMILIES["qwen3_vl"]().builder))
    with pytest.raises(ValueError, match="found no pair"):
        collator.build(TEXT[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("lora", "vision"), [(False, False), (False, True), (True, False)])
def test_what_shall_train_is_what_learns(family, lora, vision):
    """All that wants gradients gets some; nothing of the tower does unless it shall."""
    tiny = FAMILIES[family]()
    recipe = Recipe(data="x", output="y", lora=lora, vision=vision, device="cpu")
    model = copy.deepcopy(tiny.model)
    model = prepare_model(model, make_plan(recipe, model))
    batch = Collator(tiny.builder)(SEEN)
    seen = encode_images if vision else FrozenFeatureCache(10**8)
    model(**forward_inputs(bare(model), batch, seen)).loss.backward()
    wanting = {n for n, p in model.named_parameters() if p.requires_grad}
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    tower = {n for n in wanting if "visual" in n or "vision" in n}
    assert wanting
    assert bool(tower) == vision
    assert lora or wanting - tower <= learning
    assert learning <= wanting
    assert any("lora_" in n for n in wanting) == lora


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"method": "dpo", "vision": True}, id="dpo with the tower"),
        pytest.param({"lora": True, "vision": True}, id="an adapter with the tower"),
        pytest.param({"box_loss": 1.0}, id="a box loss of rows that are not replayed"),
        pytest.param(
            {"box_loss": 1.0, "looks": "replay", "lora": True}, id="a box loss with an adapter"
        ),
    ],
)
def test_what_cannot_be_done_is_refused(options):
    with pytest.raises(BadData, match=r"--vision|--looks|--box-loss"):
        make_plan(Recipe(data="x", output="y", **options), FAMILIES["qwen3_vl"]().model)


@pytest.mark.parametrize(
    ("options", "fsdp", "muon"),
    [
        pytest.param({}, "", True, id="all of a small model, by heart"),
        pytest.param({"optimizer": "adamw"}, "", False, id="as it is told"),
        pytest.param({"lora": True}, "", False, id="an adapter"),
        pytest.param({"method": "dpo"}, "", False, id="pairs"),
        pytest.param({"method": "grpo"}, "", False, id="rewards"),
        pytest.param({"method": "grpo", "optimizer": "muon"}, "", True, id="rewards, told"),
        pytest.param({}, "true", False, id="weights that are shared out"),
    ],
)
def test_who_learns_by_muon(monkeypatch, options, fsdp, muon):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", fsdp)
    recipe = Recipe(data="x", output="y", **options)
    assert make_plan(recipe, FAMILIES["qwen3_vl"]().model).muon == muon


@pytest.mark.parametrize(
    ("options", "rate", "batch"),
    [
        pytest.param({}, 1e-3, 2048, id="muon"),
        pytest.param({"optimizer": "adamw"}, 7e-4, 1024, id="adamw"),
        pytest.param({"lora": True, "optimizer": "muon"}, 2e-4, 1024, id="an adapter by muon"),
        pytest.param({"method": "dpo"}, 7e-4, 1024, id="pairs"),
        pytest.param({"method": "grpo", "optimizer": "muon"}, 1e-4, 4096, id="rewards by muon"),
        pytest.param({"learning_rate": 5e-4, "batch_tokens": 512}, 5e-4, 512, id="as told"),
    ],
)
def test_rate_and_batch_of_a_small_model_go_by_its_optimizer(monkeypatch, options, rate, batch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "")
    plan = make_plan(Recipe(data="x", output="y", **options), FAMILIES["qwen3_vl"]().model)
    assert (plan.learning_rate, plan.batch_tokens) == (rate, batch)


@pytest.mark.parametrize(
    ("done", "share"),
    [
        pytest.param(0.0, 0.01, id="begins low"),
        pytest.param(0.015, 0.5, id="half way up"),
        pytest.param(0.03, 1.0, id="full"),
        pytest.param(0.515, 0.5, id="half way down"),
        pytest.param(1.0, 0.01, id="ends low"),
    ],
)
def test_the_rate_rises_and_falls(done, share):
    assert rate_share(done) == pytest.approx(share, abs=0.01)


def test_a_training_is_as_far_as_its_steps_or_its_time():
    pace = Pace(100.0)
    pace.spend(50.0)
    assert pace.done(10, 100) == pytest.approx(0.5, abs=0.01)
    assert pace.done(80, 100) == 0.8
    assert Pace().done(3, 4) == 0.75


def test_what_a_process_does_before_its_first_step_is_no_part_of_the_share(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.trainers.schedule.time.monotonic", lambda: now[0])
    pace = Pace(100.0)
    now[0] = 20.0  # loaded, compiled
    assert pace.done(0, 1000) == 0
    pace.stepped()
    now[0] = 60.0
    pace.stepped()  # the preparation was the first step's alone
    assert (pace.done(5, 1000), pace.left_s(5, 1000)) == (0.5, 40.0)

    later = Pace(100.0)  # another process goes on from there
    later.spend(pace.spent_s, pace.preparing_s)
    now[0] = 70.0
    assert later.done(5, 1000) == pytest.approx(40 / 70)
    later.stepped()
    now[0] = 85.0
    assert later.done(9, 1000) == pytest.approx(55 / 70)
    now[0] = 100.0
    assert later.done(9, 1000) == 1


@pytest.mark.parametrize(
    ("limit_s", "earlier", "first", "second"),
    [
        pytest.param(None, (), None, 90.0, id="by steps: not known yet"),
        pytest.param(100.0, (), 79.0, 70.0, id="by time: what is left of it"),
        pytest.param(None, (30.0, 10.0), pytest.approx(189.0), 270.0, id="the pace of before"),
    ],
)
def test_the_first_step_tells_no_pace(monkeypatch, limit_s, earlier, first, second):
    now = [0.0]
    monkeypatch.setattr("training.trainers.schedule.time.monotonic", lambda: now[0])
    pace = Pace(limit_s)
    if earlier:
        pace.spend(*earlier)
    now[0] = 20.0
    pace.stepped()
    now[0] = 21.0  # the line is printed a little later
    assert pace.left_s(1, 10) == first
    now[0] = 30.0
    pace.stepped()
    assert pace.left_s(1, 10) == second


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("epocs: 3", "is it epochs?", id="a slip of the pen"),
        pytest.param("lora_rank: many", "lora_rank to be int, found 'many'", id="a word"),
        pytest.param("optimizer: sgd", "optimizer to be", id="an unknown optimiser"),
        pytest.param("- 3", "expected keys and values", id="a list"),
        pytest.param("a: [", "cannot be read as YAML", id="no YAML"),
        pytest.param("model: tiny", "give --data", id="nothing to learn from"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, complaint):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(BadData) as caught:
        load_recipe(path, {})
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training/recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_recipes_that_come_along_are_found_by_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"data": "a.csv", "output": "out"}
    assert load_recipe(Path(path.stem), given) == load_recipe(path, given)
    assert shipped()[path.stem].strip()


def test_a_recipe_of_no_such_name_is_told_which_there_are():
    with pytest.raises(BadData, match=r"no such file, and none of the recipes .*my-data-sft"):
        load_recipe(Path("my-data"), {})


def test_a_flag_of_no_such_word_is_named():
    with pytest.raises(BadData, match="--looks: expected looks to be tool or inline or replay"):
        load_recipe(None, {"data": "a", "output": "b", "looks": "twice"})


def test_a_recipe_of_another_method_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("method: dpo\ndata: a.csv\noutput: out\n")
    with pytest.raises(BadData, match="is a recipe for dpo: mm train dpo"):
        load_recipe(path, {"method": "sft"})


@pytest.mark.parametrize(
    ("method", "key", "of"),
    [
        pytest.param("sft", "beta: 5.0", "beta 5.0 is for dpo and grpo alone", id="two others'"),
        pytest.param(
            "sft", "rewards: looked", "rewards 'looked' is for grpo alone", id="another's"
        ),
        pytest.param(
            "grpo", "accumulate: 2", "accumulate 2 is for sft and dpo", id="grpo has none"
        ),
    ],
)
def test_a_key_of_another_method_is_refused(tmp_path, method, key, of):
    path = tmp_path / "r.yaml"
    path.write_text(f"method: {method}\ndata: a.csv\noutput: out\nprompts: 8\n{key}\n")
    with pytest.raises(BadData, match=f"{of}.*leave it out of a recipe for {method}"):
        load_recipe(path, {"method": method})


def test_flags_override_a_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: a.csv\noutput: out\nepochs: 2\nlora: true\n")
    recipe = load_recipe(path, {"epochs": 5.0, "lora": False, "model": None})
    assert (recipe.epochs, recipe.lora, recipe.data, recipe.model) == (5.0, False, "a.csv", "tiny")


def test_every_bad_row_is_named_before_the_first_step(tmp_path, capsys):
    path = new_domain.write(tmp_path, "train", pictures=3, questions=1, seed=0)
    (tmp_path / "train" / "1.png").unlink()
    assert run(["train", "sft", "--data", str(path), "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mm: ")]
    assert "train.csv, row 3: expected an image, found that" in line
    assert not (tmp_path / "out").exists()


STEPS = ("--max-steps", 6, "--batch-tokens", 400, "--full")


@pytest.mark.slow
def test_a_newcomers_path(tmp_path):
    """A few steps, then the result answers; a folder that holds something is refused."""
    path = new_domain.write(tmp_path, "train", pictures=40, questions=1, seed=0)
    train = ("train", "sft", "--data", path, "--eval-data", path, "--output", "out", *STEPS)
    done = mm(*train, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "samples" in done.stderr
    assert "left" in done.stderr
    assert "held out:" in done.stderr
    asked = mm("ask", "train/0.png", "Is there a boat?", "--model", "out", folder=tmp_path)
    assert asked.returncode == 0, asked.stderr
    again = mm(*train, folder=tmp_path)
    assert again.returncode == 2
    assert "out is not empty: go on with --resume" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["--full", "--lora"])
def test_a_resumed_training_has_the_same_losses(tmp_path, adapter):
    """Cut off after its first checkpoint and resumed, a training logs what a whole one logs."""
    path = new_domain.write(tmp_path, "train", pictures=60, questions=1, seed=0)
    train = ("train", "sft", "--data", path, "--eval-data", path, *STEPS[2:4], adapter)
    whole = mm(*train, "--output", "whole", "--max-steps", 20, folder=tmp_path)
    assert whole.returncode == 0, whole.stderr
    cut = (*train, "--output", "cut", "--max-steps", 20)
    killed(*cut, folder=tmp_path, when=lambda line: bool(re.match(r"step (?!2 ).*held-out", line)))
    resumed = mm(*cut, "--resume", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert logged(tmp_path / "cut", "eval_loss")[20] == pytest.approx(
        logged(tmp_path / "whole", "eval_loss")[20], abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_two_processes_learn_what_one_does(tmp_path, method):
    """Two batches at a time, or two added up: the same steps."""
    path = new_domain.write(tmp_path, "train", pictures=60, questions=1, seed=0)
    path = pairs_of(path) if method == "dpo" else path
    given = ("--data", path, "--eval-data", path, "--batch-tokens", 300, "--max-steps", 10)
    given = (*given, "--learning-rate", 1e-4)  # gradients in bfloat16 differ in their last bits
    one = mm("train", method, *given, "--output", "one", "--accumulate", 2, folder=tmp_path)
    assert one.returncode == 0, one.stderr
    in_two(method, *given, "--output", "two", folder=tmp_path)
    losses = [logged(tmp_path / name, "loss") for name in ("one", "two")]
    assert losses[0].keys() == losses[1].keys()
    assert list(losses[0].values()) == pytest.approx(list(losses[1].values()), rel=1e-3)


def test_a_failed_step_leaves_nothing_behind_for_the_engine(tmp_path):
    """The hook that selects trained tokens is shared with the engine's forwards."""
    tiny = FAMILIES["qwen3_vl"]()
    model = copy.deepcopy(tiny.model)
    trainer = trainer_for("sft", TEXT, tmp_path, model, tiny.builder)
    (batch,) = list(trainer.get_train_dataloader())
    inputs = forward_inputs(model, Collator(tiny.builder)(TEXT))
    inputs.pop("labels")
    wanted = model(**inputs).logits.shape

    def fails(*args: Any, **kw: Any) -> None:
        raise MemoryError

    hook = bare(model).base_model.register_forward_pre_hook(fails)
    with pytest.raises(MemoryError):
        trainer.compute_loss(trainer.model, batch)
    hook.remove()
    assert model(**inputs).logits.shape == wanted


def test_rows_are_read_once_while_they_fit():
    read = []

    class Counted(Given):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    build = Collator(FAMILIES["qwen3_vl"]().builder).build
    for budget, times in ((10**8, [0]), (0, [0, 0])):
        rows = BuiltRows(Counted(SEEN), build, budget)
        assert rows[0][0].ids == rows[0][0].ids
        assert read == times
        read.clear()


def test_a_small_training_imports_no_other_method(tmp_path):
    """SFT needs neither GRPO, nor the tables of evaluation, nor what draws scenes."""
    code = "import sys; from training.finetune.run import train; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    unneeded = {"training.trainers.grpo", "training.evaluation", "training.tabletop"}
    assert not unneeded & set(done.stdout.split())

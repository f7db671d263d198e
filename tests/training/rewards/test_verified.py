"""A trained verifier as a reward: what it says in use is what it pays."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from images import noise
from peft import LoraConfig, get_peft_model
from transformers import Qwen3VLForConditionalGeneration

import mm
from mm.types import Sampling
from training.data import BadData, Row
from training.rewards.presets import read_mix
from training.rewards.terms import Attempt, contributions, results_of
from training.rewards.verified import _cached, verified
from vision import scale
from vision.verifier import score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("verifier")
    torch.manual_seed(1)
    base = Qwen3VLForConditionalGeneration.from_pretrained("mm/bundled/tiny")
    targets = r".*language_model.*\.(q_proj|v_proj)"
    adapter = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    adapted = get_peft_model(base, adapter)
    adapted.peft_config["default"].base_model_name_or_path = str(Path("mm/bundled/tiny").resolve())
    adapted.save_pretrained(str(made))
    return str(made)


def test_it_pays_what_the_verifier_says_of_a_branch(folder: str) -> None:
    sample = mm.question("What letter is on the red square?", noise(3), id="q")
    vlm = mm.load("tiny", verifier=folder)
    strategy = partial(scale, verifier=score, max_steps=1)
    trace = mm.run(strategy, sample, vlm, sampling=Sampling(max_tokens=8))
    attempt = Attempt(trace.best, Row("q", sample.prompt, answer="K"))
    said = score(trace.best, vlm=vlm)
    assert said is not None
    assert 0 < said < 1
    assert verified(attempt, verifier=folder) == pytest.approx(said, abs=1e-5)
    mix = read_mix("accuracy + 0.5*verifier", verifier=folder)
    paid = contributions(results_of(mix, attempt))
    assert paid["verifier"] == pytest.approx(0.5 * said, abs=1e-5)


def test_a_folder_must_be_named() -> None:
    with pytest.raises(BadData, match="give --verifier, its folder"):
        read_mix("accuracy + 0.5*verifier")


def test_a_verifier_of_trajectories_is_no_reward(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "verifier.json").write_text('{"kind": "logratio"}')
    with pytest.raises(BadData, match="pairs of --kind verdict"):
        read_mix("accuracy + 0.5*verifier", verifier=str(tmp_path))


def test_answers_in_flight_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _cached.cache_clear()
    loaded = []

    def load(*args: object, **kw: object) -> object:
        loaded.append(args)
        time.sleep(0.05)
        return object()

    monkeypatch.setattr(mm, "load", load)
    monkeypatch.setattr("training.rewards.verified.base_of", str)
    monkeypatch.setattr("training.rewards.verified.score", lambda branch, vlm: 0.5)
    attempt = Attempt(mm.Branch(mm.Sample("q", ()), (), None), Row("q", ()))
    with ThreadPoolExecutor(8) as pool:
        paid = list(pool.map(partial(verified, verifier="some"), [attempt] * 8))
    _cached.cache_clear()
    assert (paid, len(loaded)) == ([0.5] * 8, 1)

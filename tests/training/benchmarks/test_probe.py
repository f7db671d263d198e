"""The probe reads what is there to read, and nothing else."""

import pytest
import torch
from tiny_models import llava_next, qwen3_vl

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from training.benchmarks.probe import Seen, around, look, probe, read
from training.tabletop import LETTERS


def seen(count, signal, seed):
    rng = torch.Generator().manual_seed(seed)
    letters = torch.randint(len(LETTERS), (count,), generator=rng)
    noise = torch.randn(count, 24, generator=rng)
    noise[:, : len(LETTERS)] += signal * torch.nn.functional.one_hot(letters, len(LETTERS))
    return Seen({"overview": noise}, letters)


def test_a_readable_letter_is_read():
    reading = read("overview", seen(800, 8.0, 1), seen(300, 8.0, 2))
    assert reading.n == 300
    assert reading.right.value > 0.98


def test_noise_reads_at_chance():
    reading = read("overview", seen(800, 0.0, 1), seen(300, 0.0, 2))
    assert reading.right.low < 1 / 16 < reading.right.high
    assert 0.06 < reading.chance < 0.13


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        pytest.param(0.5, 0.5, [5, 6, 9, 10], id="middle"),
        pytest.param(0.0, 0.0, [0, 1, 4, 5], id="corner"),
        pytest.param(1.0, 1.0, [10, 11, 14, 15], id="other corner"),
        pytest.param(0.9, 0.4, [6, 7, 10, 11], id="right"),
        pytest.param(0.3, 0.1, [0, 1, 4, 5], id="left of the second centre"),
        pytest.param(0.4, 0.1, [1, 2, 5, 6], id="right of the second centre"),
    ],
)
def test_tokens_around_a_point(x, y, expected):
    grid = torch.arange(16.0).view(4, 4, 1)
    assert around(grid, x, y).tolist() == expected


def vlm(tiny):
    return HFVLM(Engine(tiny.model, tiny.builder), name="random")


def test_every_object_gives_features_of_both_views():
    found = look(vlm(qwen3_vl()), range(2), 0)
    assert found.features["overview"].shape == found.features["crop"].shape
    assert len(found.letters) == len(found.features["crop"])
    assert not torch.equal(found.features["overview"], found.features["crop"])


def test_a_probe_runs_end_to_end():
    readings = probe(vlm(qwen3_vl()), 3)
    assert [r.view for r in readings] == ["overview", "crop"]
    assert all(0 <= r.right.low <= r.right.value <= r.right.high <= 1 for r in readings)


def test_pictures_in_several_grids_are_refused():
    with pytest.raises(ValueError, match="one grid"):
        look(vlm(llava_next()), range(1), 0)

"""The timing of trainings compares like with like: both sides train the same tokens."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from mm.local.checkpoints import find
from mm.tokens.loading import load_builder
from training.batching.collator import Collator
from training.benchmarks import training_speed
from training.benchmarks.training_speed import Load, fixed_batch, write_mix
from training.benchmarks.trl_baseline import QwenProcessor, stock_rows
from training.data import read_data


def test_both_sides_train_the_same_tokens_of_the_same_rows(tmp_path):
    rows = write_mix(tmp_path, 4)
    builder = load_builder(str(find("tiny")), local_files_only=True)
    processor = QwenProcessor(
        builder.image_processor, builder.tokenizer, builder.tokenizer.chat_template
    )
    theirs = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    batch = theirs(list(stock_rows(rows)))
    ours = Collator(builder)(list(read_data(rows)))
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        torch.testing.assert_close(batch[key], ours.inputs[key], check_dtype=False)
    torch.testing.assert_close(batch["labels"], ours.labels)
    pixels = torch.cat([span.tensors["pixel_values"] for span in ours.images])
    torch.testing.assert_close(batch["pixel_values"], pixels)


def test_half_of_the_mix_is_short_with_one_picture_and_half_long_with_four(tmp_path):
    rows = [json.loads(line) for line in write_mix(tmp_path, 6).read_text().splitlines()]
    assert sorted(len(row["images"]) for row in rows) == [1, 1, 1, 4, 4, 4]


@pytest.mark.parametrize("fitting", [1, 2, 5, 8, 64])
def test_their_batch_is_the_largest_that_takes_no_more_memory(tmp_path, monkeypatch, fitting):
    tried = []

    def peak(load, name, device, side, batch):
        tried.append(batch)
        return 100.0 * fitting + 50 if side == "ours" else 100.0 * batch

    monkeypatch.setattr(training_speed, "peak", peak)
    found, peaks = fixed_batch(Load(tmp_path, vision=False), "tiny", None)
    assert (found, peaks[1]) == (fitting, (100.0 * fitting,))
    assert len(tried) < 14


@pytest.mark.slow
def test_a_peak_grows_with_the_batch_whatever_the_asking_process_holds(tmp_path):
    held = b"x" * 2**31
    load = Load(write_mix(tmp_path, 16), vision=False)
    small, large = (training_speed.peak(load, "tiny", "cpu", "theirs", n) for n in (1, 8))
    assert 2**20 < small < large < len(held)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        pytest.param("win32", 5e6, id="Windows, which lacks resource"),
        pytest.param("darwin", 7e6, id="bytes"),
        pytest.param("freebsd", 7e6 * 1024, id="kilobytes"),
    ],
)
def test_the_peak_of_memory_is_known_without_proc(monkeypatch, tmp_path, system, expected):
    usage = SimpleNamespace(getrusage=lambda _: SimpleNamespace(ru_maxrss=7e6), RUSAGE_SELF=0)
    info = SimpleNamespace(peak_wset=5e6)
    monkeypatch.setattr(training_speed, "Path", lambda _: tmp_path / "none")
    monkeypatch.setattr(
        training_speed.psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: info)
    )
    monkeypatch.setitem(sys.modules, "resource", None if system == "win32" else usage)
    monkeypatch.setattr(training_speed.sys, "platform", system)
    assert training_speed._most_held() == expected

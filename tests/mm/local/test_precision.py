"""The precision that is chosen is the one that this processor multiplies fastest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm.local import precision
from mm.local.precision import (
    default_dtype,
    fast_autocast,
    fast_dtype,
    overflows,
    products_per_s,
    why_slow,
)

CPU = torch.device("cpu")
AVX2_ONLY = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
GIB = 2**30


@pytest.fixture
def speeds(monkeypatch):
    """Set what products reach, in billions of operations a second, by precision."""

    def set_to(float32: float, bfloat16: float) -> None:
        reached = {torch.float32: float32 * 1e9, torch.bfloat16: bfloat16 * 1e9}
        monkeypatch.setattr(precision, "products_per_s", reached.__getitem__)

    return set_to


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [
        pytest.param(100, 215, torch.bfloat16, id="AVX-512 with bfloat16"),
        pytest.param(75, 2, torch.float32, id="AVX2 alone"),
        pytest.param(100, 110, torch.float32, id="hardly faster: exact is better"),
    ],
)
def test_the_faster_precision_is_chosen(speeds, float32, bfloat16, chosen):
    speeds(float32, bfloat16)
    assert fast_dtype(CPU) == chosen
    with fast_autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == chosen


@pytest.mark.parametrize(
    ("parameters", "free", "bfloat16", "chosen"),
    [
        pytest.param(9_000_000, 8 * GIB, 215, torch.float32, id="small: exact"),
        pytest.param(2_000_000_000, 24 * GIB, 2, torch.float32, id="large, bfloat16 slow"),
        pytest.param(2_000_000_000, 24 * GIB, 215, torch.bfloat16, id="large, bfloat16 fast"),
        pytest.param(2_000_000_000, 11 * GIB, 2, torch.bfloat16, id="float32 does not fit"),
    ],
)
def test_weights_load_in_what_is_fast_and_fits(speeds, caplog, parameters, free, bfloat16, chosen):
    speeds(75, bfloat16)
    assert default_dtype(CPU, parameters, free) == chosen
    said = "float32 would be faster on this processor" in caplog.text
    assert said == (chosen == torch.bfloat16 and bfloat16 < 75)


@pytest.mark.parametrize(
    ("model_type", "free", "bfloat16", "chosen"),
    [
        pytest.param("qwen2_5_vl", 40 * GIB, False, torch.float16, id="usual"),
        pytest.param("gemma3", 40 * GIB, False, torch.float32, id="Gemma: room for float32"),
        pytest.param("gemma3", 15 * GIB, False, torch.bfloat16, id="Gemma: none"),
        pytest.param("gemma3", 40 * GIB, True, torch.bfloat16, id="Gemma: bfloat16 is fast"),
    ],
)
def test_float16_is_not_taken_for_what_overflows_it(
    monkeypatch, caplog, model_type, free, bfloat16, chosen
):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda _: bfloat16)
    large = overflows(model_type)
    got = default_dtype(torch.device("cuda"), 4_000_000_000, free, large_numbers=large)
    assert got == chosen
    assert ("taking bfloat16" in caplog.text) == (chosen == torch.bfloat16 and not bfloat16)


def test_a_slow_precision_is_said_to_be(speeds):
    speeds(75, 2)
    said = why_slow(torch.bfloat16, CPU)
    assert said == ("bfloat16 is slow on this processor: 2 billion operations a second, float32 75")
    assert why_slow(torch.float32, CPU) is None
    speeds(75, 215)
    assert why_slow(torch.bfloat16, CPU) is None


def test_the_choice_agrees_with_products_of_this_processor():
    exact, rounded = products_per_s(torch.float32), products_per_s(torch.bfloat16)
    assert (fast_dtype(CPU) == torch.bfloat16) == (rounded > 1.2 * exact)


def test_a_processor_without_bfloat16_is_found_out():
    """Whatever its flags say: products in bfloat16 are slow with AVX2 alone."""
    code = "import torch; from mm.local.precision import *; print(fast_dtype(torch.device('cpu')))"
    environment = {**os.environ, **AVX2_ONLY, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "torch.float32"

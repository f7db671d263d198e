"""An adapter is known to belong to the weights it was trained on, and to no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mm
from mm.errors import ModelUnavailable
from mm.local.fingerprint import FILE, check_base, fingerprint, write_base

Weights = dict[str, torch.Tensor]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"a": torch.arange(6.0), "b": torch.ones(2, 3)}, folder / "model.safetensors")
    return folder


def changed(weights: Weights) -> Weights:
    return {**weights, "b": weights["b"] + 1e-3}


def renamed(weights: Weights) -> Weights:
    return {"a": weights["a"], "c": weights["b"]}


def reshaped(weights: Weights) -> Weights:
    return {**weights, "b": weights["b"].reshape(3, 2)}


def halved(weights: Weights) -> Weights:
    return {name: value.bfloat16() for name, value in weights.items()}


@pytest.mark.parametrize("change", [changed, renamed, reshaped, halved])
def test_other_weights_have_another_fingerprint(base: Path, change: Callable) -> None:
    before = fingerprint(base)
    file = base / "model.safetensors"
    save_file(change(load_file(file)), file)
    assert fingerprint(base) != before


def test_the_number_of_files_makes_no_difference(base: Path) -> None:
    before = fingerprint(base)
    file = base / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    for name, value in weights.items():
        save_file({name: value}, base / f"{name}.safetensors")
    assert fingerprint(base) == before


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="holds no safetensors"):
        write_base(tmp_path, tmp_path)


def test_an_adapter_without_a_note_passes(base: Path, tmp_path: Path) -> None:
    check_base(tmp_path, base)


@pytest.mark.parametrize("noted", ["{", "[]", "{}"])
def test_a_damaged_note_is_refused(base: Path, tmp_path: Path, noted: str) -> None:
    (tmp_path / FILE).write_text(noted)
    with pytest.raises(ModelUnavailable):
        check_base(tmp_path, base)


@pytest.mark.parametrize(
    "load",
    [lambda folder: mm.load(adapter=folder), lambda folder: mm.load(verifier=folder)],
    ids=["adapter", "verifier"],
)
def test_an_adapter_is_refused_on_other_weights(tmp_path: Path, load: Callable) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    write_base(tmp_path, Path(mm.__file__).parent / "bundled" / "tiny")
    note = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(note.replace(":", ': "0", "was":'))
    with pytest.raises(ModelUnavailable, match=r"trained on other weights \(0\).*train it again"):
        load(str(tmp_path))

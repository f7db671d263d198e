"""A broken torchvision changes nothing; the other tests run without any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import FAMILIES

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")\n'

LOADS = """
{first}
from mm.tokens.loading import load_builder
from mm.types import Image, user
import PIL.Image
builder = load_builder({folder!r})
tokens = builder.build((user(Image(PIL.Image.new("RGB", (64, 64))), "What?"),))
from transformers import Qwen3VLForConditionalGeneration
print(len(tokens.images), type(builder).__name__)
"""


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("", id="ours seen first"),
        pytest.param("import transformers", id="transformers seen first"),
    ],
)
def test_a_checkpoint_loads_beside_a_broken_one(first: str, tmp_path: Path) -> None:
    tiny = FAMILIES["qwen3_vl"]()
    for part in (tiny.model.config, tiny.builder.tokenizer, tiny.builder.image_processor):
        part.save_pretrained(tmp_path / "model")
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BROKEN)
    (package / "transforms.py").write_text("")
    info = tmp_path / "site" / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[3])])
    code = LOADS.format(first=first, folder=str(tmp_path / "model"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "1 TokenBuilder", done.stderr[-2000:]

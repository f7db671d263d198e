"""Whether a test needs torch is known before it is imported."""

from pathlib import Path

import pytest
from import_graph import imports_torch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        pytest.param("import torch.nn", True, id="itself"),
        pytest.param("try:\n    import torch\nexcept ImportError:\n    pass", True, id="tried"),
        pytest.param("from trl import x", True, id="a library that imports it"),
        pytest.param("from training.muon import Muon", True, id="by the project"),
        pytest.param("from tiny_models import FAMILIES", True, id="by a helper of the tests"),
        pytest.param("import mm\nfrom mm.types import Image", False, id="not by the project"),
        pytest.param("def f():\n    import torch", False, id="only when called"),
        pytest.param(
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            False,
            id="only for types",
        ),
    ],
)
def test_torch_is_seen_where_importing_a_file_imports_it(tmp_path, source, needs):
    (tmp_path / "x.py").write_text(source)
    assert imports_torch(tmp_path / "x.py") == needs


def test_relative_imports_are_followed():
    assert imports_torch(ROOT / "tests/mm/engine/test_decode.py")
    assert not imports_torch(ROOT / "tests/vision/test_zoom.py")

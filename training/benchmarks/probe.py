"""Can anything read the letters in the overview? A linear probe on the vision encoder's features.

For every object of many scenes the probe gets the features of the visual tokens around the object's
true centre, in the overview and, as a check of the probe, in the crop of its true box. All that the
language model gets is in them: the merged features and those of every deepstack layer.

    python -m training.benchmarks.probe --model tiny --scenes 3000 --out probe.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.progress import track
from torch import Tensor

import mm
from mm.engine.vision_encoder import encode
from mm.local.hf_vlm import HFVLM
from mm.origins import Cropped
from mm.types import Image
from training.evaluation.intervals import Interval, wilson
from training.evaluation.results import command_line, envelope
from training.evaluation.run import place_of
from training.evaluation.tasks import default_level, level_named
from training.tabletop import LETTERS, Scene, make_scene, render
from training.tabletop.questions import FIRST_TEST_SEED
from vision.crop import crop

if TYPE_CHECKING:
    from mm.geometry import Region

VIEWS = ("overview", "crop")
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared norm that are tried; the held-out fifth of the training scenes chooses."""

_TEST_SLOT = 63  # of the 64 that a test seed has; tasks take the first ones


@dataclass(frozen=True)
class Reading:
    """How often the probe read the letter in `view`; `chance` is the commonest letter's share."""

    view: str
    n: int
    right: Interval
    chance: float


@dataclass(frozen=True)
class Seen:
    """Features (N, D) of each view, and the letter of each object by its number (N,)."""

    features: dict[str, Tensor]
    letters: Tensor


def probe(vlm: HFVLM, scenes: int, *, seed: int = 0, level: int = 0) -> list[Reading]:
    """Fit on `scenes` training scenes that no bundled model saw, read a third as many test scenes.

    Raises:
        ValueError: the model's visual tokens are not one grid.
    """
    first_test = FIRST_TEST_SEED + ((seed * 64 + _TEST_SLOT) << 24)
    train = look(vlm, range(FIRST_TEST_SEED - scenes, FIRST_TEST_SEED), level)
    test = look(vlm, range(first_test, first_test + max(scenes // 3, 1)), level)
    return [read(view, train, test) for view in VIEWS]


def read(view: str, train: Seen, test: Seen) -> Reading:
    """Fit on `train`, measure on `test`."""
    features = train.features[view]
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x, y = (features - mean) / scale, train.letters
    held_out = len(y) // 5
    penalty = max(PENALTIES, key=lambda p: _share_right(x, y, held_out, p))
    weights = fit(x, y, penalty)
    said = predict((test.features[view] - mean) / scale, weights)
    right = wilson(int((said == test.letters).sum()), len(said))
    chance = float(test.letters.bincount().max()) / len(said)
    return Reading(view, len(said), right, chance)


def fit(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Weights (D + 1, letters), bias last, of the logistic regression of `y` (N,) on `x` (N, D)."""
    weights = torch.zeros(x.shape[1] + 1, len(LETTERS), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(_logits(x, weights), y)
        value = value + penalty * weights[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type] - torch calls it for a tensor
    return weights.detach()


def predict(x: Tensor, weights: Tensor) -> Tensor:
    """The letters (N,), by number, that the probe reads in `x`."""
    return _logits(x, weights).argmax(1)


def look(vlm: HFVLM, seeds: Sequence[int], level: int) -> Seen:
    """What the encoder makes of every object of the scenes of `seeds`."""
    found: dict[str, list[Tensor]] = {view: [] for view in VIEWS}
    letters: list[int] = []
    for seed in track(seeds, "looking", transient=True):
        scene = make_scene(seed, level)
        for view, features in zip(VIEWS, _views(vlm, scene), strict=True):
            found[view] += features
        letters += [LETTERS.index(thing.letter) for thing in scene.things]
    return Seen({view: torch.stack(rows) for view, rows in found.items()}, torch.tensor(letters))


def token_grid(vlm: HFVLM, image: Image) -> Tensor:
    """The features (rows, columns, D) of the visual tokens of `image`, deepstack layers joined on.

    Raises:
        ValueError: the family has more than one grid an image.
    """
    (span,) = vlm.builder.build((mm.user(image),)).images
    if "image_grid_thw" not in span.tensors:
        raise ValueError(f"{vlm.name}: a probe needs visual tokens in one grid, as Qwen's are")
    with torch.inference_mode():
        output = encode(vlm.engine.model, span.tensors)
    layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    flat = torch.cat([_joined(layer) for layer in layers], dim=1)
    _, rows, columns = (int(v) for v in span.tensors["image_grid_thw"][0])
    merge = round((rows * columns / len(flat)) ** 0.5)
    return flat.float().cpu().view(rows // merge, columns // merge, -1)


def around(grid: Tensor, x: float, y: float) -> Tensor:
    """The features (4 * D,) of the four tokens nearest to a point in fractions of the image."""
    rows, columns, _ = grid.shape
    top, left = _before(y, rows), _before(x, columns)
    return grid[top : top + 2, left : left + 2].flatten()


def _views(vlm: HFVLM, scene: Scene) -> Iterable[list[Tensor]]:
    image = Image(render(scene))
    overview = token_grid(vlm, image)
    yield [around(overview, thing.x, thing.y) for thing in scene.things]
    yield [_in_crop(vlm, image, thing.region) for thing in scene.things]


def _in_crop(vlm: HFVLM, image: Image, region: Region) -> Tensor:
    cut = crop(image, region, rule=vlm.traits.crop_rule)
    assert isinstance(cut.origin, Cropped)
    shown = cut.origin.region
    x = ((region.x0 + region.x1) / 2 - shown.x0) / (shown.x1 - shown.x0)
    y = ((region.y0 + region.y1) / 2 - shown.y0) / (shown.y1 - shown.y0)
    return around(token_grid(vlm, cut), x, y)


def _before(at: float, count: int) -> int:
    """The first of the two tokens whose centres are nearest to `at`."""
    return min(max(int(at * count - 0.5), 0), max(count - 2, 0))


def _logits(x: Tensor, weights: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]


def _share_right(x: Tensor, y: Tensor, held_out: int, penalty: float) -> float:
    weights = fit(x[held_out:], y[held_out:], penalty)
    return float((predict(x[:held_out], weights) == y[:held_out]).float().mean())


def _joined(value: Any) -> Tensor:
    return value if torch.is_tensor(value) else torch.cat(tuple(value))


def main(
    model: str = "tiny",
    scenes: Annotated[int, typer.Option(min=10, help="Training scenes.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Which test stream.")] = 0,
    level: Annotated[str | None, typer.Option(help="How hard the scenes are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the readings as JSON.")] = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Whether a linear probe reads the letters in the overview, and in the true crops."""
    vlm = mm.load(model, device=device, dtype=dtype)
    if not isinstance(vlm, HFVLM):
        raise typer.BadParameter(f"{model} is of no listed family, whose encoder can be read")
    hardness = default_level("read") if level is None else level_named(level)
    readings = probe(vlm, scenes, seed=seed, level=hardness)
    for r in readings:
        low, high, chance = 100 * r.right.low, 100 * r.right.high, 100 * r.chance
        told = f"{100 * r.right.value:.1f} % ({low:.1f}-{high:.1f})"
        print(f"{r.view:9} letters read {told} of {r.n} objects; chance {chance:.1f} %")
    if out:
        about = {"seed": seed, "model": model, "level": hardness, "scenes": scenes}
        rows = [_row(r) for r in readings]
        written = envelope(rows, [], command=command_line(), **about, **place_of(vlm))
        out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _row(reading: Reading) -> dict[str, Any]:
    return {
        "task": "probe",
        "strategy": reading.view,
        "control": "",
        "n": reading.n,
        "accuracy": reading.right.value,
        "low": reading.right.low,
        "high": reading.right.high,
        "chance": reading.chance,
    }


if __name__ == "__main__":
    typer.run(main)

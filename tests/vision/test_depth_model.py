"""Depth from models of every class: transformers' own numbers, the right way round."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from images import noise
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    pipeline,
)
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
from transformers.models.zoedepth import image_processing_pil_zoedepth

from mm.errors import ModelUnavailable
from mm.geometry import Region
from vision.depth import BadDepth, compare
from vision.depth_model import (
    DepthModel,
    _metres,
    _prepared,
    _unpadded,
    kind_of,
    load_depth_model,
)
from vision.depth_source import estimated


def dpt():
    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        image_size=64, patch_size=16, readout_type="project",
    )  # fmt: skip
    return DPTForDepthEstimation(config), DPTImageProcessorPil(size={"height": 64, "width": 64})


def glpn():
    config = GLPNConfig(
        hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        sr_ratios=[4, 2, 1, 1], decoder_hidden_size=16, max_depth=10,
    )  # fmt: skip
    return GLPNForDepthEstimation(config), GLPNImageProcessorPil(size_divisor=32)


def depth_anything(kind: str = "relative"):
    taken = {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "apply_layernorm": True}
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        **taken,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, fusion_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16], head_hidden_size=8, depth_estimation_type=kind,
        max_depth=20,
    )  # fmt: skip
    size = {"height": 56, "width": 56}
    return DepthAnythingForDepthEstimation(config), DPTImageProcessorPil(size=size)


def zoedepth():
    taken: Any = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    backbone = BeitConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        image_size=64, patch_size=16, use_relative_position_bias=True, reshape_hidden_states=False,
        **taken,
    )  # fmt: skip
    config = ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        bottleneck_features=16, num_relative_features=8, num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
    )  # fmt: skip
    size, processor = {"height": 64, "width": 64}, image_processing_pil_zoedepth
    return ZoeDepthForDepthEstimation(config), processor.ZoeDepthImageProcessorPil(size=size)


def depth_pro():
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        reshape_hidden_states=False, apply_layernorm=False,
    )  # fmt: skip
    return DepthProForDepthEstimation(
        DepthProConfig(
            image_model_config=backbone, patch_model_config=backbone, fov_model_config=backbone,
            patch_size=32, fusion_hidden_size=8, intermediate_hook_ids=[1, 0],
            intermediate_feature_dims=[8, 8], scaled_images_ratios=[0.25, 0.5, 1],
            scaled_images_overlap_ratios=[0.0, 0.5, 0.25], scaled_images_feature_dims=[8, 8, 8],
            use_fov_model=True,
        )
    )  # fmt: skip


CLASSES = {"dpt": dpt, "glpn": glpn, "depth_anything": depth_anything}


@pytest.fixture(params=CLASSES)
def folder(request, tmp_path):
    torch.manual_seed(0)
    model, processor = CLASSES[request.param]()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_numbers_are_those_of_transformers_pipeline(folder):
    image = noise(1, (90, 60))
    ours = load_depth_model(str(folder))
    theirs = pipeline("depth-estimation", model=ours._model, image_processor=ours._process)
    said = ours._output(image)[0]
    expected = theirs(image.pixels)["predicted_depth"].clamp(said.min(), said.max())
    assert ours(image).size == (90, 60)
    torch.testing.assert_close(torch.from_numpy(ours(image).values), expected)


def test_zoedepths_numbers_are_those_of_its_processor(tmp_path, monkeypatch):
    """Which resizes with torchvision, and that by torch's own interpolation."""
    torch.manual_seed(0)
    for part in zoedepth():
        part.save_pretrained(tmp_path)
    image = noise(1, (90, 60))
    ours = load_depth_model(str(tmp_path))
    said = ours._output(image)[0]

    def resize(depth, size, interpolation, antialias):
        assert not antialias
        return torch.nn.functional.interpolate(depth[None], size, mode=interpolation)[0]

    modes = SimpleNamespace(BICUBIC="bicubic")
    torchvision = SimpleNamespace(resize=resize, InterpolationMode=modes)
    monkeypatch.setattr(image_processing_pil_zoedepth, "tvF", torchvision, raising=False)
    outputs = SimpleNamespace(predicted_depth=said)
    process: Any = ours._process
    (theirs,) = process.post_process_depth_estimation(outputs, source_sizes=[(60, 90)])
    expected = theirs["predicted_depth"].clamp(said.min(), said.max())
    torch.testing.assert_close(torch.from_numpy(ours(image).values), expected)


def test_depth_pro_needs_no_torchvision(tmp_path):
    """Its processor does, so images are prepared here as its fields say."""
    torch.manual_seed(0)
    depth_pro().save_pretrained(tmp_path)
    fields = {
        "image_processor_type": "DepthProImageProcessor",
        "size": {"height": 128, "width": 128},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    model = load_depth_model(str(tmp_path))
    depth = model(noise(1, (90, 60)))
    assert (depth.size, depth.kind) == ((90, 60), "metric")
    with torch.inference_mode():
        shown = _prepared(noise(1, (90, 60)), fields)
        said = model._model(pixel_values=shown)
    # as its post_process_depth_estimation has it: metres by the focal length, in pixels
    focal = 0.5 * 90 / torch.tan(0.5 * torch.deg2rad(said.field_of_view))
    scaled = said.predicted_depth[None] * 90 / focal
    expected = 1 / torch.nn.functional.interpolate(scaled, (60, 90), mode="bilinear")[0, 0]
    torch.testing.assert_close(torch.from_numpy(depth.values), expected.clamp(1e-4, 1e4))


def test_a_class_that_is_prepared_by_torchvision_alone_is_refused(folder, monkeypatch):
    monkeypatch.setattr("vision.depth_model._processor", lambda name: None)
    with pytest.raises(ModelUnavailable, match="are prepared by torchvision alone: give another"):
        load_depth_model(str(folder))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"kind": "inverse"}, id="as its class says"),
        pytest.param({"kind_if_unknown": "metric"}, id="for classes that do not say"),
    ],
)
def test_what_a_class_says_is_never_turned_over(tmp_path, asked):
    for part in dpt():
        part.save_pretrained(tmp_path)
    assert load_depth_model(str(tmp_path), **asked).kind == "inverse"


def test_a_kind_that_contradicts_its_class_is_refused(tmp_path):
    for part in dpt():
        part.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="of 'dpt' are inverse, not metric: leave the kind"):
        load_depth_model(str(tmp_path), kind="metric")


def test_a_map_is_computed_once(folder, monkeypatch):
    model = load_depth_model(str(folder))
    first = model(noise(1, (40, 40)))
    monkeypatch.setattr(model._model, "forward", None)
    assert np.array_equal(model(noise(1, (40, 40))).values, first.values)


class Tilted(torch.nn.Module):
    """A model that finds a plane whose bottom rows are near, in the convention of its class."""

    def __init__(self, config, larger_is_nearer: bool):
        super().__init__()
        self.config = config
        self.weight = torch.nn.Parameter(torch.zeros(1))
        rows = torch.linspace(1, 5, 32) if larger_is_nearer else torch.linspace(5, 1, 32)
        self.plane = rows[:, None].expand(32, 32)

    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=self.plane[None], field_of_view=torch.tensor([60.0]))


@pytest.mark.parametrize(
    ("type_", "said", "larger_is_nearer"),
    [
        pytest.param("dpt", None, True, id="DPT: disparity"),
        pytest.param("glpn", None, False, id="GLPN: metres"),
        pytest.param("zoedepth", None, False, id="ZoeDepth: metres"),
        pytest.param("depth_anything", "relative", True, id="Depth Anything: disparity"),
        pytest.param("depth_anything", "metric", False, id="Depth Anything, metric"),
        pytest.param("depth_pro", None, True, id="Depth Pro: inverse inside, metres outside"),
    ],
)
def test_a_tilted_plane_comes_out_the_right_way_round(type_, said, larger_is_nearer):
    config = SimpleNamespace(model_type=type_, depth_estimation_type=said)
    kind = kind_of(config)
    assert kind is not None
    model = DepthModel(Tilted(config, larger_is_nearer), None, {}, kind, type_)
    depth = model(noise(1, (64, 48)))
    top, bottom = Region(0, 0, 1, 0.3), Region(0, 0.7, 1, 1)
    assert compare(depth, bottom, top) == "nearer"


@pytest.mark.parametrize("type_", ["glpn", "zoedepth"])
def test_metres_stay_within_what_the_network_said(type_):
    """A cubic at an edge goes below 0 by itself, where there are no metres."""
    tilted = Tilted(SimpleNamespace(model_type=type_), False)
    tilted.plane = torch.cat([torch.full((16, 32), 9.0), torch.full((16, 32), 0.01)])
    depth = DepthModel(tilted, None, {}, "metric", type_)(noise(1, (200, 150)))
    assert depth.values.min() == pytest.approx(0.01)
    assert depth.values.max() == pytest.approx(9.0)


def test_threads_that_share_a_model_take_turns():
    class Alone(Tilted):
        def forward(self, pixel_values):
            assert not self.busy
            self.busy = True
            time.sleep(0.002)
            self.busy = False
            return super().forward(pixel_values)

    network = Alone(SimpleNamespace(model_type="dpt"), True)
    network.busy = False
    model = DepthModel(network, None, {}, "inverse", "dpt")
    images = [noise(seed, (8, 8)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(model, images))) == 8


def test_the_farthest_of_a_disparity_is_a_depth():
    """Such heads end in a ReLU, which gives exact zeros in the distance."""
    tilted = Tilted(SimpleNamespace(model_type="dpt"), True)
    tilted.plane = torch.cat([torch.zeros(16, 32), torch.ones(16, 32)])
    depth = DepthModel(tilted, None, {}, "inverse", "dpt")(noise(1, (64, 48)))
    assert depth.valid.all()
    assert compare(depth, Region(0, 0, 1, 0.3), Region(0, 0.7, 1, 1)) == "farther"


def test_what_dinov2_under_dpt_finds_must_be_said() -> None:
    """Such heads were trained for metres, and others for disparity."""
    assert kind_of(DPTConfig(backbone_config=Dinov2Config())) is None


def test_zoedepths_border_is_taken_off():
    """As its processor's post_process_depth_estimation does, with `source_sizes`."""
    padded = torch.arange(64.0 * 64).reshape(1, 64, 64)
    made = _unpadded(padded, (50, 32), True)
    assert made.shape == (50, 32)
    whole = torch.nn.functional.interpolate(padded[:, None], (50 + 30, 32 + 24), mode="bicubic")
    torch.testing.assert_close(made, whole[0, 0, 15:65, 12:44])


def test_depth_pros_metres_follow_the_angle_of_view():
    canonical = torch.full((1, 8, 8), 0.5)
    metres = _metres(canonical, torch.tensor([90.0]), (4, 4))
    torch.testing.assert_close(metres, torch.full((4, 4), 1.0))  # 1 / (0.5 * 2 * tan 45)


def test_a_class_that_nobody_knows_must_be_told(folder, monkeypatch):
    monkeypatch.setattr("vision.depth_model.kind_of", lambda config: None)
    with pytest.raises(ModelUnavailable, match="say it with --depth-kind metric, relative or"):
        load_depth_model(str(folder))
    assert load_depth_model(str(folder), kind="relative").kind == "relative"
    assert load_depth_model(str(folder), kind_if_unknown="relative").kind == "relative"


def test_what_is_no_depth_model_is_one_line(tmp_path):
    with pytest.raises(ModelUnavailable, match="depth model"):
        load_depth_model(str(tmp_path / "absent"))
    Dinov2Config(hidden_size=32, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="'dinov2' estimates no depth"):
        load_depth_model(str(tmp_path))


def test_what_is_too_narrow_for_the_network_is_told() -> None:
    with pytest.raises(BadDepth, match="tiny-depth takes no image of 200 x 2 pixels"):
        estimated("tiny-depth", noise(1, (200, 2)))

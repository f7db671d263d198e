"""Folders that are damaged, quantised or bring code: loaded, or refused in one line."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import rounds
from huggingface_hub import close_session
from safetensors.torch import save_file
from tiny_models import FAMILIES

import mm
from mm.errors import ModelUnavailable
from mm.local.checkpoints import code_files, find, inspect, safetensors_header
from mm.local.hf_vlm import HFVLM
from mm.local.placement import Placement
from mm.local.weights import ANSWERING, read_weights
from mm.tokens.loading import load_builder

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny = FAMILIES["qwen2_5_vl"]()
    tiny.model.save_pretrained(str(folder), max_shard_size="200KB")
    tiny.builder.tokenizer.save_pretrained(folder)
    tiny.builder.image_processor.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path) -> str:
    with pytest.raises(mm.ModelUnavailable) as refused:
        mm.load(str(folder), device="cpu", threads=1)
    told = str(refused.value)
    assert len(told.splitlines()) == 1
    return told


def test_the_folder_loads_as_it_was_saved(saved: Path) -> None:
    assert isinstance(mm.load(str(saved), device="cpu", threads=1), HFVLM)


def header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite what a shard says of its tensors."""
    path = sorted(folder.glob("*.safetensors"))[0]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    said = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + data[8 + length :])


def first(told: dict[str, Any], **changes: object) -> dict[str, Any]:
    name = next(k for k in told if k != "__metadata__")
    return {**told, name: {**told[name], **changes}}


def index(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "model.safetensors.index.json", **changes)


def shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda f: shard(f).unlink(), "of its index; download it again", id="a shard"),
        pytest.param(
            index(weight_map={"a": "absent.safetensors"}), "lacks absent.safetensors", id="absent"
        ),
        pytest.param(index(weight_map=[1]), "maps no weights to files", id="a list for a map"),
        pytest.param(index(weight_map={"a": 1}), "maps no weights to files", id="a number"),
        pytest.param(
            lambda f: (f / "model.safetensors.index.json").write_text("{"),
            "model.safetensors.index.json cannot be read",
            id="half an index",
        ),
        pytest.param(
            lambda f: shard(f).write_bytes(shard(f).read_bytes()[:40]),
            "is not a safetensors file",
            id="a header cut off",
        ),
        pytest.param(
            lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-1]),
            "is cut off: .* download it again",
            id="the last byte",
        ),
        pytest.param(lambda f: header(f, lambda t: []), "is not a safetensors file", id="a list"),
        pytest.param(
            lambda f: header(f, lambda t: first(t, shape="x")), "is not a safetensors", id="shape"
        ),
        pytest.param(
            lambda f: header(f, lambda t: first(t, dtype="F99")), "header|dtype", id="dtype"
        ),
        pytest.param(
            lambda f: header(f, lambda t: first(t, shape=[1, 1])), ".", id="a shape that is not so"
        ),
        pytest.param(lambda f: edit(f, model_type=7), "'7' is not supported", id="model type"),
        pytest.param(lambda f: edit(f, text_config="x"), ".", id="text_config"),
        pytest.param(lambda f: edit(f, vision_config={"depth": "two"}), ".", id="depth"),
        pytest.param(lambda f: edit(f, attend={"layers": 3}), "layers", id="attend"),
        pytest.param(lambda f: edit(f, architectures=["pipeline"]), None, id="no class"),
        pytest.param(lambda f: edit(f, architectures=3), None, id="no list"),
        pytest.param(
            lambda f: (f / "tokenizer.json").write_text("{}"), ".", id="an empty tokenizer"
        ),
        pytest.param(
            lambda f: (f / "preprocessor_config.json").write_text("nonsense"), ".", id="processor"
        ),
    ],
)
def test_a_damaged_folder_is_one_line(
    folder: Path, spoil: Callable[[Path], object], message: str | None
) -> None:
    spoil(folder)
    if message is None:  # harmless
        mm.load(str(folder), device="cpu", threads=1)
    else:
        import re

        assert re.search(message, refusal(folder))


def test_bytes_changed_anywhere_are_refused_or_harmless(folder: Path) -> None:
    rng = random.Random(3)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    refused = 0
    for count in range(rounds(160)):
        path = files[count % len(files)]
        whole = path.read_bytes()
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(data), 4000))
            data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        path.write_bytes(data)
        try:
            mm.load(str(folder), device="cpu", threads=1)
        except mm.ModelUnavailable as error:
            refused += "\n" not in str(error)
        else:
            refused += 1
        path.write_bytes(whole)
    assert refused == rounds(160)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        pytest.param("awq", "quantised with awq, which needs gptqmodel: pip install", id="AWQ"),
        pytest.param("bitsandbytes", "needs bitsandbytes: pip install bitsandbytes", id="bnb"),
        pytest.param("gptq", "needs gptqmodel", id="GPTQ"),
        pytest.param("compressed-tensors", "needs compressed-tensors", id="compressed"),
    ],
)
def test_a_quantised_checkpoint_says_what_to_install(
    folder: Path, method: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm.local.quantization._installed", lambda package: False)
    edit(folder, quantization_config={"quant_method": method, "bits": 4})
    assert message in refusal(folder)


def test_what_is_quantised_is_not_quantised_again(folder: Path) -> None:
    edit(folder, quantization_config={"quant_method": "awq"})
    with pytest.raises(mm.ModelUnavailable, match=r"quantised already \(awq\): leave out quantize"):
        mm.load(str(folder), device="cpu", quantize="4bit")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("这张图片里有什么" * 40, id="a question of 960 bytes"),
        pytest.param("What letter is on the red square? " * 20, id="a long question"),
        pytest.param("a/" + "b" * 300, id="a long hub id"),
        pytest.param("~nobody-of-that-name/model", id="an unknown user's folder"),
        pytest.param("a\0b", id="a NUL"),
        pytest.param("a/..", id="dots"),
        pytest.param("-a/-b", id="dashes"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_name_that_no_model_can_have_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(mm.ModelUnavailable) as refused:
        mm.load(name)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


LOW, HIGH = 56 * 56, 112 * 112


@pytest.mark.parametrize(
    "size",
    [
        pytest.param({"min_pixels": LOW, "max_pixels": HIGH}, id="only the new keys"),
        pytest.param({"shortest_edge": LOW, "longest_edge": HIGH}, id="only the usual ones"),
    ],
)
def test_an_images_bounds_may_have_either_name(folder: Path, size: dict[str, int]) -> None:
    edit(folder, "preprocessor_config.json", size=size)
    builder = load_builder(str(folder))
    assert builder.visual_tokens((300, 200)) == 12
    assert builder.visual_tokens((2000, 2000)) == HIGH // 28**2


def test_a_size_that_the_family_cannot_read_is_one_line(folder: Path) -> None:
    edit(folder, "preprocessor_config.json", size={"height": 112, "width": 112})
    assert "Qwen2.5-VL needs another size than" in refusal(folder)


def test_a_second_copy_of_the_weights_is_not_counted(folder: Path) -> None:
    before = inspect(folder)
    shutil.copy(shard(folder), folder / "consolidated.safetensors")
    assert inspect(folder) == before


CODE = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}


def test_code_of_its_own_is_asked_for(folder: Path) -> None:
    edit(folder, model_type="own", auto_map=CODE)
    assert "load with trust_remote_code=True" in refusal(folder)
    with pytest.raises(mm.ModelUnavailable, match=r"lacks configuration_own\.py, its model's code"):
        mm.load(str(folder), device="cpu", trust_remote_code=True)


@pytest.mark.parametrize("code", [False, True])
def test_a_hub_checkpoints_code_is_fetched_where_it_is_trusted(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bool
) -> None:
    """A copy without its code is on this machine; with the code it has to be fetched anew."""
    here, asked = Path(shutil.copytree(saved, tmp_path / "here")), []
    edit(here, auto_map=CODE)

    def download(name: str, *, local_files_only: bool = False, **wanted: Any) -> str:
        asked.append((local_files_only, "*.py" in wanted["allow_patterns"]))
        return str(here)

    siblings = [type("Sibling", (), {"rfilename": "model.safetensors"})]
    info = type("Info", (), {"siblings": siblings})
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    assert find("owner/name", code=code) == here
    assert asked == ([(True, True), (False, True)] if code else [(True, False)])


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path, online: Callable[[], object] | None) -> None:
    """A hub whose cache is `folder`; a download calls `online`, and without it fails."""

    def download(name: str, *, local_files_only: bool = False, **_: object) -> str:
        if not local_files_only and online:
            online()
        return str(folder)

    def info(*_: object, **__: object) -> object:
        if online is None:
            raise OSError("no network")
        return type("Info", (), {"siblings": [type("Sibling", (), {"rfilename": "a.safetensors"})]})

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)


@pytest.mark.parametrize(
    "absent",
    [
        pytest.param((), id="whole"),
        pytest.param(("tokenizer.json",), id="no tokenizer"),
        pytest.param(("preprocessor_config.json",), id="no processor"),
        pytest.param(("tokenizer.json", "preprocessor_config.json"), id="config and weights"),
    ],
)
def test_a_half_cached_checkpoint_is_downloaded_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...]
) -> None:
    asked: list[bool] = []
    hub(monkeypatch, folder, lambda: asked.append(True))
    for name in absent:
        (folder / name).unlink()
    assert find("owner/name") == folder
    assert bool(asked) == bool(absent)


def test_offline_a_half_cached_checkpoint_is_taken_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub(monkeypatch, folder, None)
    (folder / "preprocessor_config.json").unlink()
    assert find("owner/name") == folder
    assert "go online, or give a local folder; taking what is here" in caplog.text
    shard(folder).unlink()
    with pytest.raises(mm.ModelUnavailable, match="owner/name is not on this machine"):
        find("owner/name")


@pytest.mark.parametrize("online", [True, False], ids=["nothing more", "not reached"])
@pytest.mark.parametrize(
    ("absent", "times"),
    [
        pytest.param("preprocessor_config.json", 1, id="no processor"),
        pytest.param("tokenizer.json", 1, id="no tokenizer"),
        pytest.param("own.py", 3, id="no code"),
    ],
)
def test_the_hub_is_asked_once_for_what_it_may_not_have(
    folder: Path, monkeypatch: pytest.MonkeyPatch, online: bool, absent: str, times: int
) -> None:
    asked: list[bool] = []

    def answer() -> None:
        asked.append(True)
        if not online:
            raise OSError("no network")

    hub(monkeypatch, folder, answer)
    edit(folder, auto_map={"AutoConfig": "own.OwnConfig"})
    (folder / "own.py").write_text("")
    (folder / absent).unlink()
    assert [find("owner/name", code=True) for _ in range(3)] == [folder] * 3
    assert len(asked) == times


def test_a_machine_that_is_kept_offline_takes_what_is_here_in_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub(monkeypatch, folder, lambda: pytest.fail("the hub is asked"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "preprocessor_config.json").unlink()
    assert find("owner/name") == folder
    assert not caplog.records


def test_a_cached_checkpoint_is_inspected_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counting(path: Path) -> dict[str, Any]:
        read.append(path)
        return safetensors_header(path)

    hub(monkeypatch, folder, None)
    monkeypatch.setattr("mm.local.checkpoints.safetensors_header", counting)
    (folder / "tokenizer.json").unlink()
    assert find("owner/name") == folder
    assert sorted(read) == sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("weights", [True, False])
def test_a_cached_adapter_has_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bool
) -> None:
    asked: list[bool] = []
    hub(monkeypatch, tmp_path, lambda: asked.append(True))
    (tmp_path / "adapter_config.json").write_text("{}")
    if weights:
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert find("owner/name") == tmp_path
    assert bool(asked) != weights


def test_whole_weights_count_before_an_index_that_is_left(tmp_path: Path) -> None:
    tiny = FAMILIES["qwen2_5_vl"]()
    tiny.model.save_pretrained(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    assert inspect(tmp_path).parameters == sum(p.numel() for p in tiny.model.parameters())


OWN = """
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

class OwnConfig(Qwen2_5_VLConfig):
    model_type = "own"

class Own(Qwen2_5_VLForConditionalGeneration):
    config_class = OwnConfig

class Other(Own):
    pass
"""


@pytest.mark.parametrize("name", ANSWERING)
def test_code_of_its_own_answers_under_any_name(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "own"))
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    shutil.rmtree(folder)
    FAMILIES["qwen2_5_vl"]().model.config.save_pretrained(folder)
    weights = FAMILIES["qwen2_5_vl"]().model.state_dict()
    save_file({k: v.clone() for k, v in weights.items()}, folder / "model.safetensors")
    (folder / "own.py").write_text(OWN)
    names = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Other", name: "own.Own"}
    edit(folder, model_type="own", architectures=["Own"], auto_map=names)
    placement = Placement(torch.device("cpu"), torch.float32)
    model = read_weights(inspect(folder), placement, trust_remote_code=True)
    assert type(model).__name__ == "Own"


def test_code_that_names_no_class_that_answers_is_refused_at_once(folder: Path) -> None:
    (folder / "own.py").write_text(OWN)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForMaskedLM": "own.Own"}
    edit(folder, model_type="own", auto_map=names)
    with pytest.raises(
        mm.ModelUnavailable, match="names no class that answers: auto_map in config"
    ):
        mm.load(str(folder), device="cpu", trust_remote_code=True)


def test_the_files_of_a_checkpoints_code_are_those_of_its_own() -> None:
    elsewhere = {"AutoModel": "other/repo--modeling.Model", "AutoTokenizer": ["tok.Tok", None]}
    assert code_files({"auto_map": CODE}) == {"configuration_own.py", "modeling_own.py"}
    assert code_files({"auto_map": elsewhere}) == code_files({"auto_map": 3}) == set()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks4://127.0.0.1:9", "http://a:b:c"])
def test_a_proxy_that_the_hub_cannot_be_asked_through_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: str
) -> None:
    for name in ("all_proxy", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    close_session()  # made again, as a fresh process would
    try:
        with pytest.raises(ModelUnavailable, match=r"ALL_PROXY.*cannot be used: unset it$"):
            find("owner/name")
    finally:
        close_session()

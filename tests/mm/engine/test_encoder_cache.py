"""An image is encoded once for all adapters that leave the encoder as it is, and for no other."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from images import noise
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from tiny_models import FAMILIES

from mm.engine.encoder_cache import EncoderCache
from mm.engine.engine import Engine
from mm.engine.model_runner import ModelRunner
from mm.engine.prefix_cache import PrefixCache
from mm.engine.prompt import Prompt
from mm.engine.request import Request, RequestOptions
from mm.engine.vision_encoder import changes_features, encode
from mm.tokens.sequence import Tokens
from mm.types import Sampling, user

DECODER = r".*(language_model|text_model)\..*q_proj"
TOWER = r".*(visual|vision_tower|vision_model)\..*(qkv|q_proj)"
WORDS = r".*(language_model|text_model)\.(.*q_proj|embed_tokens)|lm_head"
BESIDE = {"qwen": "merger", "idefics3": "connector", "smolvlm": "connector"}
"""What stands between the encoder and the decoder, by how the family's name begins."""


def with_lora(family: str, **adapters: dict[str, Any]) -> PeftModel:
    """A family's tiny model with adapters that change what they are on."""
    torch.manual_seed(1)
    configs = {n: LoraConfig(r=2, init_lora_weights=False, **how) for n, how in adapters.items()}
    (first, config), *others = configs.items()
    model = get_peft_model(deepcopy(FAMILIES[family]().model), config, adapter_name=first)
    for name, config in others:
        model.add_adapter(name, config)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def beside(family: str) -> str:
    found = (name for start, name in BESIDE.items() if family.startswith(start))
    return next(found, "multi_modal_projector")


def changing(model: PeftModel) -> set[str]:
    """The adapters that are found to change features."""
    return {name for name in model.peft_config if changes_features(model.get_base_model(), name)}


def whole(*modules: str) -> dict[str, Any]:
    return {"target_modules": DECODER, "modules_to_save": list(modules)}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_changes_features_only_from_before_the_decoder(family: str) -> None:
    on_layers = with_lora(
        family,
        decoder={"target_modules": DECODER},
        words={"target_modules": WORDS},
        tower={"target_modules": TOWER},
        both={"target_modules": f"{DECODER}|{TOWER}"},
    )
    saved = with_lora(family, ends=whole("embed_tokens", "lm_head"), beside=whole(beside(family)))
    assert changing(on_layers) == {"tower", "both"}
    assert changing(saved) == {"beside"}


def test_a_decoder_that_encodes_images_too_is_told_from_nothing(monkeypatch) -> None:
    model = with_lora("qwen3_vl", decoder={"target_modules": DECODER})
    base: Any = model.get_base_model()
    monkeypatch.setattr(base, "get_decoder", lambda: base.model)
    assert changing(model) == {"decoder"}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_image_enters_the_language_model_to_be_encoded(family: str) -> None:
    tiny, entered = FAMILIES[family](), []
    (span,) = tiny.builder.build((user(noise(1)),)).images
    parts = (tiny.model.get_decoder(), tiny.model.get_input_embeddings(), tiny.model.lm_head)
    hooks = [
        module.register_forward_pre_hook(lambda *_: entered.append(1))
        for part in parts
        for module in part.modules()
    ]
    with torch.inference_mode():
        encode(tiny.model, span.process())
        assert not entered
        tiny.model.get_input_embeddings()(torch.tensor([0]))
    assert entered  # so the hooks are there
    for hook in hooks:
        hook.remove()


ADAPTERS: dict[str, dict[str, Any]] = {
    "verifier": {"target_modules": DECODER},
    "tower": {"target_modules": TOWER},
    "beside": whole("merger"),
}


def paid(engine: Engine, tokens: Tokens, adapter: str | None) -> int:
    """How many patches are encoded to answer."""
    return engine.generate(
        tokens, Sampling(max_tokens=2), RequestOptions(adapter=adapter)
    ).cost.patches


@pytest.mark.parametrize(
    ("asked", "pays"),
    [
        pytest.param((None, "verifier"), (True, False), id="reasoner, then verifier"),
        pytest.param(("verifier", None), (True, False), id="verifier, then reasoner"),
        pytest.param((None, "tower", None), (True, True, False), id="on the tower"),
        pytest.param(("tower", "verifier"), (True, True), id="reasoner on the tower"),
        pytest.param(("beside", "verifier", "beside"), (True, True, False), id="a module whole"),
    ],
)
def test_an_image_is_paid_for_once_where_it_is_encoded_alike(asked, pays) -> None:
    model, builder = with_lora("qwen3_vl", **ADAPTERS), FAMILIES["qwen3_vl"]().builder
    engine = Engine(model, builder)
    tokens = builder.build((user("what letter?", noise(1)),))
    patches = sum(span.patches for span in tokens.images)
    assert [paid(engine, tokens, each) for each in asked] == [patches * each for each in pays]
    for adapter in asked:
        alone = Engine(model, builder).next_logits(tokens, adapter=adapter)
        assert (engine.next_logits(tokens, adapter=adapter) - alone).abs().max() < 1e-5


def test_features_that_differ_are_not_mixed_up() -> None:
    """On one prompt the adapters say different things, so equal answers would show nothing else."""
    model, builder = with_lora("qwen3_vl", **ADAPTERS), FAMILIES["qwen3_vl"]().builder
    engine, tokens = Engine(model, builder), builder.build((user(noise(1)),))
    logits = [engine.next_logits(tokens, adapter=each) for each in (None, *ADAPTERS)]
    apart = [(a - b).abs().max() for i, a in enumerate(logits) for b in logits[:i]]
    assert min(apart) > 1e-3


def prompt(runner: ModelRunner, adapter: str | None, *images: int) -> Prompt:
    tokens = runner.builder.build((user(*map(noise, images)),))
    for span in tokens.images:
        span.process()
    return Prompt.of(Request(tokens, RequestOptions(adapter=adapter), Sampling()))


@torch.inference_mode()
def test_prompts_of_adapters_that_encode_alike_share_a_pass() -> None:
    tiny = FAMILIES["qwen3_vl"]()
    runner = ModelRunner(with_lora("qwen3_vl", **ADAPTERS), tiny.builder)
    cache = EncoderCache(runner, PrefixCache(2**20), 2**26)
    first, verifier, other = (prompt(runner, name, 1, 2) for name in (None, "verifier", "tower"))
    with runner.using(None):
        cache.encode(first, 0, len(first.tokens.ids), [first, verifier, other], 10_000)
    assert (verifier.patches, other.features) == (0, {})
    assert verifier.features == first.features != {}
    assert [cache.holds(first.tokens.images[0], n) for n in ("verifier", "tower")] == [True, False]


def test_no_question_walks_the_weights_for_what_an_adapter_changes(monkeypatch) -> None:
    """The engine's thread may be adding weights meanwhile."""
    runner = ModelRunner(with_lora("qwen3_vl", **ADAPTERS), FAMILIES["qwen3_vl"]().builder)
    cache = EncoderCache(runner, PrefixCache(2**20), 2**26)
    (span,) = runner.builder.build((user(noise(1)),)).images
    monkeypatch.setattr(runner.model, "named_parameters", None)
    asked = (None, *ADAPTERS, "unknown")
    assert not any(cache.holds(span, adapter) for adapter in asked)
    changing = [runner.changes_images(adapter) for adapter in asked]
    assert changing == [False, False, True, True, True]


def test_layers_are_switched_only_where_they_answer_otherwise(monkeypatch) -> None:
    model: Any = with_lora("qwen3_vl", **ADAPTERS)
    runner, calls = ModelRunner(model, FAMILIES["qwen3_vl"]().builder), []
    peft_sets = model.set_adapter
    monkeypatch.setattr(model, "set_adapter", lambda name: (calls.append(name), peft_sets(name)))
    monkeypatch.setattr(model, "disable_adapter", None)  # it walks all modules
    for adapter in ("tower", None, "tower", "beside", "beside", None, "tower"):
        with runner.using(adapter):
            pass
    assert calls == ["tower", "beside", "tower"]
    peft_sets("verifier")  # as another's code may
    with runner.using("tower"):
        assert model.active_adapter == "tower"


def test_without_an_adapter_layers_are_off_until_the_end_even_of_an_error() -> None:
    model = with_lora("qwen3_vl", **ADAPTERS)
    runner = ModelRunner(model, FAMILIES["qwen3_vl"]().builder)
    layers = [m for m in model.modules() if isinstance(m, LoraLayer | ModulesToSaveWrapper)]
    seen = []

    def fails() -> None:
        with runner.using(None):
            with runner.using(None):
                pass
            seen.extend(layer.disable_adapters for layer in layers)
            raise ZeroDivisionError

    before = [layer.disable_adapters for layer in layers]
    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [True] * len(layers)
    assert [layer.disable_adapters for layer in layers] == before != seen


def test_an_adapter_in_anothers_place_has_its_own_features_once_caches_are_cleared() -> None:
    model, builder = with_lora("qwen3_vl", **ADAPTERS), FAMILIES["qwen3_vl"]().builder
    engine, tokens = Engine(model, builder), builder.build((user(noise(1)),))
    assert [paid(engine, tokens, each) > 0 for each in (None, "verifier")] == [True, False]
    model.delete_adapter("verifier")
    model.add_adapter("verifier", LoraConfig(r=2, init_lora_weights=False, target_modules=TOWER))
    model.eval()
    engine.clear_caches()
    assert [paid(engine, tokens, each) > 0 for each in (None, "verifier")] == [True, True]

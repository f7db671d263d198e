"""The engine beside `transformers serve`: one tiny LLaVA-NeXT, many users.

transformers serves images one request after the other. LLaVA-NeXT is the family it can serve
where there is no torchvision; its decoder has the size of `tiny`'s, its weights are random.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mm
from mm.errors import ModelError, ModelUnavailable
from mm.local.hf_vlm import HFVLM
from mm.remote.http_client import Client, RetryPolicy
from mm.remote.openai_format import MessageFormat
from mm.types import Conversation, user

from .engine_speed import QUESTION, Load, asked, endless
from .measure import Measured, alternate, seconds

_START_S = 120.0
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TILE, _PATCH = 64, 16


def available() -> bool:
    """Whether `transformers serve` can run here."""
    from transformers.utils.import_utils import is_serve_available

    return is_serve_available()


def users_served(
    load: Load, clients: int, *, device: str = "cpu", dtype: str = "float32"
) -> Measured:
    """Answers per second of the engine in this process, against the server's, for `clients` users.

    Each has an image of its own, as PNG, and a thread to ask with. Both sides have as many threads
    for their matrices as torch has here, and write replies of equal length.
    """
    import torch

    threads = torch.get_num_threads()
    with TemporaryDirectory() as made:
        folder = Path(made)
        save_llava(folder)
        with serving(folder, threads=threads, device=device, dtype=dtype) as client:
            vlm = mm.load(made, device=device, dtype=dtype, threads=threads)
            return beside(client, vlm, load, clients)


def beside(client: Client, vlm: mm.VLM, load: Load, clients: int) -> Measured:
    """The engine of `vlm` and the server that `client` speaks to, which serves the same folder."""
    assert isinstance(vlm, HFVLM)
    with endless(vlm):
        return alternate(
            f"{clients} users, answers per second, against serve",
            "answers/s",
            partial(_rate, _ours(vlm, load), clients),
            partial(_rate, _theirs(vlm, load, client), clients),
            rounds=load.rounds,
            smaller=False,
        )


Prepare = Callable[[Conversation], Callable[[], object]]
"""Makes, from what a user asks, the call that gets the answer."""


def _rate(prepare: Prepare, clients: int, number: int) -> float:
    calls = [prepare(asked(number, k)) for k in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        whole = seconds(lambda: list(pool.map(lambda call: call(), calls)))
    return clients / whole


def _ours(vlm: HFVLM, load: Load) -> Prepare:
    def prepare(conversation: Conversation) -> Callable[[], object]:
        file = io.BytesIO()
        conversation[0].images[0].pixels.save(file, "PNG")
        return partial(answer, file)

    def answer(file: io.BytesIO) -> None:
        import PIL.Image

        image = mm.Image(PIL.Image.open(file).convert("RGB"))
        (said,) = vlm.generate([(user(image, QUESTION),)], load.sampling)
        _check("ours", said.cost.generated_tokens, load.reply_tokens)

    return prepare


def _theirs(vlm: HFVLM, load: Load, client: Client) -> Prepare:
    def prepare(conversation: Conversation) -> Callable[[], object]:
        body = {
            "model": vlm.name,
            "messages": MessageFormat().messages(conversation),
            "max_tokens": load.reply_tokens,
            "temperature": 0.0,
        }
        return partial(answer, body, len(vlm.builder.build(conversation).ids))

    def answer(body: dict[str, Any], prompt: int) -> None:
        usage = client.post("chat/completions", body)["usage"]
        _check("theirs", usage["completion_tokens"], load.reply_tokens)
        _check("their prompt", usage["prompt_tokens"], prompt)

    return prepare


def _check(whose: str, tokens: int, expected: int) -> None:
    if tokens != expected:
        raise RuntimeError(f"{whose}: {tokens} tokens instead of {expected}; nothing to compare")


def save_llava(folder: Path) -> None:
    """Write a LLaVA-NeXT checkpoint of random weights: `tiny`'s sizes and tokenizer, no end token
    in its generation config, so that every reply is as long as it may be."""
    import torch
    from transformers import AutoTokenizer, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next import LlavaNextImageProcessorPil

    from mm.local.checkpoints import find

    tokenizer = AutoTokenizer.from_pretrained(find("tiny"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = _TEMPLATE
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": _TILE},
        crop_size={"height": _TILE, "width": _TILE},
        image_grid_pinpoints=_grids(),
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(_config(tokenizer))
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        chat_template=_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def _grids() -> list[list[int]]:
    return [[_TILE, 2 * _TILE], [2 * _TILE, _TILE], [2 * _TILE, 2 * _TILE]]


def _config(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlavaNextConfig, MistralConfig

    tower = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=_TILE,
        patch_size=_PATCH,
    )
    decoder = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlavaNextConfig(
        vision_config=tower.to_dict(),
        text_config=decoder.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=_grids(),
        image_seq_length=(_TILE // _PATCH) ** 2,
        tie_word_embeddings=False,
    )


@contextmanager
def serving(
    folder: Path, *, threads: int = 1, device: str = "cpu", dtype: str = "float32"
) -> Iterator[Client]:
    """A `transformers serve` process with the checkpoint in `folder`, on loopback, while it lasts.

    Args:
        threads: of its processor; it takes no more for its matrices.

    Raises:
        ModelUnavailable: it does not start, or not within two minutes.
    """
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--device", device, "--dtype", dtype, "--port"]
    with running(command, folder / "serve.log", threads=threads) as client:
        yield client


@contextmanager
def running(command: Sequence[str], log: Path, *, threads: int = 1) -> Iterator[Client]:
    """A server on loopback while it lasts: `command`, to whose end a free port is put.

    Args:
        log: what it says.
        threads: of its processor.

    Raises:
        ModelUnavailable: it does not start, or not within two minutes.
    """
    port = _free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen([*command, str(port)], env=environment, stdout=said, stderr=said)
    try:
        client = Client(
            f"http://localhost:{port}/v1", patience=RetryPolicy(silence_s=60, retries=0)
        )
        _await(process, client, log)
        yield client
    finally:
        process.terminate()
        process.wait()


def _await(process: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    ends = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < ends:
        try:
            client.get("../health")
            return
        except ModelError:
            time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = (lines or ["it says nothing"])[-1]
    raise ModelUnavailable(f"the server does not start: {last}")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]

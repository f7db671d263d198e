"""`tiny` behind an OpenAI-compatible server, by transformers alone: its own chat template, image
processor and `generate`, none of this project's code.

python tests/tiny_server.py FOLDER PORT
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

IMAGE = "<|image_pad|>"


class Served:
    """A checkpoint that answers requests, one after the other."""

    def __init__(self, folder: str) -> None:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.model: Any = model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> tuple[list[int], list[float], int]:
        """The ids that the model writes, their log-probabilities, and the prompt's length."""
        messages, images = _opened(body["messages"])
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        inputs: dict[str, Any] = {}
        if images:
            seen = self.processor(images=images, return_tensors="pt")
            inputs |= dict(seen)
            merged = self.processor.merge_size**2
            for grid in seen["image_grid_thw"]:
                text = text.replace(IMAGE, "<|image|>" * (int(grid.prod()) // merged), 1)
            text = text.replace("<|image|>", IMAGE)
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with self.lock, torch.inference_mode():
            found = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
                max_new_tokens=body.get("max_tokens", 256),
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                **inputs,
            )
        new = found.sequences[0, ids.shape[1] :].tolist()
        logprobs = [
            row[0].float().log_softmax(-1)[i].item()
            for row, i in zip(found.logits, new, strict=True)
        ]
        return new, logprobs, ids.shape[1]


def _opened(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """The messages with an image in place of each address, and the images."""
    images: list[Image.Image] = []
    written = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [_part(part, images) for part in content]
        written.append({**message, "content": content})
    return written, images


def _part(part: dict[str, Any], images: list[Image.Image]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return part
    data = part["image_url"]["url"].split(",", 1)[1]
    images.append(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    return {"type": "image"}


def _chunks(served: Served, body: dict[str, Any]) -> Iterator[str]:
    ids, logprobs, asked = served.reply(body)
    ended = bool(ids) and ids[-1] == served.model.generation_config.eos_token_id
    words = ids[:-1] if ended else ids
    tokens = [
        {"token": served.tokenizer.decode([i]), "logprob": p}
        for i, p in zip(words, logprobs, strict=False)
    ]
    choice = {
        "index": 0,
        "delta": {"content": served.tokenizer.decode(words)},
        "logprobs": {"content": tokens},
        "finish_reason": "stop" if ended else "length",
    }
    usage = {"prompt_tokens": asked, "completion_tokens": len(ids)}
    yield f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def app(folder: str) -> FastAPI:
    """The server's routes."""
    served, made = Served(folder), FastAPI()

    @made.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @made.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": "tiny", "object": "model"}]}

    @made.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(_chunks(served, body), media_type="text/event-stream")

    return made


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")

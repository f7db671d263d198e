"""The processor of a checkpoint of an unlisted family."""

from __future__ import annotations

from typing import Any

from mm.errors import ModelUnavailable, first_line, no_panic
from mm.tokens.composed_processor import compose_processor
from mm.tokens.processor_parts import read_processor_parts


def read_processor(folder: str, *, name: str = "", trust_remote_code: bool = False) -> Any:
    """The processor of the checkpoint in `folder`, which has a chat template.

    Raises:
        ModelUnavailable: it cannot be made here, takes no text, or has no chat template.
    """
    name = name or folder
    processor = _made(folder, name, trust_remote_code)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ModelUnavailable(f"{name}: its processor takes no text: choose another checkpoint")
    # older code of a checkpoint's own leaves the template with the tokenizer
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    processor.chat_template = template
    if template_of(processor) is None:
        raise ModelUnavailable(
            f"{name} has no chat template, so nothing says how it is asked: choose a checkpoint "
            "that was tuned to follow instructions, or put chat_template.jinja in its folder"
        )
    return processor


def template_of(processor: Any) -> str | None:
    """The chat template that a processor uses; None where it has none."""
    template = getattr(processor, "chat_template", None)
    return template.get("default") if isinstance(template, dict) else template


@no_panic()
def _made(folder: str, name: str, trust_remote_code: bool) -> Any:
    """The processor's own class over tokenizer and image processor; else what transformers makes.

    The first needs no torchvision; the second is for checkpoints with code of their own.
    """
    kw = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        return compose_processor(folder, read_processor_parts(folder, **kw))
    except Exception as error:  # which one depends on what the processor is made of
        composing = error
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, **kw)
    except Exception as error:
        why = first_line(composing if isinstance(composing, ImportError | OSError) else error)
        raise ModelUnavailable(f"{name}: its processor cannot be made: {why}") from error

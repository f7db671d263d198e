"""TRL's own way to train on images: its collator over a processor, batches of so many rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from transformers.processing_utils import ProcessorMixin
from trl.trainer.sft_trainer import SFTTrainer

from mm.tokens.builder import TokenBuilder
from training.data.readers import read_records


class QwenProcessor(ProcessorMixin):
    """Qwen's processor without videos, for which transformers' own needs torchvision."""

    return_mm_token_type_ids = True

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        """What a batch holds: the tokens' kinds too, which mrope needs."""
        return [*super().model_input_names, "mm_token_type_ids"]

    def replace_image_token(
        self, image_inputs: Mapping[str, Any], image_idx: int, **kw: Any
    ) -> str:
        """As many placeholders as the image has visual tokens."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)


def stock_trainer(model: Any, args: Any, rows: Path, builder: TokenBuilder) -> SFTTrainer:
    """TRL's trainer of `model` on a JSONL file of native rows; what the assistant says trains."""
    tokenizer = builder.tokenizer
    processor = QwenProcessor(builder.image_processor, tokenizer, tokenizer.chat_template)
    return SFTTrainer(model, args, train_dataset=stock_rows(rows), processing_class=processor)


def stock_rows(path: Path) -> Dataset:
    """Native rows as TRL reads them, their images opened when they are asked for."""
    rows = [
        {
            "messages": record.fields["messages"],
            "images": [str(path.parent / name) for name in record.fields["images"]],
        }
        for record in read_records(path)
    ]
    text = Value("string")
    messages = List({"role": text, "content": List({"type": text, "text": text})})
    return Dataset.from_list(rows, Features({"messages": messages, "images": List(Image())}))

"""A checkpoint's own processor class over the parts that images and text need.

transformers makes no processor whose video processor is missing, and all of those need torchvision.
Here the class's own code expands the placeholders, numbers the images and types the tokens; what
it has beside tokenizer and image processor is left out, since only videos and sound need it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .processor_parts import ProcessorParts

_NEEDED = ("tokenizer", "image_processor")


class _Absent:
    """Stands where a processor of videos or sound would; every setting of it is None."""

    model_input_names = ()

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def compose_processor(folder: str, parts: ProcessorParts) -> Any:
    """The processor that the checkpoint in `folder` names, over `parts`.

    Raises:
        ValueError: transformers has no processor for its model type, or one that needs more than a
            tokenizer and an image processor.
    """
    processor_class = _without_checks(_class_for(parts.config.model_type))
    others = [name for name in processor_class.get_attributes() if name not in _NEEDED]
    if more := [name for name in others if "tokenizer" in name]:
        raise ValueError(f"its processor also needs {more[0]}")
    made = {"tokenizer": parts.tokenizer, "image_processor": parts.image_processor}
    settings, _ = processor_class.get_processor_dict(folder, local_files_only=True)
    arguments = [made.get(name) or _Absent() for name in processor_class.get_attributes()]
    processor = processor_class.from_args_and_dict(arguments, settings)
    processor.chat_template = processor.chat_template or parts.tokenizer.chat_template
    return processor


def _without_checks(processor_class: Any) -> Any:
    """A class of the same name that takes an `_Absent` for any of its parts."""
    changes = {
        "check_argument_for_proper_class": lambda _, name, argument: type(argument),
        "__repr__": object.__repr__,  # its own writes all of its parts as JSON
    }
    return type(processor_class.__name__, (processor_class,), changes)


def _class_for(model_type: str) -> Any:
    from transformers.models.auto import processing_auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    names: dict[str, str | None] = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    name = names.get(model_type)
    if name is None:
        raise ValueError(f"transformers has no processor for model type {model_type!r}")
    users = [key for key, theirs in names.items() if theirs == name]
    for module in map(model_type_to_module_name, [model_type, *users]):
        if found := getattr(_processing(module), name, None):
            return found
    raise ValueError(f"transformers has no {name}")


def _processing(module: str) -> Any:
    """transformers' module of a model's processor; None where there is none of that name."""
    package = f"transformers.models.{module}"
    try:
        with _pil_in_place_of_torchvision(package, module):
            return importlib.import_module(f"{package}.processing_{module}")
    except ModuleNotFoundError as error:
        if "torchvision" in str(error):
            raise
        return None


@contextmanager
def _pil_in_place_of_torchvision(package: str, module: str) -> Iterator[None]:
    """Let `processing_*` import its helpers from the image processor that does without torchvision.

    PixtralProcessor takes a function from the other one, whose import fails.
    """
    name = f"{package}.image_processing_{module}"
    try:
        importlib.import_module(name)
    except ImportError:
        try:
            stand_in = importlib.import_module(f"{package}.image_processing_pil_{module}")
        except ImportError:
            yield
            return
        sys.modules[name] = stand_in
        try:
            yield
        finally:
            del sys.modules[name]
    else:
        yield

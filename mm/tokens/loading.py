"""Finds what a token builder is made of: a checkpoint's tokenizer, processor and chat template."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from mm.errors import no_panic
from mm.families.image_budgets import ImageBudgets, shortfall
from mm.families.registry import Family, family_of, traits_of
from mm.types import Sampling, user

from .builder import TokenBuilder
from .processor_parts import read_processor_parts
from .tokenizer import SafeTokenizer

log = logging.getLogger(__name__)

_PROBE = "What is here?"


@no_panic()
def load_builder(
    folder_or_id: str,
    *,
    config: Any = None,
    budgets: ImageBudgets = ImageBudgets(),
    **kw: Any,
) -> TokenBuilder:
    """The builder of a checkpoint, composed of its tokenizer and image processor.

    Its `AutoProcessor` is never made, because several of those need torchvision. `kw` goes to
    transformers' `from_pretrained` (`revision`, `local_files_only`, `token`, ...). Where images
    cannot come near to `budgets`, a warning says what is nearest.

    Raises:
        ValueError: its family is not listed, or its tokenizer lacks a token the family needs.
        OSError: there is no such checkpoint.
    """
    found = read_processor_parts(folder_or_id, config=config, **kw)
    family = family_of(found.config.model_type)
    if family is None:
        raise ValueError(f"{folder_or_id}: no family is known for type {found.config.model_type!r}")
    builder = compose(
        family,
        found.config,
        found.tokenizer,
        found.image_processor,
        end_ids=found.end_ids,
        sampling=found.sampling,
        budgets=budgets,
    )
    _check_sizes(builder)
    for line in shortfall(builder.image_processing.layout, budgets):
        log.warning("%s: %s", family.name, line)
    return builder


def compose(
    family: Family,
    config: Any,
    tokenizer: Any,
    image_processor: Any,
    *,
    end_ids: Iterable[int] = (),
    sampling: Sampling | None = None,
    budgets: ImageBudgets = ImageBudgets(),
) -> TokenBuilder:
    """A builder from its parts, with the family's template that writes what the tokenizer's does.

    Raises:
        ValueError: the tokenizer lacks a token the family needs.
    """
    make = partial(
        TokenBuilder,
        family,
        config=config,
        tokenizer=tokenizer,
        image_processor=image_processor,
        end_ids=frozenset(end_ids),
        traits=replace(
            traits_of(family, config), sampling=sampling, budgets=tuple(budgets.given.items())
        ),
        safe_tokenizer=SafeTokenizer(tokenizer, family.placeholder, family.markers),
        budgets=budgets,
    )
    if not tokenizer.chat_template:
        return make()
    theirs = _prompts(tokenizer)
    for template in family.templates:
        with suppress(ValueError):  # a template whose tokens this tokenizer lacks
            builder = make(template=template)
            if _bare(builder.build([user(_PROBE)]).ids, tokenizer) in theirs:
                return builder
    log.warning("%s: unknown chat template; using the family's usual one", family.name)
    return make()


def _check_sizes(builder: TokenBuilder) -> None:
    """Refuse an image processor whose settings its family cannot read.

    Raises:
        ValueError: it has none of the sizes that the family needs.
    """
    try:
        builder.visual_tokens((640, 480))
    except (AttributeError, KeyError, TypeError) as error:
        size = getattr(builder.image_processor, "size", None)
        raise ValueError(
            f"the image processor of {builder.family.name} needs another size than {size} in "
            "preprocessor_config.json"
        ) from error


def _prompts(tokenizer: Any) -> list[list[int]]:
    """The probe as the tokenizer's own chat template asks it, given as blocks and as a string: some
    templates take only one of them, and then raise, or write something else, for the other."""
    found = []
    for content in ([{"type": "text", "text": _PROBE}], _PROBE):
        said = [{"role": "user", "content": content}]
        with suppress(Exception):  # a template's author may raise anything
            text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            found.append(_bare(tokenizer(text, add_special_tokens=False).input_ids, tokenizer))
    return found


def _bare(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """`ids` without the token that the tokenizer may put first."""
    return list(ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids)

"""Finds a model on an OpenAI-compatible server, and what is known of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError, ModelUnavailable, first_line
from mm.families.registry import FAMILIES, Family
from mm.types import Sampling, user
from mm.vlm import Traits

from .http_client import Client, RetryPolicy
from .openai_format import MessageFormat, Show, Tools, data_uri
from .remote_vlm import RemoteVLM
from .responses import Json

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

BASE_URL = "http://localhost:8000/v1"

_OTHER_NAMES = {"llavav16": "llavanext"}  # names of checkpoints that are no model type


def connect(
    name: str = "",
    *,
    base_url: str = BASE_URL,
    key: str | None = None,
    processor: str | None = None,
    traits: Traits | None = None,
    tools: Tools = "text",
    extra: Mapping[str, Any] | None = None,
    show: Show = data_uri,
    deadline: float | None = None,
    patience: RetryPolicy = RetryPolicy(),
) -> RemoteVLM:
    """The model called `name` on the server at `base_url`, found and ready to answer.

    Args:
        name: as the server calls it; "" for the only one it serves.
        key: None takes OPENAI_API_KEY from the environment, if it is there.
        processor: a folder or hub id with the checkpoint's config, tokenizer and image processor,
            of which no weights are loaded: it says what images cost and at what size they are seen.
        traits: how the model wants to be used; None takes those of the family that `processor`, or
            the served model's name, belongs to.
        extra: fields for every request, such as `top_k`, or `mm_processor_kwargs` of vLLM.
        show: from an image to the address where the server finds it.
        deadline: seconds after which a request fails with `DeadlineExceeded`.

    Raises:
        ModelUnavailable: the server cannot be reached, wants a key, or has no such model.
    """
    key = os.environ.get("OPENAI_API_KEY") if key is None else key
    client = Client(base_url, key=key, patience=patience)
    served = served_by(client)
    name = name or _only(served, client)
    builder = _builder(processor) if processor else None
    root = str(served.get(name, {}).get("root") or "")
    family = builder.family if builder else family_named(name) or family_named(root)
    vlm = RemoteVLM(
        name,
        client,
        traits=traits or _traits(builder, family),
        message_format=_message_format(family, tools, show),
        family=family,
        builder=builder,
        extra=extra,
        deadline=deadline,
    )
    if name not in served:
        _probe(vlm, served)
    return vlm


def family_named(name: str) -> Family | None:
    """The family that a checkpoint's name contains ("Qwen/Qwen3-VL-8B-Instruct"); else None."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for other, usual in _OTHER_NAMES.items():
        plain = plain.replace(other, usual)
    spelt = [(t.replace("_", ""), f) for f in FAMILIES for t in f.model_types]
    return next((family for name, family in spelt if name in plain), None)


def served_by(client: Client) -> dict[str, Json]:
    """What the server lists as its models, by name; empty where it lists none.

    Raises:
        ModelUnavailable: it cannot be reached, or wants a key.
    """
    try:
        listed = client.get("models")
    except ModelUnavailable:
        raise
    except ModelError:  # transformers serve fails where the hub's cache is empty
        return {}
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = [m for m in entries if isinstance(m, dict)] if isinstance(entries, list) else []
    return {m["id"]: m for m in models if isinstance(m.get("id"), str)}


def _only(served: Mapping[str, Json], client: Client) -> str:
    if len(served) != 1:
        what = f"serves {', '.join(served)}" if served else "does not say what it serves"
        raise ModelUnavailable(f"{client.base_url} {what}: name the model")
    return next(iter(served))


def _probe(vlm: RemoteVLM, served: Mapping[str, Json]) -> None:
    """Ask a model that the server does not list for a token: it may serve it all the same."""
    try:
        vlm.generate([(user("Hi"),)], Sampling(max_tokens=1))
    except ModelError as error:
        listed = f"; it lists {', '.join(served)}" if served else ""
        raise ModelUnavailable(f"no model {vlm.name!r} there: {error}{listed}") from error


AT_ONCE = 8
"""How many draws of one question a server is sent at a time, whatever is known of its model."""


def _builder(processor: str) -> TokenBuilder:
    from mm.tokens.loading import load_builder

    try:
        return load_builder(processor)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"processor {processor}: {first_line(error)}") from error


def _traits(builder: TokenBuilder | None, family: Family | None) -> Traits:
    """Those of the checkpoint, else of its family; a server shows neither attention nor memory."""
    if builder:
        return replace(builder.traits, aim=None, memory=None, at_once=AT_ONCE)
    if family is None:
        return Traits(calls_tools=False, at_once=AT_ONCE)
    return Traits(family.box_format, calls_tools=family.calls_tools, at_once=AT_ONCE)


def _message_format(family: Family | None, tools: Tools, show: Show) -> MessageFormat:
    if family is None:
        return MessageFormat(tools, show=show)
    turns = family.templates
    written = [p for t in turns for p in (t.begin, *(t.system or ()), *t.user, *t.assistant)]
    spelt = {family.placeholder, *family.markers, *re.findall(r"<[^<>\s]+>", " ".join(written))}
    spelt.discard("<think>")  # the template writes it, and users may
    controls = re.compile("|".join([r"<\|[\w-]+\|>", *map(re.escape, sorted(spelt))]))
    return MessageFormat(tools, turns[0].alternates, controls, show=show)

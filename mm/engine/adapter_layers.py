"""Which adapter the layers that peft put into a model answer with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .vision_encoder import changes_features

State = list[tuple[bool, tuple[str, ...]]]
"""Of each layer, whether it is switched off, and the adapters that it answers with."""


class AdapterLayers:
    """peft's layers in `adapted`, found once: peft itself walks all modules for each switch.

    Attributes:
        changes: for each adapter, whether images may become other features with it. Never written
            again, so any thread may read it.
    """

    def __init__(self, adapted: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
        model = adapted.get_base_model()
        self._adapted = adapted
        self._layers = [module for module in adapted.modules() if isinstance(module, kinds)]
        self._states: dict[str, State] = {}
        self.changes = {name: changes_features(model, name) for name in adapted.peft_config}

    @property
    def stale(self) -> bool:
        """Whether the model has other adapters by now than were found on it."""
        return self.changes.keys() != self._adapted.peft_config.keys()

    def switch_to(self, adapter: str) -> None:
        """Let the layers answer with `adapter`, unless they do: any other code may switch them."""
        if self._states.get(adapter) != self._state():
            self._adapted.set_adapter(adapter)
            self._states[adapter] = self._state()

    @contextmanager
    def off(self) -> Iterator[None]:
        """The layers as they were before peft, until the end."""
        on = [layer for layer in self._layers if not layer.disable_adapters]
        try:
            _switch(on, off=True)
            yield
        finally:
            _switch(on, off=False)

    def _state(self) -> State:
        return [(layer.disable_adapters, tuple(layer.active_adapters)) for layer in self._layers]


def _switch(layers: list[Any], *, off: bool) -> None:
    """Switch layers without peft's `enable_adapters`, which also marks weights for training."""
    for layer in layers:
        # not through a module's own __setattr__, which looks for weights first
        object.__setattr__(layer, "_disable_adapters", off)

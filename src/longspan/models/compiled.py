"""The decoder's layers, compiled by torch for steps of fixed shape."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from longspan.models.cache import Handle, StoreCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BATCHES = 64
"""Batch sizes that are compiled before torch refuses more."""


class OpaqueCache(StoreCache):
    """A cache that nothing looks into."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Handle, Handle]:
        """See StoreCache."""
        return super().update(key_states, value_states, layer_idx)


class NotCompiled(ValueError):
    """Something within a compiled step did not compile."""


class CompiledLayers:
    """What lies between the attention of one layer and the next, in a few kernels: norms, rotary
    embedding, activations. Attention itself stays as it is. Sums are rounded in another order.
    """

    cache = OpaqueCache
    """What the module has to be given within."""

    def __init__(self, module: Any, layers: int, backend: str = "inductor") -> None:
        """Raises ValueError where the layers of the module are not in one list. Nothing is compiled
        before the first step. Layers alike share all but what ends with their number's use.
        """
        self._layers = stack(module, layers)
        self._forwards = [
            torch.compile(layer.forward, backend=backend, dynamic=False) for layer in self._layers
        ]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The layers are compiled within. NotCompiled where something does not compile."""
        before = [vars(layer).get("forward") for layer in self._layers]
        most = BATCHES * len(self._layers)
        settings = torch._dynamo.config.patch(
            recompile_limit=most,
            accumulated_recompile_limit=most,
            fail_on_recompile_limit_hit=True,
        )
        try:
            for layer, forward in zip(self._layers, self._forwards, strict=True):
                layer.forward = forward
            with settings:
                yield
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).strip().split("\n\n")[0].split())
            raise NotCompiled(f"model.compile = true: a step does not compile: {reason}") from error
        finally:
            for layer, forward in zip(self._layers, before, strict=True):
                if forward is None:
                    vars(layer).pop("forward", None)
                else:
                    layer.forward = forward


def stack(module: Any, layers: int) -> list[Any]:
    """The layers of a decoder, in order. ValueError where there is no list of so many."""
    for part in module.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) == layers:
            return list(part)
    raise ValueError(f"model.compile = true: its {layers} layers are not in one list")

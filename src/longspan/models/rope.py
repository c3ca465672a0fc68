"""Rotary embeddings whose frequencies depend on the total length: one regime for a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class RotaryPin:
    """Makes every forward of a longrope or dynamic-NTK model see the session's total length.

    Such a model chooses its frequencies from the largest position of each call, so a chunked
    prefill, or an answer that crosses the threshold, would mix two kinds of keys in one store.
    """

    def __init__(self, module: nn.Module) -> None:
        self.total: int | None = None
        self._modules = [m for m in module.modules() if _changes(m)]
        for rotary in self._modules:
            rotary.register_forward_pre_hook(self._lengthen, with_kwargs=True)
            rotary.register_forward_hook(self._shorten)

    @property
    def needed(self) -> bool:
        """Whether the model has such an embedding."""
        return bool(self._modules)

    def set(self, total: int | None) -> None:
        """Pin to `total` tokens; None lets each forward choose for itself."""
        if total == self.total:
            return
        self.total = total
        for rotary in self._modules:
            _forget_growth(rotary)

    def _lengthen(
        self, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.total is None:
            return None
        if "position_ids" in named:
            return positional, {**named, "position_ids": self._with_last(named["position_ids"])}
        hidden, at_BQ, *rest = positional
        return (hidden, self._with_last(at_BQ), *rest), named

    def _with_last(self, at_BQ: Tensor) -> Tensor:
        assert self.total is not None
        return torch.cat([at_BQ, torch.full_like(at_BQ[:, :1], self.total - 1)], 1)

    def _shorten(
        self, _: nn.Module, __: tuple[Any, ...], tables: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        return None if self.total is None else tuple(table[:, :-1] for table in tables)


def _changes(module: nn.Module) -> bool:
    kind = getattr(module, "rope_type", None)
    kinds = kind.values() if isinstance(kind, dict) else [kind]
    return any(k is not None and ("dynamic" in k or k == "longrope") for k in kinds)


def _forget_growth(rotary: Any) -> None:
    """Dynamic NTK keeps the frequencies of the longest text so far; start again from the original
    ones.
    """
    kinds = rotary.rope_type
    prefixes = {f"{name}_": kind for name, kind in kinds.items()} if isinstance(kinds, dict) else {}
    for prefix, kind in (prefixes or {"": kinds}).items():
        if "dynamic" in kind:
            frequencies = getattr(rotary, f"{prefix}inv_freq")
            original = getattr(rotary, f"{prefix}original_inv_freq").to(frequencies.device)
            rotary.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
            setattr(rotary, f"{prefix}max_seq_len_cached", rotary.original_max_seq_len)

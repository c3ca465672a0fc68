"""Rotary embeddings whose frequencies depend on the length: one choice for all that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

FIXED = "default"
"""A kind that never looks at positions."""

STRETCHED = ("linear", "dynamic")
"""Kinds that go `factor` times as far as `max_position_embeddings`."""


def positions(config: Any) -> int | None:
    """How far a decoder's positions go; None where nothing says so.

    Configurations with frequencies by layer type (Gemma 3) count what they stretch already.
    """
    most: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1
    if most is not None and kind in STRETCHED:
        return int(most * factor)
    if most is not None and kind == "yarn":
        return max(most, int(rope.get("original_max_position_embeddings", most) * factor))
    return most


def stretches(config: Any) -> bool:
    """Whether other `rope_parameters` at the top of a model's configuration, such as YaRN's, would
    take its positions further: frequencies of layer types or trained ones (longrope) take none.
    """
    text = config.get_text_config(decoder=True)
    kind = (getattr(text, "rope_parameters", None) or {}).get("rope_type")
    return text is config and kind not in (None, "longrope")


class RotaryPin:
    """Has a longrope or dynamic-NTK model choose its frequencies once, for a length that it is
    told.

    Left to itself, such a model chooses by the largest position of each call. A chunked prefill, or
    an answer that crosses the threshold, would mix two kinds of keys in one store; and the longest
    row's length, or what a pass has left to decode, would change the others' answers. So the length
    is one that is known before anything is read: the run's context, or else all positions of the
    model. Servers choose in the same way (vLLM, by its max_model_len). Tokens beyond it are read
    with the same frequencies.
    """

    def __init__(self, module: nn.Module) -> None:
        self.tokens: int | None = None
        self._rotaries: list[tuple[Any, Any]] = [
            (each, each.rope_type) for each in module.modules() if _changes(each)
        ]

    @property
    def needed(self) -> bool:
        """Whether the model has such an embedding."""
        return bool(self._rotaries)

    def set(self, tokens: int | None) -> None:
        """Read with the frequencies of so many tokens; None, where nothing needs it, does
        nothing.
        """
        if tokens is None or tokens == self.tokens:
            return
        for rotary, kinds in self._rotaries:
            _choose(rotary, kinds, tokens)
        self.tokens = tokens


def _changes(module: nn.Module) -> bool:
    return any(map(_chooses, _by_layer_type(getattr(module, "rope_type", None)).values()))


def _chooses(kind: str | None) -> bool:
    return kind is not None and ("dynamic" in kind or kind == "longrope")


def _by_layer_type(kinds: Any) -> dict[str | None, str | None]:
    """Some models have frequencies for each type of layers; {None: kind} for one that has not."""
    return kinds if isinstance(kinds, dict) else {None: kinds}


def _choose(rotary: Any, kinds: Any, tokens: int) -> None:
    """Show it the last position, then hide that it chooses, so that it never does again."""
    rotary.rope_type = kinds
    for layer_type, kind in _by_layer_type(kinds).items():
        if not _chooses(kind):
            continue
        which, prefix = ((), "") if layer_type is None else ((layer_type,), f"{layer_type}_")
        frequencies = getattr(rotary, f"{prefix}inv_freq")
        if "dynamic" in str(kind):  # it keeps those of the longest text so far
            frequencies.copy_(getattr(rotary, f"{prefix}original_inv_freq"))
            setattr(rotary, f"{prefix}max_seq_len_cached", rotary.original_max_seq_len)
        last_BQ = torch.tensor([[tokens - 1]], device=frequencies.device)
        rotary(torch.zeros(1, device=frequencies.device), last_BQ, *which)
        # where they were, as the graph of a decode step looks for them there
        frequencies.copy_(getattr(rotary, f"{prefix}inv_freq"))
        rotary.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
    rotary.rope_type = dict.fromkeys(kinds, FIXED) if isinstance(kinds, dict) else FIXED

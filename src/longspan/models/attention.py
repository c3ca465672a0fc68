"""The attention and mask functions that Hugging Face models call under the name "longspan"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.models.cache import Handle
from longspan.models.checks import NO_LONG_CONTEXT
from longspan.models.guesses import Guessed
from longspan.models.window import WindowState, slides
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "longspan"

HARMLESS = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "is_causal",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "sliding_window",
        "use_cache",
    }
)
"""Arguments that change nothing here: the window of a layer is read from the configuration, and
compared with the one that its code asks for at load.
"""


def longspan_mask(**arguments: Any) -> None:
    """No mask: rows are read one by one without their padding. ValueError for anything but causal
    and window masks, and for a window of all layers, as a model has that knows no layer types.
    """
    config, window = arguments.get("config"), arguments.get("local_size")
    if getattr(config, "layer_types", None) is None and slides(window, config):
        raise ValueError(NO_LONG_CONTEXT.format(window))
    if arguments.get("use_vmap") or arguments.get("attention_mask") is not None:
        raise ValueError("only causal and sliding-window masks can be read")


def longspan_attention(
    module: nn.Module,
    query: Tensor,
    key: Handle,
    value: Handle,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer through the states of its rows; `query` is [B, H, Q, D], the output
    [B, Q, H, D].
    """
    if not isinstance(key, Handle):
        raise TypeError("the attention 'longspan' works in a session only; use session.prefill")
    layer = key.layer
    if layer.cache.guessing:
        raise Guessed(query[:, :, 0])
    if layer.cache.decoding:
        return layer.decode(query[:, :, 0], key, s_aux)[:, None], None
    if layer.cache.probe is not None:
        if attention_mask is not None:
            raise ValueError("its code makes masks of its own")
        geometry = describe(module, query, key, scaling, softcap, dropout, arguments)
        layer.cache.probe.append((geometry, module))
        layer.states = [WindowState(geometry, layer.window)]
    return layer.prefill(query, key, s_aux), None


def describe(
    module: nn.Module,
    q_BHQD: Tensor,
    handle: Handle,
    scaling: float | None,
    softcap: float | None,
    dropout: float,
    arguments: dict[str, Any],
) -> LayerGeometry:
    """What a layer's first call tells of it. ValueError for arguments that would change the
    attention.
    """
    unknown = sorted(k for k, v in arguments.items() if v is not None and k not in HARMLESS)
    if unknown or dropout:
        raise ValueError(f"its attention takes {', '.join(unknown) or 'dropout'}")
    number, said = handle.layer.number, handle.layer.window
    window = arguments.get("sliding_window")
    if said is None and slides(window, module.config):
        raise ValueError(f"layer {number} slides over {window} tokens, which its config hides")
    if said is not None and window != said:
        raise ValueError(f"layer {number} does not slide over the {said} tokens of its config")
    heads, size = q_BHQD.shape[1], q_BHQD.shape[3]
    k_BGQD, v_BGQD = handle.k_BGQD, handle.v_BGQD
    if k_BGQD.shape != v_BGQD.shape or k_BGQD.shape[3] != size or heads % k_BGQD.shape[1]:
        raise ValueError(
            f"layer {number} has queries {list(q_BHQD.shape)}, keys {list(k_BGQD.shape)} and "
            f"values {list(v_BGQD.shape)}; heads must share one size"
        )
    return LayerGeometry(
        layer=number,
        query_heads=heads,
        kv_heads=k_BGQD.shape[1],
        head_size=size,
        scale=float(size**-0.5 if scaling is None else scaling),
        dtype=k_BGQD.dtype,
        device=k_BGQD.device,
        softcap=softcap,
    )

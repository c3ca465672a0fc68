"""What the adapter cannot carry is refused when the model is loaded, with the reason."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from longspan.models.cache import StoreCache
from longspan.models.window import slides

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

    from longspan.types import LayerGeometry

PROBE_TOKENS, PROBE_PREFILL = 12, 8
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""Of a layer, in the name of a weight."""
TOLERANCE = {torch.float32: 2e-3, torch.float64: 2e-3}
ROUGH = 0.1
"""Of the logits' norm, in 16-bit and quantised models; a broken bridge is off by about 1."""
KINDS = ("full_attention", "sliding_attention")
NO_LONG_CONTEXT = (
    "every layer is a sliding window of {} tokens; there is no long context to retrieve from"
)


def layer_windows(config: Any) -> list[int | None]:
    """The sliding window of each layer, None where it attends everything. ValueError for any other
    kind of layer.

    Where no `layer_types` are given, code decides, which the self-test sees: Mistral's slides over
    `sliding_window` tokens, Llama's over none.
    """
    text = config.get_text_config(decoder=True)
    check_config(config, text)
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        kinds = ["full_attention"] * text.num_hidden_layers
    windows: list[int | None] = []
    for number, kind in enumerate(kinds):
        if kind not in KINDS:
            raise ValueError(
                f"layer {number} is of kind {kind!r}; only {' and '.join(KINDS)} are supported"
            )
        windows.append(window if kind == KINDS[1] and slides(window, text) else None)
    if not windows:
        raise ValueError("it has no layers")
    if all(windows):
        raise ValueError(NO_LONG_CONTEXT.format(window))
    return windows


def check_config(config: Any, text: Any) -> None:
    """ValueError for architectures whose keys and values are not plain tokens by heads."""
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError("it is an encoder-decoder; a decoder-only language model is needed")
    if getattr(text, "attention_chunk_size", None) is not None:
        raise ValueError("it attends in chunks (attention_chunk_size), as Llama 4 does")
    if getattr(text, "kv_lora_rank", None) is not None:
        raise ValueError("it compresses keys and values (multi-head latent attention)")
    if getattr(text, "num_kv_shared_layers", 0):
        raise ValueError("some of its layers share keys and values (num_kv_shared_layers)")
    if getattr(text, "is_causal", True) is False:
        raise ValueError("its attention is not causal")


def check_module(module: Any) -> None:
    """ValueError for a loaded model that does not call the attention interface, or whose rotary
    table was rounded. What may be recurrent need not be (Granite 4 without Mamba layers).
    """
    kinds = getattr(module.config.get_text_config(decoder=True), "layer_types", None) or [None]
    if getattr(module, "_is_stateful", False) and not set(kinds) <= set(KINDS):
        raise ValueError("it has recurrent layers whose state is no token store")
    if not getattr(module, "_supports_attention_backend", False):
        raise ValueError("its code does not call the attention interface of transformers")
    for name, buffer in module.named_buffers():
        if name.endswith("inv_freq") and buffer.dtype not in TOLERANCE:
            raise ValueError(
                f"{name} is {buffer.dtype}: rounded rotary frequencies ruin long contexts; "
                "load with dtype=..., never model.to(dtype)"
            )


def beyond(module: Any, unexpected: Iterable[str]) -> list[str]:
    """Weights without a place that would have one in another layer of the model, or are the bias to
    a weight of it; others say nothing of it (scales of a quantised cache, heads that look ahead).
    """
    names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    names |= {name.removeprefix(f"{module.base_model_prefix}.") for name in names}  # GPT-2's own
    biases = {f"{name.removesuffix('weight')}bias" for name in names if name.endswith(".weight")}
    alike = {NUMBER.sub("*", name) for name in names | biases}
    return sorted(k for k in unexpected if k not in names and NUMBER.sub("*", k) in alike)


def input_device(module: Any) -> torch.device:
    """Where token ids go; the CPU where accelerate offloads the embedding."""
    device: torch.device = module.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device


@torch.inference_mode()
def probe(
    module: Any, windows: list[int | None], implementation: str
) -> list[tuple[LayerGeometry, nn.Module]]:
    """Read 12 tokens through the adapter and compare the logits with the model's own; leaves the
    adapter switched on.

    Returns the geometry of every layer, and its attention module. ValueError where the logits
    differ or the model's code cannot run.
    """
    vocabulary = module.config.get_text_config(decoder=True).vocab_size
    ids_1Q = (torch.arange(PROBE_TOKENS, device=input_device(module)) * 7919 + 3)[None] % vocabulary
    module.set_attn_implementation("eager")
    with _refusing("its own attention does not read 12 tokens"):
        own_QV = module(input_ids=ids_1Q, use_cache=False).logits[0].float()
    module.set_attn_implementation(implementation)
    cache = StoreCache(windows, None)
    cache.probe = []
    with _refusing("its code does not fit the adapter"):
        ours_QV = _through(module, cache, ids_1Q)
    if len(cache.probe) != len(windows):
        raise ValueError(f"{len(cache.probe)} of its {len(windows)} layers called the attention")
    error_Q = (ours_QV - own_QV).norm(dim=-1) / own_QV.norm(dim=-1)
    # medians: one token may take another expert after rounding
    worst = float(max(error_Q[:PROBE_PREFILL].median(), error_Q[PROBE_PREFILL:].median()))
    quantised = getattr(module.config, "quantization_config", None) is not None
    tolerance = ROUGH if quantised else TOLERANCE.get(module.dtype, ROUGH)
    if not worst < tolerance:
        raise ValueError(f"self-test: logits differ by {worst:.1e} (tolerance {tolerance})")
    return sorted(cache.probe, key=lambda found: found[0].layer)


@contextmanager
def _refusing(reason: str) -> Iterator[None]:
    """Whatever a model's code raises, as a ValueError; not those, which are, nor a full GPU."""
    try:
        yield
    except (ValueError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{reason}: {type(error).__name__}: {error}") from error


def _through(module: Any, cache: StoreCache, ids_1Q: Tensor) -> Tensor:
    at_1Q = torch.arange(PROBE_TOKENS, device=ids_1Q.device)[None]
    logits = []
    steps = [(0, PROBE_PREFILL), *((i, i + 1) for i in range(PROBE_PREFILL, PROBE_TOKENS))]
    for first, stop in steps:
        cache.counts, cache.prompts = [stop - first], [None]
        out = module(
            input_ids=ids_1Q[:, first:stop],
            position_ids=at_1Q[:, first:stop],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=stop - first,
        )
        logits.append(out.logits[0].float())
        cache.decoding = True
    return torch.cat(logits)

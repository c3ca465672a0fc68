"""The embedded model as a Hugging Face Llama, and the weights that it begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path


HEAD = 64


def build_model(
    tokens: tuple[int, int, int],
    *,
    layers: int,
    width: int,
    mlp: int,
    theta: float,
    positions: int,
    heads: int = 4,
    kv_heads: int = 2,
) -> Any:
    """A LlamaForCausalLM with tied embeddings; `tokens` = (vocabulary size, eos, pad)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary, eos, pad = tokens
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=HEAD,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        rms_norm_eps=1e-6,
    )
    return LlamaForCausalLM(config)


EMBEDDING = 0.08
CONSTANT = 4 * EMBEDDING
LOOK_BACK = ((1, 2, 3, 4), (4, 8))
"""Distances the first heads of layers 0 and 1 start out looking back."""
SHARPNESS = (4, 4, 3, 2, 1, 1, 1, 1, 1, 1)
"""Weights of the fastest rotary pairs in a look-back head."""


def _look_back(mixer: Any, distances: tuple[int, ...], constant: float, theta: float) -> None:
    """Turn the query of head h against the constant key so that they agree at distances[h]."""
    pairs, half = len(SHARPNESS), HEAD // 2
    weight = torch.tensor(SHARPNESS, dtype=torch.float32).sqrt()
    speed = theta ** (-torch.arange(pairs) / half)
    repeats = mixer.q_proj.weight.shape[0] // mixer.k_proj.weight.shape[0]
    for head, distance in enumerate(distances):
        query, key = torch.zeros(HEAD), torch.zeros(HEAD)
        key[:pairs] = 2 * weight
        query[:pairs] = 7 * weight * (speed * distance).cos()
        query[half : half + pairs] = -7 * weight * (speed * distance).sin()
        for part, row, column in (
            (mixer.q_proj.weight, head, query),
            (mixer.k_proj.weight, head // repeats, key),
        ):
            block = part[row * HEAD : (row + 1) * HEAD]
            block.normal_(0, 0.006)
            block[:, 0] = column / constant


@torch.no_grad()
def look_back_init(model: Any, theta: float) -> None:
    """Let some heads of the first two layers start out attending a fixed distance back.

    Induction needs a head that looks at the previous token, and finding it is most of the early
    training. One embedding dimension is made constant; from it the query and key of such a head
    get a fixed vector in the fastest rotary pairs. Everything stays trainable.
    """
    embedding = model.model.embed_tokens.weight
    embedding.normal_(0, EMBEDDING)
    embedding[:, 0] = CONSTANT
    width = embedding.shape[1]
    for layer in model.model.layers:
        mixer = layer.self_attn
        for part in (mixer.q_proj, mixer.k_proj, mixer.v_proj):
            part.weight.normal_(0, width**-0.5)
        # An attended token then weighs as much in the residual stream as the embedding.
        mixer.o_proj.weight.normal_(0, EMBEDDING * mixer.o_proj.weight.shape[1] ** -0.5)
    for index, distances in enumerate(LOOK_BACK):
        variance = (index + 1) * EMBEDDING**2 + CONSTANT**2 / width
        constant = CONSTANT / variance**0.5
        _look_back(model.model.layers[index].self_attn, distances, constant, theta)


def load_weights(model: Any, folder: Path) -> None:
    """Take over the weights of an exported folder; ValueError where they are of another shape."""
    from safetensors.torch import load_file

    try:
        left_out = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    except RuntimeError as error:
        raise ValueError(f"--start {folder}: the weights are of another shape ({error})") from error
    absent = set(left_out.missing_keys) - {"lm_head.weight"}  # tied to the embedding
    if absent or left_out.unexpected_keys:
        raise ValueError(f"--start {folder}: the weights lack {sorted(absent)}")

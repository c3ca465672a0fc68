"""Synthetic keys with the structure that decides what the kernels read.

Keys of trained models have a large common mean and come in topics that persist over neighbouring
tokens and return later; a few topics are frequent, most are rare. `topic_keys` imitates that: topic
of token t stays that of t - 1 with probability 0.9, else it is drawn from a Zipf law over T / 48
topics; the key is mean + topic centre + noise of 0.6. Cluster sizes of the wave index are then
uneven, as they are in models (they decide how much is retrieved). `topic_queries` point at single
topics, plus noise, so that attention is sparse. Nothing here says anything about accuracy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def topic_keys(groups: int, tokens: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys [G, T, D] bfloat16 and topic centres [G, topics, D] float32."""
    source = torch.Generator().manual_seed(seed)
    topics = max(2, tokens // 48)
    centre_GCD = torch.randn(groups, topics, width, generator=source)
    mean_G1D = 2 * torch.randn(groups, 1, width, generator=source)
    zipf_C = 1.0 / torch.arange(1, topics + 1).float()
    keys_GTD = torch.empty(groups, tokens, width, dtype=torch.bfloat16)
    for g in range(groups):
        fresh_T = torch.multinomial(zipf_C, tokens, replacement=True, generator=source)
        jump_T = torch.rand(tokens, generator=source) > 0.9
        jump_T[0] = True
        topic_T = fresh_T[torch.where(jump_T, torch.arange(tokens), 0).cummax(0).values]
        for begin in range(0, tokens, 65536):
            block = slice(begin, begin + 65536)
            x_TD = centre_GCD[g, topic_T[block]] + mean_G1D[g]
            keys_GTD[g, block] = x_TD + 0.6 * torch.randn(x_TD.shape, generator=source)
    return keys_GTD, centre_GCD


def topic_queries(centre_GCD: Tensor, heads_a_group: int, count: int, seed: int = 1) -> Tensor:
    """Queries [count, H, D] bfloat16; all heads of a group look at the same topic."""
    source = torch.Generator().manual_seed(seed)
    groups, topics, width = centre_GCD.shape
    topic_NG = torch.randint(topics, (count, groups), generator=source)
    looked_at = centre_GCD[torch.arange(groups), topic_NG][:, :, None]  # [count, G, 1, D]
    noise = torch.randn(count, groups, heads_a_group, width, generator=source)
    return (looked_at + noise).flatten(1, 2).bfloat16()

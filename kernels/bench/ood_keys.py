"""Keys and out-of-distribution queries as attention has them, at any size: what the graph is
measured on where no model was recorded.

The facts to be matched (RetrievalAttention, arXiv 2409.10516, section 3): queries lie more than 10
times as far from the keys as keys do (Mahalanobis), an inverted file must scan 30-50% of the keys
for recall@100 of 0.95, and HNSW stalls in local optima. `facts` measures the first; the bench the
others.

How: the head's space is split, by a random rotation, in two.
* Keys spread in the first, large part: topics (one for 32 tokens in a row) and noise, with a
  spectrum that falls, about a mean that is larger than the spread. What key-to-key distance sees.
* Keys hardly spread in the second, small part, but queries do, about a mean of their own per query
  head, with a falling spectrum. What queries look at.
So nearness of keys says little about who reads them, as in a trained model, whose query and key
projections differ. The scores of a query with the keys have an effective rank of about ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

READ_COLUMNS = 32
"""Size of the second part."""
READ_SPREAD = 0.12
"""Spread of the keys there, 1 being that of their widest direction."""
TOPIC_TOKENS = 32
WITHIN_TOPIC = 0.6
KEY_DECAY, QUERY_DECAY = 0.5, 0.6
"""Direction i of a part spreads as (i + 1) ** -decay."""
KEY_MEAN = 3.0
QUERY_BLUR = 0.15
"""Spread of the queries in the first part."""
QUERY_SCALE = 2.0


class OodData(NamedTuple):
    """One KV head: its keys, the queries it was prefilled with, and those that decode."""

    keys_TD: Tensor
    train_RSD: Tensor
    test_RSD: Tensor


def ood_keys(
    tokens: int,
    *,
    train: int = 2048,
    test: int = 64,
    heads: int = 4,
    size: int = 128,
    seed: int = 0,
) -> OodData:
    """`tokens` keys, and for each of `heads` query heads `train` and `test` queries, float32."""
    draw = torch.Generator().manual_seed(seed)
    rotation_DD = torch.linalg.qr(torch.randn(size, size, generator=draw)).Q
    wide = size - READ_COLUMNS
    wide_W = torch.arange(1.0, wide + 1) ** -KEY_DECAY
    read_C = torch.arange(1.0, READ_COLUMNS + 1) ** -QUERY_DECAY
    centre_NW = torch.randn(max(8, tokens // 256), wide, generator=draw)
    stretches = -(-tokens // TOPIC_TOKENS)
    topic_T = torch.randint(len(centre_NW), (stretches,), generator=draw)
    topic_T = topic_T.repeat_interleave(TOPIC_TOKENS)[:tokens]
    noise_TW = torch.randn(tokens, wide, generator=draw)
    key_TW = (1 - WITHIN_TOPIC**2) ** 0.5 * centre_NW[topic_T] + WITHIN_TOPIC * noise_TW
    mean_W = torch.randn(wide, generator=draw)
    key_TW = (key_TW + KEY_MEAN * mean_W / wide_W.norm()) * wide_W
    key_TC = READ_SPREAD * torch.randn(tokens, READ_COLUMNS, generator=draw) * read_C
    mean_R1C = torch.randn(heads, 1, READ_COLUMNS, generator=draw)
    total = train + test
    query_RSC = (mean_R1C + torch.randn(heads, total, READ_COLUMNS, generator=draw)) * read_C
    query_RSW = QUERY_BLUR * torch.randn(heads, total, wide, generator=draw) * wide_W
    keys_TD = torch.cat([key_TW, key_TC], dim=1) @ rotation_DD
    queries_RSD = QUERY_SCALE * torch.cat([query_RSW, query_RSC], dim=2) @ rotation_DD
    return OodData(keys_TD, queries_RSD[:, :train].clone(), queries_RSD[:, train:].clone())


def mahalanobis_gap(keys_TD: Tensor, queries_ND: Tensor, held_out: int = 5000) -> float:
    """Mean Mahalanobis distance of queries to the keys over that of keys held out, both measured
    with the mean and covariance of the other keys.
    """
    order_T = torch.randperm(len(keys_TD), generator=torch.Generator().manual_seed(0))
    held_out = min(held_out, len(keys_TD) // 4)
    held_ND, rest_TD = keys_TD[order_T[:held_out]], keys_TD[order_T[held_out:]]
    covariance_DD = rest_TD.T.cov().double()
    trace = covariance_DD.diagonal().mean()
    covariance_DD += 1e-3 * trace * torch.eye(len(covariance_DD), dtype=torch.float64)
    inverse_DD = torch.linalg.inv(covariance_DD)

    def distance(rows_ND: Tensor) -> float:
        centred_ND = (rows_ND - rest_TD.mean(0)).double()
        return float(((centred_ND @ inverse_DD) * centred_ND).sum(1).sqrt().mean())

    return distance(queries_ND[:5000]) / distance(held_ND)

"""Product quantisation of keys: codebooks, codes, and searching by them; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch

from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.product_codes import cpu, reference
from longspan_kernels.types import Sharing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Coded, CodedRows

__all__ = ["best_tokens", "encode", "step_tokens", "train"]

KEYS_A_CENTROID = 256
"""Training looks at no more keys than this for each centroid."""

MOST_CENTROIDS = 256
"""Of a part: a code is a byte."""


def train(
    keys_GTD: Tensor,
    parts: int,
    clusters: int,
    rounds: int,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Tensor:
    """float32 [G, P, C, E]: C centroids for each of P parts of E = D / P coordinates, or as many as
    there are keys if fewer.

    Lloyd's k-means by Euclidean distance on evenly spaced keys, KEYS_A_CENTROID for each centroid.
    Raises ValueError naming what does not fit.
    """
    _, tokens, width = keys_GTD.shape
    if parts < 1 or width % parts:
        raise ValueError(f"parts is {parts}; it should divide the head size, {width}")
    if not 1 <= clusters <= MOST_CENTROIDS or not tokens:
        raise ValueError(
            f"{clusters} centroids for {tokens} keys; it should be 1 to {MOST_CENTROIDS}, and a key"
        )
    clusters, sampled = min(clusters, tokens), KEYS_A_CENTROID * min(clusters, tokens)
    if tokens > sampled:
        keys_GTD = keys_GTD[:, reference.even(tokens, sampled)]
    isa = path(backend, rows_obstacle(keys_GTD))
    if isa is None:
        return reference.train(keys_GTD, parts, clusters, rounds)
    return cpu.train(keys_GTD, parts, clusters, rounds, threads=threads, isa=isa)


def encode(
    keys_GTD: Tensor,
    centroids_GPCE: Tensor,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Tensor:
    """uint8 [G, P, T]: the nearest centroid of each part."""
    groups, parts, _, size = centroids_GPCE.shape
    if keys_GTD.shape[0] != groups or keys_GTD.shape[2] != parts * size:
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)}; with centroids {list(centroids_GPCE.shape)}"
            f" it should be [{groups}, T, {parts * size}]"
        )
    if triton_serves(backend, (keys_GTD,), (centroids_GPCE,)):
        from longspan_kernels.product_codes import tables_triton

        return tables_triton.encode(keys_GTD, centroids_GPCE)
    isa = path(backend, rows_obstacle(keys_GTD))
    if isa is None:
        return reference.encode(keys_GTD, centroids_GPCE)
    return cpu.encode(keys_GTD, centroids_GPCE, threads=threads, isa=isa)


def best_tokens(
    q_HD: Tensor,
    coded: Sequence[Coded],
    wanted: int,
    *,
    scale: float,
    share: Sharing = "kv_head",
    backend: Backend = "auto",
    threads: int | None = None,
) -> Tensor:
    """int32 [N, wanted]: the numbers of the tokens of largest approximate weight, in no order that
    may be relied on; tokens are counted through all stretches.

    `share`: one set a KV head, by the softmax weights summed over its query heads (PQCache,
    arXiv 2407.12820), or one a query head. Raises ValueError naming what does not fit.
    """
    tokens = sum(each.code_GPT.shape[2] for each in coded)
    if not 1 <= wanted <= tokens:
        raise ValueError(f"wanted is {wanted}; it should be 1 to {tokens}, the tokens in codes")
    _check_share(share)
    if triton_serves(backend, (q_HD,), [tensor for each in coded for tensor in each]):
        from longspan_kernels.product_codes import triton

        return triton.best_tokens(q_HD, coded, wanted, scale, share)
    isa = path(backend, cpu.search_obstacle(q_HD, coded))
    if isa is None:
        return reference.best_tokens(q_HD, coded, wanted, scale, share)
    return cpu.best_tokens(q_HD, coded, wanted, scale, share, threads=threads, isa=isa)


def step_tokens(
    q_XD: Tensor,
    coded: CodedRows,
    most: int,
    *,
    scale: float,
    share: Sharing = "kv_head",
    backend: Backend = "auto",
) -> Tensor:
    """int32 [N, most] (one set a KV head) or [X, most] (one a query head), N = B G and X = B H: as
    `best_tokens`, of all rows at once, but best first, for rows that read fewer. A row's tokens
    come before numbers of tokens that it does not have. Waits for nothing. Raises ValueError naming
    what does not fit.
    """
    centroids_NPCE, code_NPT, stop_BS = coded
    heads, parts, centroids, size = centroids_NPCE.shape
    room, (rows, books) = code_NPT.shape[2], stop_BS.shape
    if code_NPT.shape[:2] != (heads, parts) or heads % rows or centroids % books:
        raise ValueError(
            f"centroids {list(centroids_NPCE.shape)}, codes {list(code_NPT.shape)} and stops"
            f" {list(stop_BS.shape)} should be [N, P, C, E], [N, P, T] and [B, S], with N a"
            " multiple of B and C of S"
        )
    if q_XD.shape[0] % heads or q_XD.shape[1] != parts * size:
        raise ValueError(
            f"q has shape {list(q_XD.shape)}; with centroids {list(centroids_NPCE.shape)} it should"
            f" be [X, {parts * size}], X a multiple of {heads}"
        )
    if code_NPT.dtype != torch.uint8 or stop_BS.dtype != torch.int32:
        raise ValueError(
            f"codes are {code_NPT.dtype} and stops {stop_BS.dtype}; they should be torch.uint8 and"
            " torch.int32"
        )
    if not 1 <= most <= room:
        raise ValueError(f"most is {most}; it should be 1 to {room}, the room of a row")
    _check_share(share)
    if triton_serves(backend, (q_XD,), coded):
        from longspan_kernels.product_codes import triton

        return triton.step_tokens(q_XD, coded, most, scale, share)
    return reference.step_tokens(q_XD, coded, most, scale, share)


def _check_share(share: Sharing) -> None:
    if share not in get_args(Sharing):
        raise ValueError(f"share is {share!r}; right is one of {', '.join(get_args(Sharing))}")

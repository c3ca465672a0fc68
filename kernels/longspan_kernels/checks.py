"""Checks at the door of the decode operations: a ValueError names the argument that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs


def check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """It has this shape and type."""
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise ValueError(
            f"{name} has shape {list(tensor.shape)} and is {tensor.dtype}; it should be"
            f" {list(shape)} of {dtype}"
        )


def check_rows(q_HD: Tensor, keys_GTD: Tensor, values_GTD: Tensor) -> None:
    """Queries, keys and values fit one another."""
    if keys_GTD.dim() != 3 or keys_GTD.shape != values_GTD.shape:
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)} and values {list(values_GTD.shape)};"
            " both should be [G, T, D]"
        )
    groups, _, width = keys_GTD.shape
    if q_HD.dim() != 2 or q_HD.shape[1] != width or not groups or q_HD.shape[0] % groups:
        raise ValueError(
            f"q has shape {list(q_HD.shape)}; with keys {list(keys_GTD.shape)} it should be"
            f" [a multiple of {groups}, {width}]"
        )


def check_per_entry(name: str, numbers_GT: Tensor | None, keys_GTD: Tensor) -> None:
    """An optional array holds one number an entry."""
    if numbers_GT is not None and numbers_GT.shape != keys_GTD.shape[:2]:
        raise ValueError(
            f"{name} has shape {list(numbers_GT.shape)}; with keys {list(keys_GTD.shape)} it should"
            f" be {list(keys_GTD.shape[:2])}"
        )


def check_scale(name: str, rows_GTD: Tensor, scale_GT: Tensor | None) -> None:
    """Whole numbers come with a scale, others without."""
    if rows_GTD.is_floating_point() == (scale_GT is not None):
        given, wanted = ("no", "a") if scale_GT is None else ("a", "no")
        raise ValueError(
            f"{name} is {rows_GTD.dtype} with {given} scale; it should have {wanted} scale"
        )
    check_per_entry(f"the scale of {name}", scale_GT, rows_GTD)


def check_softcap(softcap: float | None) -> None:
    """A soft cap, where there is one, is positive."""
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}; it should be positive, or None")


def check_runs(runs: Runs, heads: int, groups: int) -> None:
    """Runs are int32 of one row a KV head or a query head; counts are not looked at."""
    rows = runs.start_NK.shape[0]
    if runs.start_NK.dim() != 2 or rows not in (groups, heads):
        raise ValueError(
            f"runs have shape {list(runs.start_NK.shape)}; it should be [N, K] with N = {groups}"
            f" (KV heads) or {heads} (query heads)"
        )
    sizes = () if runs.size_NK is None else (("size_NK", runs.size_NK, runs.start_NK.shape),)
    for name, tensor, shape in (*sizes, ("count_N", runs.count_N, (rows,))):
        if tensor.shape != shape:
            raise ValueError(
                f"{name} of the runs has shape {list(tensor.shape)}; it should be {list(shape)}"
            )
    for tensor in (runs.start_NK, runs.size_NK, runs.count_N):
        if tensor is not None and tensor.dtype != torch.int32:
            raise ValueError(f"runs hold {tensor.dtype}; they should be int32")

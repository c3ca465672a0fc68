"""One graph over the keys of one KV head (or query head)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from longspan_kernels.attention_graph import blocks, cpu, files, reference
from longspan_kernels.attention_graph.maps import Maps, score_maps
from longspan_kernels.attention_graph.options import GraphOptions
from longspan_kernels.dispatch import path as backend_path

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan_kernels.dispatch import Backend


class AttentionGraph:
    """Keys linked to those that the same queries read; see README.md.

    Node t is the t-th key given, those of `insert` after those of `build`. Holds codes and edges,
    not the keys.
    """

    def __init__(self, options: GraphOptions, handle: Any, isa: str | None) -> None:
        self.options = options
        self.isa = isa
        """Instruction set of the native kernels; None: the reference serves this graph."""
        self.handle = handle
        self.head_size: int = len(handle["mean"]) if isa is None else handle.head_size
        """Size of a key."""

    @property
    def tokens(self) -> int:
        """Keys in the graph."""
        return len(self.handle["codes"]) if self.isa is None else int(self.handle.tokens)

    @property
    def nbytes(self) -> int:
        """Memory held."""
        if self.isa is None:
            return sum(tensor.nbytes for tensor in self.handle.values())
        return int(self.handle.nbytes)

    @property
    def arrays(self) -> dict[str, Tensor]:
        """All parts by name, to be looked at; views that growth makes invalid."""
        return dict(self.handle if self.isa is None else self.handle.arrays())

    def copy(self) -> AttentionGraph:
        """A graph that grows on its own."""
        twin = dict(self.handle) if self.isa is None else self.handle.copy()
        return AttentionGraph(self.options, twin, self.isa)

    def insert(self, keys_ND: Tensor, queries_BD: Tensor | None = None) -> None:
        """Let new keys in, in place; `queries_BD`, the latest ones, lead them to those that are
        read with them. Raises ValueError on NaN, infinity or another head size.
        """
        keys_ND = checked("keys", keys_ND, self.head_size)
        empty = keys_ND.new_empty(0, self.head_size)
        bridges_BD = empty if queries_BD is None else checked("queries", queries_BD, self.head_size)
        if self.isa is not None:
            cpu.insert(self.handle, keys_ND, bridges_BD, self.options, self.isa)
            return
        arrays = self.handle
        maps = Maps(arrays["mean"], arrays["to_codes"], arrays["to_queries"])
        rows_NW = (keys_ND - maps.mean_D) @ maps.to_codes_DW
        rows_TW = torch.cat([arrays["codes"], rows_NW])
        lists = reference.nearest(
            bridges_BD @ maps.to_queries_DW, rows_TW, self.options.list_tokens
        )
        self.handle = reference.build(maps, rows_TW, lists, self.options)

    def save(self, path: Path) -> None:
        """Write the graph to one file."""
        files.write(path, self.arrays, self.options)

    @classmethod
    def load(cls, path: Path, *, backend: Backend = "auto") -> AttentionGraph:
        """The graph that `save` wrote.

        Raises ValueError naming the file where it is missing, truncated, of another version or
        inconsistent.
        """
        arrays, options = files.read(path)
        isa = backend_path(backend, None)
        if isa is None:
            if options.storage != "float32":
                raise ValueError(
                    f"{path} holds {options.storage} codes; the reference reads float32"
                )
            arrays["codes"] = arrays["codes"].view(torch.float32)
            return cls(options, arrays, None)
        arrays["codes"] = arrays["codes"].view(torch.uint8)
        try:
            return cls(options, cpu.restore(arrays, options.storage), isa)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no attention graph: {error}") from error


def build(
    keys_TD: Tensor,
    queries_SD: Tensor | None = None,
    options: GraphOptions | None = None,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    device: torch.device | None = None,
) -> AttentionGraph:
    """A graph over keys_TD that knows what queries like queries_SD read.

    Without queries it is a graph of near neighbours. device: where the exact nearest keys of the
    queries are found, by blocks of matrix products; None: on the CPU, natively.

    Raises ValueError where there is no key, or on NaN, infinity, shapes that do not fit.
    """
    options = options or GraphOptions()
    keys_TD = checked("keys", keys_TD, None)
    if not len(keys_TD):
        raise ValueError("keys has shape [0, D]; a graph needs at least one key")
    empty = keys_TD.new_empty(0, keys_TD.shape[1])
    queries_SD = empty if queries_SD is None else checked("queries", queries_SD, keys_TD.shape[1])
    isa = backend_path(backend, None)
    maps = score_maps(keys_TD, queries_SD, options.width, options.metric)
    rows_TW = (keys_TD - maps.mean_D) @ maps.to_codes_DW
    coded_SW = queries_SD @ maps.to_queries_DW
    k = options.list_tokens
    if isa is None:
        lists = reference.nearest(coded_SW, rows_TW, k)
        return AttentionGraph(options, reference.build(maps, rows_TW, lists, options), None)
    if device is None or device.type == "cpu":
        lists = cpu.nearest(coded_SW, rows_TW, k, threads=threads, isa=isa)
    else:
        lists = blocks.nearest(coded_SW, rows_TW, k, device)
    handle = cpu.build(maps, rows_TW, lists, options, threads=threads, isa=isa)
    return AttentionGraph(options, handle, isa)


def checked(name: str, rows_ND: Tensor, size: int | None) -> Tensor:
    """Float32 and contiguous, after checking shape and values."""
    if rows_ND.ndim != 2 or (size is not None and rows_ND.shape[1] != size):
        right = "D" if size is None else size
        raise ValueError(f"{name} has shape {list(rows_ND.shape)}; it should be [N, {right}]")
    if not rows_ND.dtype.is_floating_point or rows_ND.device.type != "cpu":
        raise ValueError(
            f"{name} is {rows_ND.dtype} on {rows_ND.device}; it should be floating point on the CPU"
        )
    rows_ND = rows_ND.detach().float().contiguous()
    if not bool(rows_ND.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity; every value must be finite")
    return rows_ND

"""The operation `segmented_kmeans`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.segmented_kmeans import cpu, reference
from longspan_kernels.segmented_kmeans.reference_seeds import EVEN_SHARE

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding
    from longspan_kernels.types import Clusters

__all__ = ["segmented_kmeans"]


def segmented_kmeans(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    clusters: int,
    segments: int = 1,
    iterations: int = 10,
    seeding: Seeding = "even",
    final: Literal["segment", "global"] = "segment",
    backend: Backend = "auto",
    threads: int | None = None,
) -> Clusters:
    """Cluster the keys of each KV head: `iterations` - 1 training rounds, one final assignment.

    Tokens and clusters are cut into `segments` nearly equal stretches; a token meets only the
    centroids of its own segment, in the final assignment too unless `final` is "global". Seeds are
    evenly spaced tokens, tokens `farthest` from one another by angle, or half and half (`mixed`).
    Clusters may come out empty, as they must where there are fewer tokens than clusters. ValueError
    where keys or values hold NaN or infinity. RetroInfer, section 4.2.
    """
    reference.check(keys_GTD, values_GTD, clusters, segments, iterations)
    if seeding not in EVEN_SHARE:
        raise ValueError(f"seeding is {seeding!r}; it should be one of {', '.join(EVEN_SHARE)}")
    if final not in ("segment", "global"):
        raise ValueError(f"final is {final!r}; it should be 'segment' or 'global'")
    if triton_serves(backend, (keys_GTD, values_GTD)):
        from longspan_kernels.segmented_kmeans import triton

        return triton.segmented_kmeans(
            keys_GTD,
            values_GTD,
            clusters=clusters,
            segments=segments,
            iterations=iterations,
            seeding=seeding,
            final=final,
        )
    isa = path(backend, rows_obstacle(keys_GTD, values_GTD))
    if isa is None:
        return reference.segmented_kmeans(
            keys_GTD,
            values_GTD,
            clusters=clusters,
            segments=segments,
            iterations=iterations,
            seeding=seeding,
            final=final,
        )
    return cpu.segmented_kmeans(
        keys_GTD,
        values_GTD,
        clusters=clusters,
        segments=segments,
        iterations=iterations,
        seeding=seeding,
        final=final,
        threads=threads,
        isa=isa,
    )

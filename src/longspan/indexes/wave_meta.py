"""What the wave index keeps of its clusters, and its file format."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from longspan.indexes.wave_groups import Groups

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from longspan_kernels.types import Clusters

FORMAT, VERSION, FILE = "longspan.wave", "1", "wave.safetensors"
GROUPS = "groups."
"""What the names of the groups' tensors begin with."""


@dataclass(frozen=True)
class Meta:
    """Clusters of all segments, one after the other; S segments. All in float32 but for the ids
    and, where that is asked for, centroids and values.
    """

    centroids_GCD: Tensor
    values_GCD: Tensor
    """Mean values of the members."""
    spread_GC: Tensor
    """Variance of one key coordinate within the cluster."""
    start_GC: Tensor
    """int32 slot of the first member; members lie in consecutive slots."""
    size_GC: Tensor
    """int32; 0 where a cluster is empty."""
    segment_C: Tensor
    """int64: the segment of each cluster."""
    segment_values_GSD: Tensor
    """Mean value of each segment."""

    @classmethod
    def of(cls, clusters: Clusters, first_slot: int, segments: int, dtype: torch.dtype) -> Meta:
        """The clusters of a freshly clustered stretch whose first token is in `first_slot`."""
        size_GC, count = clusters.size_GC, clusters.size_GC.shape[1]
        segment_C = torch.empty(count, dtype=torch.int64, device=size_GC.device)
        means = []
        for segment in range(segments):
            part = slice(segment * count // segments, (segment + 1) * count // segments)
            segment_C[part] = segment
            weight_GC1 = size_GC[:, part, None] / size_GC[:, part].sum(1)[:, None, None].clamp(1)
            means.append((clusters.values_GCD[:, part] * weight_GC1).sum(1))
        return cls(
            centroids_GCD=clusters.centroids_GCD.to(dtype),
            values_GCD=clusters.values_GCD.to(dtype),
            spread_GC=clusters.spread_GC,
            start_GC=clusters.start_GC + first_slot,
            size_GC=size_GC,
            segment_C=segment_C,
            segment_values_GSD=torch.stack(means, dim=1),
        )

    def extended(self, later: Meta) -> Meta:
        """These clusters, then `later`'s."""
        joined = {
            f.name: torch.cat([getattr(self, f.name), getattr(later, f.name)], dim=1)
            for f in fields(self)
            if f.name != "segment_C"
        }
        shifted_C = later.segment_C + self.segment_values_GSD.shape[1]
        return Meta(segment_C=torch.cat([self.segment_C, shifted_C]), **joined)

    @cached_property
    def log_size_GC(self) -> Tensor:
        """float32; 0 where a cluster is empty."""
        return self.size_GC.clamp(min=1).float().log()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def save(folder: Path, meta: Meta, groups: Groups | None, facts: Mapping[str, Any]) -> None:
    """Write the clusters, their groups and the JSON `facts` about them; the file appears whole or
    not at all.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "version": VERSION, "facts": json.dumps(dict(facts))}
    coarse = {} if groups is None else {GROUPS + k: t for k, t in groups.tensors.items()}
    tensors = {name: tensor.contiguous() for name, tensor in {**meta.tensors, **coarse}.items()}
    draft = folder / (FILE + ".part")
    save_file(tensors, draft, metadata=head)
    draft.replace(folder / FILE)


def load(folder: Path, device: torch.device) -> tuple[Meta, Groups | None, dict[str, Any]]:
    """What `save` wrote.

    Raises ValueError naming the file where it is missing, truncated, of another version or not a
    wave index.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            head = file.metadata() or {}
            if (found := (head.get("format"), head.get("version"))) != (FORMAT, VERSION):
                raise ValueError(
                    f"{path} has format {found[0]!r} version {found[1]!r}; it should be {FORMAT!r}"
                    f" version {VERSION!r}: build the index again"
                )
            tensors = {f.name: file.get_tensor(f.name) for f in fields(Meta)}
            names = [name for name in sorted(file.keys()) if name.startswith(GROUPS)]
            coarse = {name.removeprefix(GROUPS): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no wave index: {error}; it should be a complete file that `save` wrote"
        ) from error
    groups = Groups(**coarse) if coarse else None
    return Meta(**tensors), groups, json.loads(head["facts"])

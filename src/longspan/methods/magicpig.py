"""MagicPIG: tokens sampled by hashing, each weighed by how likely it was to be sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from longspan.indexes.lsh import ENTRY_BYTES, HashIndex, hyperplanes
from longspan.methods.base import Method
from longspan.methods.frame import Reading, StoredState
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_sampled import StaticSampled
from longspan.options import Count, Layers, Number, Seed, Tokens, settings
from longspan.placement.base import OnePlace
from longspan.types import Selection, StepBytes
from longspan_kernels.hash_tables import MOST_BITS
from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.types import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.lsh import Collisions
    from longspan.methods.base import LayerState
    from longspan.placement.store import Part
    from longspan.types import LayerGeometry, Partial, Runs


@settings
class MagicPIG(Method):
    """Chen et al., "MagicPIG: LSH Sampling for Efficient LLM Generation", ICLR 2025,
    arXiv 2410.16179.

    Static: the first sink_tokens, the last local_tokens (one at least, for a query may find no
    other) and all that came after the prompt. bits, tables: a token of the prompt is sampled if
    it shares the query head's code of so many random hyperplanes in two or more tables (10 and 150
    sample about 2% in the paper, as do 11 and 300). Its score is raised by -ln(u + 1e-4), u being
    the probability of that. dense_layers: layers attended in full; the paper has 0 and 16 of a
    model of 32 layers, and 32, 48, 64 too of larger ones. seed: of the planes, which differ from
    layer to layer. placement: where keys and values live.

    Keys are centred, by the mean of the prompt's keys outside the static ones, where they are
    hashed and for u; q.k is of the keys as they are. The paper centres all keys, which adds the
    same number to all scores of a query: the output is the same, but soft caps and log-sum-exp
    want true scores. Deviations: static and sampled tokens are attended in the same place; tables
    are made once, at the first seal that finds tokens for them, so that the tokens of a further
    turn are attended in full like generated ones.
    """

    name: ClassVar[str] = "magicpig"

    sink_tokens: Tokens = 4
    local_tokens: Count = 64
    bits: Annotated[int, Field(ge=1, le=MOST_BITS)] = 10
    tables: Annotated[Number, Field(ge=2)] = 150
    dense_layers: Layers = (0,)
    seed: Seed = 0
    placement: OnePlace = "cpu"

    def layer(self, geometry: LayerGeometry) -> StoredState:
        """See Method."""
        if geometry.layer in self.dense_layers:
            return StoredState(geometry, self.placement)
        return MagicPIGState(self, geometry)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        sampled = isinstance(states[0], MagicPIGState)
        return (StaticSampled if sampled else StaticStored)(states, limits)

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See Method."""
        if geometry.layer in self.dense_layers:
            return StepBytes()
        around = self.sink_tokens + self.local_tokens
        hashed = [max(0, each - around) * geometry.query_heads for each in held]
        return StepBytes(ENTRY_BYTES * sum(hashed), 2 * max(hashed) // 8)  # and two bits a token


class MagicPIGState(StoredState):
    """One layer of one sequence."""

    def __init__(self, method: MagicPIG, geometry: LayerGeometry) -> None:
        super().__init__(geometry, method.placement)
        self.method = method
        self.index: HashIndex | None = None

    def seal(self) -> None:
        """See LayerState. Hashes everything but sinks and local window, once."""
        super().seal()
        start, stop = self.method.sink_tokens, len(self.store) - self.method.local_tokens
        if self.index is not None or start >= stop:
            return
        keys_GTD = torch.cat([part.keys_GTD for part in self.store.slices(start, stop)], dim=1)
        seed = hash((self.method.seed, self.geometry.layer)) & 0xFFFFFFFF
        planes_LDK = hyperplanes(self.method.tables, self.method.bits, keys_GTD.shape[2], seed)
        self.index = HashIndex(keys_GTD, planes_LDK, start)

    def read(self, q_HD: Tensor) -> Reading:
        """See StoredState."""
        if self.index is None:
            return super().read(q_HD)
        hits = self.index.search(q_HD)
        reading = self.sampled(self.index, hits, len(self.store))
        partials = self.placement.attend_ranges(q_HD, reading.selection.steady)
        for part in self.store.slices(*self.index.slots):
            partials.append(self.attend_sampled(q_HD, part, hits.found))
        return replace(reading, partials=partials)

    def sampled(self, index: HashIndex, hits: Collisions, tokens: int) -> Reading:
        """What a step reads of so many tokens where these collide; nothing is attended yet."""
        start, stop = index.slots
        return Reading(
            [],
            Selection(self.zones(start, tokens - stop, tokens), hits.found),
            distances=float(self.method.bits * self.method.tables),
            index_bytes=hits.bytes,
        )

    def attend_sampled(
        self,
        q_HD: Tensor,
        part: Part,
        found: Runs,
        *,
        expected: int | None = None,
        stacked: bool = False,
    ) -> Partial:
        """Attention over those of the sampled slots that lie in `part`, which are indexed; the
        options are of `sampled_decode`.
        """
        assert self.index is not None
        first = part.first - self.index.first_slot
        sampling = Sampling(
            self.index.mean_GD,
            self.index.norm_GT[:, first : first + part.stop - part.first],
            self.method.bits,
            self.method.tables,
        )
        return sampled_decode(
            q_HD,
            part.keys_GTD,
            part.values_GTD,
            found,
            sampling,
            first=part.first,
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
            expected=expected,
            stacked=stacked,
        )

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        index_bytes = 0 if self.index is None else self.index.nbytes
        return {"kv_bytes": self.placement.nbytes, "index_bytes": index_bytes}

"""What a prefill is: how a chunk of a prompt attends itself and what is stored before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from longspan.placement.part import Part
    from longspan.types import LayerGeometry, Partial


class Prefill(ABC):
    """The settings of a prefill; subclasses are `@settings` classes, registered by a yaml in
    conf/prefill.
    """

    name: ClassVar[str]

    @abstractmethod
    def attend(
        self, geometry: LayerGeometry, q_HQD: Tensor, chunk: Part, past: Iterable[Part]
    ) -> Partial:
        """Attend the chunk causally, together with everything stored before it: out [H, Q, D], lse
        [H, Q]. `past` is on the queries' device and may be walked once.

        What is chosen may depend on the chunk, as that is one of a row's own: the prompt is cut
        from its beginning every `Model.chunk_tokens` tokens, whatever is read beside it.
        """

"""Full attention: every step attends every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.methods.static import StaticStored, elsewhere
from longspan.options import settings
from longspan.placement.base import OnePlace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry


@settings
class Full(Method):
    """The yardstick: exact attention over the whole context.

    placement: where keys and values live and are attended, `cpu` or `gpu`.
    """

    name: ClassVar[str] = "full"

    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> StoredState:
        """See Method."""
        return StoredState(geometry, self.placement)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        return StaticStored(states, limits)

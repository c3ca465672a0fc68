"""Full attention: every step attends every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.options import settings
from longspan.placement.base import OnePlace

if TYPE_CHECKING:
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

"""A layer's query before the layer is reached, from what the attention below it is given.

Residual streams change little from layer to layer, so the normed hidden states of one, turned by
the weights of the next, give about its query (InfiniGen, Lee et al., arXiv 2406.19707).
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.models.decoder import of_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from longspan.models.cache import CacheLayer, StoreCache

ROTARY = "position_embeddings"
"""The argument of an attention module that a layer with a window may have another one of."""


class Guessed(Exception):
    """Ends the attention of a layer whose query is all that is wanted, and carries it."""

    def __init__(self, q_BHD: Tensor) -> None:
        super().__init__("a query was all that was wanted")
        self.q_BHD = q_BHD


class Guesses:
    """Guesses the queries of those layers that expect it; other steps pay nothing.

    The attention module of such a layer is called with the arguments of the one below,
    which is about to run, up to where it hands over its query; nothing is stored.
    """

    def __init__(self, attentions: Sequence[nn.Module], cache: StoreCache) -> None:
        """`attentions`: the attention modules, by layer."""
        self._attentions = attentions
        self._cache = cache
        self._rotary: Any = None
        """As the last layer without a window was given it in this step."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, the rows that are bound are given one token."""
        layers, self._rotary = self._cache.layers, None
        wanted = {layer.number - 1 for layer in layers[1:] if _expects(layer)}
        hooks = [
            module.register_forward_pre_hook(
                partial(self._before, number, number in wanted), with_kwargs=True
            )
            for number, module in enumerate(self._attentions)
            if number in wanted or (wanted and layers[number].window is None)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(
        self,
        number: int,
        wanted: bool,
        module: nn.Module,
        given: tuple[Any, ...],
        named: dict[str, Any] | None = None,
    ) -> None:
        """The attention of this layer is about to run. Another thread may get here while the hook
        is registered, before torch knows that it wants the named arguments.
        """
        del module
        if named is None or not any(each is self._cache for each in (*given, *named.values())):
            return  # somebody else's step
        if self._cache.layers[number].window is None:
            self._rotary = named.get(ROTARY)
        elif ROTARY in named:
            if self._rotary is None:
                return
            named = {**named, ROTARY: self._rotary}
        if wanted:
            self._tell(number + 1, given, named)

    def _tell(self, number: int, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._cache.guessing = True
        try:
            # not the module itself, whose hooks would guess on; its answer would be none
            self._attentions[number].forward(*given, **named)
        except Guessed as guess:
            layer = self._cache.layers[number]
            if layer.static is not None:
                layer.static.expect(guess.q_BHD)
                return
            for state, q_HD in zip(of_method(layer.states), guess.q_BHD, strict=True):
                if state.expects:
                    state.expect(q_HD)
        finally:
            self._cache.guessing = False


def _expects(layer: CacheLayer) -> bool:
    if layer.static is not None:
        return layer.static.expects
    return any(state.expects for state in of_method(layer.states))

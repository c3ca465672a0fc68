"""A dense method for the tests of the adapter, independent of the methods room."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from longspan.methods.base import LayerState, Method
from longspan.models.huggingface import HuggingFaceModel
from longspan.types import LayerGeometry, Partial, Selection, Work
from longspan_kernels.dense_decode import dense_decode

Load = Callable[..., HuggingFaceModel]


class DenseState(LayerState):
    """Everything in two growing tensors, attended with explicit scores."""

    def __init__(self, geometry: LayerGeometry) -> None:
        self.geometry = geometry
        none = torch.empty(
            geometry.kv_heads, 0, geometry.head_size, dtype=geometry.dtype, device=geometry.device
        )
        self.k, self.v = none, none
        self.seals = 0

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        past = self.k.shape[1]
        self.k, self.v = torch.cat([self.k, k_GQD], 1), torch.cat([self.v, v_GQD], 1)
        outs, lses = [], []
        for i in range(q_HQD.shape[1]):
            stop = past + i + 1
            one = self._attend(q_HQD[:, i], self.k[:, :stop], self.v[:, :stop])
            outs.append(one.out)
            lses.append(one.lse)
        return Partial(torch.stack(outs, 1), torch.stack(lses, 1))

    def _attend(self, q_HD: Tensor, k_GTD: Tensor, v_GTD: Tensor) -> Partial:
        return dense_decode(
            q_HD, k_GTD, v_GTD, scale=self.geometry.scale, softcap=self.geometry.softcap
        )

    def read_in_full(self) -> None:
        """Nothing else can be done."""

    def seal(self) -> None:
        self.seals += 1

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        self.k, self.v = (
            torch.cat([self.k, k_GD[:, None]], 1),
            torch.cat([self.v, v_GD[:, None]], 1),
        )

    def decode(self, q_HD: Tensor) -> Partial:
        return self._attend(q_HD, self.k, self.v)

    def fork(self) -> LayerState:
        twin = DenseState(self.geometry)
        twin.k, twin.v, twin.seals = self.k, self.v, self.seals
        return twin

    @property
    def selection(self) -> Selection:
        return Selection(steady=((0, self.k.shape[1]),))

    def work(self) -> Work:
        return Work(exact_tokens=self.k.shape[1])

    def memory(self) -> dict[str, int]:
        return {"kv_bytes": self.k.nbytes + self.v.nbytes, "index_bytes": 0}


class Dense(Method):
    name = "dense"

    def layer(self, geometry: LayerGeometry) -> LayerState:
        return DenseState(geometry)


class Recent(DenseState):
    """Attends the last `window` tokens when it decodes: wrong on purpose, to see that the tests
    have teeth.
    """

    def decode(self, q_HD: Tensor) -> Partial:
        return self._attend(q_HD, self.k[:, -4:], self.v[:, -4:])


class Lossy(Method):
    name = "lossy"

    def layer(self, geometry: LayerGeometry) -> LayerState:
        return Recent(geometry)

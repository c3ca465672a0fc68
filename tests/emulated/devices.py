"""Models whose layers lie on two devices, as accelerate puts them there."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import dispatch_model
from tests.emulated.anywhere import add
from tests.emulated.in_captures import near, refused
from tests.emulated.sessions import folder, life, model, same

from longspan.methods.full import Full
from longspan.models.graphs import same_streams
from longspan.models.huggingface import HuggingFace
from longspan.models.pieces import Between, Pieces

if TYPE_CHECKING:
    from collections.abc import Callable

SPLIT = ("full", "quest, wave_buffer", "retrieval_attention")
MAP = {
    "model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 1,
    "model.norm": 1, "lm_head": 1,
}  # fmt: skip
HEAD_APART = dict.fromkeys(MAP, 0) | {"lm_head": 1}


@cache
def split(graphs: str, *, layers: bool = True) -> Any:
    """The model of two layers, one on each device, or with no layer on the second."""
    weights, placed = HuggingFace._weights, MAP if layers else HEAD_APART

    def apart(self: HuggingFace, source: str, config: Any) -> Any:
        devices = {name: f"cuda:{number}" for name, number in placed.items()}
        return dispatch_model(weights(self, source, config).to("cpu"), devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HuggingFace, "_weights", apart)
        asked: dict[str, Any] = {"dtype": "float32", "device": "cpu", "graphs": graphs}
        made = HuggingFace(path=str(folder(2, "llama")), **asked).load()
    with torch.no_grad():
        made._decoder.module.get_input_embeddings().weight[0, ::2] = 0.7
    assert [each.device.index for each in made._decoder.geometries] == [0, int(layers)]
    return made


def agree(name: str, *, layers: bool = True) -> None:
    """Raises AssertionError where two devices do not say what one CPU does."""
    right, _ = life(name, model("cpu", "off", 2))
    found, session = life(name, split("on", layers=layers))
    assert session.steps_by.endswith(" graphs")  # accelerate moves more or less, by chance
    same(found, right)


def weights_in_host_memory() -> None:
    """No graph can hold how they come."""
    session = model("cuda", "on").session(Full(placement="gpu"))
    session.prefill([[5, 6]])
    with pytest.MonkeyPatch.context() as patch:
        module = session._decoder.module
        patch.setattr(module, "hf_device_map", {"model": 0, "lm_head": "cpu"}, raising=False)
        with pytest.raises(ValueError, match=r"model\.graphs = 'on': weights of the model lie in"):
            session.decode([5])


def pieces_of(work: Callable[[], Any]) -> tuple[Pieces, Any]:
    """A step over both devices."""
    devices = [torch.device("cuda", number) for number in range(2)]
    streams = {device: torch.cuda.Stream(device) for device in devices}  # type: ignore[no-untyped-call]
    with Pieces(streams, Between()) as pieces:
        found = work()
    assert torch.cuda.current_stream() is torch.cuda.default_stream()
    return pieces, found


def what_is_moved() -> None:
    """Once, unless it was written in the meantime; into other memory only where it is asked for."""
    x, into = torch.ones(4, device="cuda:0"), torch.zeros(4, device="cuda:1")

    def work() -> Any:
        first, again = x.to("cuda:1"), x.to("cuda:1")
        assert first is again
        into.copy_(first + 1)
        later = x.add_(1).to("cuda:1", torch.float64)
        into.add_(later).copy_(x + 1)
        return later * 2, x.double()

    pieces, (later, seen) = pieces_of(work)
    for time in (1, 2):
        pieces.replay()
        assert (later.device.index, later.tolist()) == (1, [2.0 * time + 2] * 4)
        assert (seen.device.index, seen.tolist()) == (0, [time + 1.0] * 4)
        assert into.tolist() == [time + 2.0] * 4


def what_is_written_where_it_is_moved() -> None:
    """It is moved anew, and so is what another device wrote."""
    x, y = torch.ones(4, device="cuda:0"), torch.zeros(4, device="cuda:1")

    def work() -> Any:
        there = x.to("cuda:1")
        there.add_(1)
        before = y.to("cuda:0") + 0
        y.copy_(x)
        return there, x.to("cuda:1") + 0, before, y.to("cuda:0") + 0

    pieces, found = pieces_of(work)
    pieces.replay()
    assert [each.tolist() for each in found] == [[number] * 4 for number in (2.0, 1.0, 0.0, 1.0)]


def what_fails_within_pieces() -> None:
    """It is told, not what comes of it; streams are what they were."""
    x = torch.ones(4, device="cuda:0")
    with same_streams([torch.device("cuda", number) for number in range(2)]):
        refused(lambda: pieces_of(lambda: x.to("cuda:1").sum().item()), "waits for the device")
    refused(lambda: pieces_of(lambda: x.to("cuda:1").view(3)), "invalid for input of size")
    assert torch.cuda.current_stream(1) is torch.cuda.default_stream(1)
    assert torch.cuda.current_device() == 0


def two_devices() -> None:
    """As torch and CUDA have them."""
    x, y = near(4), torch.ones(4, device="cuda:1")
    refused(lambda: x + y, "should be on one device")
    refused(lambda: add[(1,)](y, y, y, COUNT=4), "lies on cuda:1; the current device is cuda:0")
    with torch.cuda.device(1):
        add[(1,)](y, y, y, COUNT=4)
        assert near(1).device.index == 1
        with torch.cuda.stream(torch.cuda.Stream(0)):  # type: ignore[no-untyped-call]
            assert torch.cuda.current_device() == 0
        assert torch.cuda.current_device() == 1
    assert (x + y.to(x.device)).tolist() == [3.0] * 4


DEVICES = {
    **{f"two devices: {name}": partial(agree, name) for name in SPLIT},
    "two devices: no layer on one": partial(agree, "streaming_llm", layers=False),
    "weights in host memory": weights_in_host_memory,
    "two devices": two_devices,
    "two devices: what is moved": what_is_moved,
    "two devices: what is written": what_is_written_where_it_is_moved,
    "two devices: what fails": what_fails_within_pieces,
}

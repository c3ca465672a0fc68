"""The wave buffer on a GPU: pinned memory, one stream, the same answers; for machines that have
one.
"""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.retroinfer import RetroInfer
from longspan.placement import host
from longspan.placement.base import Place, place
from longspan.placement.wave_buffer import WaveBuffer
from longspan.types import Partial, Runs
from longspan_kernels.merge import merge
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.types import Pages

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def on_gpu(given: Layer) -> Layer:
    q, k, v = (tensor.cuda() for tensor in (given.q_HTD, given.k_GTD, given.v_GTD))
    return Layer(replace(given.geometry, device=q.device), q, k, v)


def on_cpu(found: Partial) -> Partial:
    return Partial(found.out.cpu(), found.lse.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("policy", ["lru", "tinylfu", "lfu"])
def test_it_answers_what_the_gpu_alone_answers(policy: str, dtype: torch.dtype) -> None:
    given = on_gpu(layer(700, groups=2, heads=3, size=64, dtype=dtype))
    states = []
    for placement in ("gpu", "wave_buffer"):
        method = RetroInfer(
            update_tokens=64,
            local_tokens=16,
            retrieval_budget=0.1,
            placement=placement,  # type: ignore[arg-type]
            cache_budget=0.1,
            cache_policy=policy,  # type: ignore[arg-type]
        )
        state = method.layer(given.geometry)
        given.prefill(state, 0, 200, 400)
        state.seal()
        states.append(state)
    placed = states[1].placement
    assert isinstance(placed, WaveBuffer)
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}[dtype]
    for position in range(400, 700):
        right, found = (given.step(state, position) for state in states)
        assert found.out.device.type == "cuda"
        assert_close(found, right, tolerance)
    assert placed.traffic is not None
    assert placed.traffic.hit_entries > 0
    for part in placed.store.parts[:-1]:
        assert part.keys_GTD.device.type == "cpu"
        assert part.keys_GTD.is_pinned()
        assert part.values_GTD.is_pinned()
    assert placed.store.parts[-1].keys_GTD.device.type == "cuda"


def test_memory_is_locked_as_long_as_it_is_held_and_no_longer() -> None:
    source = torch.randn(3, 1001, 24)
    pin = host.Pin(source, source.half())
    assert all(copy.is_pinned() for copy in pin.copies)
    assert torch.equal(pin.copies[0], source)
    copies = list(pin.copies)
    del pin
    gc.collect()
    assert not any(copy.is_pinned() for copy in copies)
    again = [host.Pin(torch.randn(5, 7)) for _ in range(50)]
    assert all(pin.copies[0].is_pinned() for pin in again)


def test_memory_that_cannot_be_locked_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def cudaHostRegister(self, *_: int) -> int:
            return 2

    monkeypatch.setattr(torch.cuda, "cudart", Refusing)
    with pytest.raises(ValueError, match=r"cannot be pinned \(CUDA error 2\)"):
        host.lock(host.aligned_bytes(100))


def test_forks_keep_the_host_memory_of_one_another_locked() -> None:
    given = on_gpu(layer(300, size=64))
    placed = place(Place("wave_buffer", cache_budget=0.2), given.geometry)
    placed.store.append(given.k_GTD, given.v_GTD)
    placed.store.freeze(256)
    placed.store.compact()
    twin = placed.fork()
    right = merge(twin.attend_ranges(given.q_HTD[:, 0], ((0, 300),)))
    del placed
    gc.collect()
    assert twin.store.parts[0].keys_GTD.is_pinned()
    found = merge(twin.attend_ranges(given.q_HTD[:, 0], ((0, 300),)))
    assert_close(on_cpu(found), on_cpu(right))


def test_a_prompt_goes_to_host_memory_where_the_gpu_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = on_gpu(layer(200, size=64))
    monkeypatch.setattr(host, "room", lambda device: host.SPARE_BYTES)
    placed = place("wave_buffer", given.geometry)
    placed.store.append(given.k_GTD[:, :100], given.v_GTD[:, :100])
    assert placed.store.parts[0].keys_GTD.device.type == "cpu"
    found = torch.cat([part.keys_GTD for part in placed.blocks(given.geometry.device)], dim=1)
    assert torch.equal(found, given.k_GTD[:, :100])
    placed.store.append(given.k_GTD[:, 100:101], given.v_GTD[:, 100:101])
    assert placed.store.parts[0].keys_GTD.device.type == "cpu"  # it may be the prompt's last
    placed.store.freeze(90)
    placed.store.append(given.k_GTD[:, 101:102], given.v_GTD[:, 101:102])
    assert placed.store.parts[-1].keys_GTD.device.type == "cuda"


def test_admission_never_overtakes_the_gather_before_it() -> None:
    """Both on one stream: a page that is read and then overwritten was read as it was."""
    pin = host.Pin(torch.full((1, 64, 128), 1.0))
    (store,) = pin.copies
    pool = torch.full((8 * 4096, 128), 2.0, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        hits = torch.arange(4096, device="cuda", dtype=torch.int32)[None] * 8
        size = torch.full_like(hits, 8)
        count = torch.tensor([4096], device="cuda", dtype=torch.int32)
        pages = Pages(hits, hits, size, count, 8)
        out = torch.zeros(1, 8 * 4096, 128, device="cuda")
        page_gather(store, store, pool, pool, pages, out, out)
        page_admit(torch.full_like(out, 3.0), torch.full_like(out, 3.0), pages, pool, pool)
    stream.synchronize()
    assert (out == 2).all()
    assert (pool == 3).all()


def test_runs_of_tokens_and_of_clusters_on_one_store() -> None:
    given = on_gpu(layer(400, groups=2, heads=2, size=64))
    placed, plain = (place(name, given.geometry) for name in ("wave_buffer", "gpu"))
    for one in (placed, plain):
        one.store.append(given.k_GTD, given.v_GTD)
        one.store.freeze(400)
        one.store.compact()
    start_NK = torch.tensor([[3, 300, 77], [9, 8, 1], [399, 0, 2], [5, 6, 7]], device="cuda").int()
    tokens = Runs(start_NK, None, torch.tensor([3, 2, 3, 0], device="cuda").int())
    sizes = torch.tensor([[17, 8, 1], [20, 3, 5]], device="cuda").int()
    starts = torch.tensor([[100, 50, 0], [200, 10, 20]], device="cuda").int()
    clusters = Runs(starts, sizes, torch.tensor([3, 3], device="cuda").int())
    for runs in (tokens, clusters, clusters, tokens):
        q_HD = given.q_HTD[:, 5]
        found, right = (merge(one.attend_runs(q_HD, runs)) for one in (placed, plain))
        torch.testing.assert_close(found.lse, right.lse, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.out, right.out, atol=1e-5, rtol=1e-5)

"""The store against a plain list of tokens, over random sequences of operations."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longspan.placement.host import HostStore
from longspan.placement.store import KVStore

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("freeze"), st.floats(0, 1)),
        st.tuples(st.just("reorder"), st.integers(0, 2**16)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("fork"), st.just(0)),
    ),
    max_size=25,
)


def store(groups: int = 2, size: int = 3) -> KVStore:
    return KVStore(groups, size, torch.float32, torch.device("cpu"))


class Model:
    """Per KV head the arrival numbers of the tokens, in slot order."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def fork(self) -> Model:
        return Model([list(row) for row in self.rows])


def tokens(first: int, count: int) -> torch.Tensor:
    """[2, count, 3]: token t of head g holds (t, g, -t)."""
    t = torch.arange(first, first + count, dtype=torch.float32)
    return torch.stack([torch.stack([t, torch.full_like(t, g), -t], -1) for g in range(2)])


def check(found: KVStore, model: Model) -> None:
    total = len(model.rows[0])
    assert len(found) == total
    assert sum(part.keys_GTD.shape[1] for part in found.parts) == total
    at = 0
    for part in found.parts:
        assert part.first == at
        assert part.keys_GTD.stride(-1) == part.values_GTD.stride(-1) == 1
        at = part.stop
        for g in range(2):
            right = torch.tensor(model.rows[g][part.first : part.stop], dtype=torch.float32)
            torch.testing.assert_close(part.keys_GTD[g, :, 0], right)
            torch.testing.assert_close(part.values_GTD[g, :, 2], -right * 2)
            if part.positions_GT is not None:
                assert part.positions_GT[g].tolist() == right.tolist()
            else:
                assert right.tolist() == list(range(part.first, part.stop))


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
@example([("append", 4), ("freeze", 0.25), ("freeze", 0.7), ("freeze", 1.0), ("compact", 0)])
def test_it_holds_what_was_put_in_whatever_happens(operations: list[tuple[str, float]]) -> None:
    found, model = store(), Model([[], []])
    left_behind: list[tuple[KVStore, Model]] = []
    for name, value in operations:
        total = len(found)
        if name == "append":
            new = tokens(total, int(value))
            found.append(new, 2 * new)
            model.rows = [row + list(range(total, total + int(value))) for row in model.rows]
        elif name == "freeze":
            stop = found.frozen + round(value * (total - found.frozen))
            found.freeze(stop)
            assert found.frozen == stop
        elif name == "reorder" and found.frozen:
            rng = torch.Generator().manual_seed(int(value))
            part = found.parts[int(value) % len([p for p in found.parts if p.stop <= found.frozen])]
            length = part.stop - part.first
            low = int(value) % length
            order = torch.stack([torch.randperm(length - low, generator=rng) for _ in range(2)])
            found.reorder(part.first + low, order)
            for row, way in zip(model.rows, order.tolist(), strict=True):
                old = row[part.first + low : part.stop]
                row[part.first + low : part.stop] = [old[index] for index in way]
        elif name == "compact":
            found.compact()
            lengths = [p.stop - p.first for p in found.parts if p.stop <= found.frozen]
            assert all(a > b for a, b in itertools.pairwise(lengths))
        elif name == "fork":
            left_behind.append((found, model))
            found, model = found.fork(), model.fork()
        check(found, model)
    for old, old_model in left_behind:
        check(old, old_model)


def test_forks_share_what_is_frozen_and_copy_the_tail() -> None:
    found = store()
    found.append(tokens(0, 50), tokens(0, 50))
    found.freeze(40)
    twin = found.fork()
    assert twin.parts[0].keys_GTD.data_ptr() == found.parts[0].keys_GTD.data_ptr()
    assert twin.parts[1].keys_GTD.data_ptr() != found.parts[1].keys_GTD.data_ptr()


def test_growth_is_amortised_and_frozen_parts_waste_little() -> None:
    found = store()
    copies, seen = 0, 0
    for number in range(4000):
        found.append(tokens(number, 1), tokens(number, 1))
        address = found.parts[-1].keys_GTD.data_ptr()
        copies, seen = copies + (address != seen), address
    assert copies < 40
    useful = 4000 * 2 * 3 * 4 * 2
    assert useful <= found.nbytes <= 1.6 * useful
    found.freeze(4000)
    assert found.nbytes <= 1.13 * useful


def test_slices_follow_the_parts() -> None:
    found = store()
    found.append(tokens(0, 30), tokens(0, 30))
    found.freeze(10)
    found.freeze(20)
    spans = [(part.first, part.stop) for part in found.slices(5, 25)]
    assert spans == [(5, 10), (10, 20), (20, 25)]
    assert not list(found.slices(7, 7))


def test_wrong_requests_are_named() -> None:
    found = store()
    found.append(tokens(0, 10), tokens(0, 10))
    with pytest.raises(ValueError, match="stop is 11"):
        found.freeze(11)
    found.freeze(5)
    with pytest.raises(ValueError, match="stop is 4"):
        found.freeze(4)
    with pytest.raises(ValueError, match=r"slots \[4, 6\) do not lie in one frozen part"):
        found.reorder(4, torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="k has shape"):
        found.append(tokens(0, 1)[:1], tokens(0, 1))
    with pytest.raises(ValueError, match="v has shape"):
        found.append(tokens(0, 1), tokens(0, 2))


def test_a_prompt_in_host_memory_stays_there_until_it_is_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where its last chunk is one token, which is no decode step."""
    moves: list[torch.device] = []
    monkeypatch.setattr(HostStore, "_tail_to", lambda self, device: moves.append(device))
    store = HostStore(1, 4, torch.float32, torch.device("cpu"))
    store.near = torch.device("cuda")  # the prompt had no room there
    for count in (5, 1):
        store.append(torch.ones(1, count, 4), torch.ones(1, count, 4))
    assert moves == []
    store.freeze(6)
    store.append(torch.ones(1, 1, 4), torch.ones(1, 1, 4))
    assert moves == [store.near]

"""The scan of a step: every path against the search of each row by itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from test_key_scan import exact_products, inputs
from triton_cases import DEVICE, moved, on_gpu

from longspan_kernels.key_scan import best_keys
from longspan_kernels.key_scan.steps import Candidates, SlotCodes, best_slots

if TYPE_CHECKING:
    from longspan_kernels.dispatch import Backend

BACKENDS = [
    "reference",
    pytest.param(
        "triton",
        marks=pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed"),
    ),
]
ROOM, SLOTS, STRETCHES = 260, 270, 8
CASES: dict[str, Any] = {
    "plain": {},
    "R=1": {"groups": 3, "heads": 1},
    "R=71": {"groups": 1, "heads": 71},
    "D=80, rank 20": {"size": 80, "rank": 20},
    "D=96": {"size": 96, "rank": 96},
    "float16": {"dtype": torch.float16},
    "bfloat16": pytest.param({"dtype": torch.bfloat16}, marks=on_gpu),
}
FEW = {name: case for name, case in CASES.items() if name != "R=71"}
LENGTHS = ((150, 50, 7), (), (2,) * 7, (230,))
"""Of the rows' stretches: some longer than a block of the kernel, many within one, and none."""
FIRST = (4, 0, 0, 9)


class Rows:
    """Rows one by one, and the same in buffers full of what must not be read."""

    def __init__(self, **given: Any) -> None:
        self.rows = [inputs(lengths=lengths or (1,), **given) for lengths in LENGTHS]
        self.tokens = [sum(lengths) for lengths in LENGTHS]
        q_HD, keys, coded, where = self.rows[0]
        (groups, _, width), size = coded[0].code_GTW.shape, q_HD.shape[1]
        rows = len(LENGTHS)
        self.q_XD = torch.cat([row[0] for row in self.rows])
        wide = torch.randint(-127, 128, (rows, groups, ROOM + 3, width + 32)).to(torch.int8)
        code_BGTW = wide[:, :, 2:-1, :width]
        step_BGSW = torch.full((rows, groups, STRETCHES, width), 1e4)
        to_queries_BGDW = torch.zeros(rows, groups, size, width)
        stretch_BT = torch.full((rows, ROOM), STRETCHES - 1).int()
        self.keys_BGCD = torch.full((rows, groups, SLOTS, size), torch.nan, dtype=keys[0].dtype)
        self.keys_BGCD[:, :, 0] = 1
        for b, (_, keys, coded, where) in enumerate(self.rows):
            if not LENGTHS[b]:
                continue
            at = 0
            for number, each in enumerate(coded):
                here = slice(at, at + each.code_GTW.shape[1])
                code_BGTW[b, :, here], step_BGSW[b, :, number] = each
                stretch_BT[b, here], at = number, here.stop
            to_queries_BGDW[b] = where.to_queries_GDW
            self.keys_BGCD[b, :, FIRST[b] : FIRST[b] + at] = torch.cat(keys, 1)
        numbers = torch.tensor(FIRST).int(), torch.tensor(self.tokens).int()
        buffers = (x.flatten(0, 1) for x in (code_BGTW, step_BGSW, to_queries_BGDW))
        self.codes = SlotCodes(*buffers, stretch_BT, *numbers)

    def right(self, b: int, k: int) -> torch.Tensor:
        """What the search of a row finds."""
        q_HD, _, coded, where = self.rows[b]
        return best_keys(q_HD, coded, where, k, backend="reference") + FIRST[b]

    def of(self, found_XK: torch.Tensor, b: int) -> torch.Tensor:
        """A row's share."""
        return found_XK.view(len(LENGTHS), -1, found_XK.shape[1])[b]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_each_row_finds_what_it_finds_alone(case: dict[str, Any], backend: Backend) -> None:
    rows = Rows(**case)
    found = best_slots(moved(rows.q_XD), moved(rows.codes), 220, backend=backend).cpu()
    assert found.dtype == torch.int32
    for b, tokens in enumerate(rows.tokens):
        mine = rows.of(found, b)
        k = min(220, tokens)
        assert (mine[:, k:] == 0).all()
        if not k:
            continue
        if DEVICE.type == "cpu":  # elsewhere the queries' products are rounded otherwise
            assert torch.equal(mine[:, :k], rows.right(b, k))
        lists = zip(mine[:, :k].tolist(), rows.right(b, k).tolist(), strict=True)
        assert min(len(set(x) & set(y)) for x, y in lists) >= k - 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", FEW.values(), ids=list(FEW))
def test_keys_order_the_candidates(case: dict[str, Any], backend: Backend) -> None:
    rows = Rows(**case)
    most, counts = 60, [100, 0, 14, 90]
    keys_NCD, count_B = rows.keys_BGCD.flatten(0, 1), torch.tensor(counts).int()
    given = moved(rows.q_XD), moved(rows.codes), most
    found = best_slots(*given, moved(Candidates(keys_NCD, 110, count_B)), backend=backend).cpu()
    for b, (count, tokens) in enumerate(zip(counts, rows.tokens, strict=True)):
        k, mine = min(most, count), rows.of(found, b)
        assert (mine[:, k:] == 0).all()
        if not tokens:
            continue
        product_HT = exact_products(rows.rows[b][0], rows.rows[b][1])
        of_codes = rows.right(b, count).long() - FIRST[b]
        best = product_HT.gather(1, of_codes).topk(k).values
        got = product_HT.gather(1, mine[:, :k].long() - FIRST[b])
        torch.testing.assert_close(got, best, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e12])
def test_tiny_and_huge_numbers(backend: Backend, size: float) -> None:
    rows = Rows()
    rows.codes.step_NSW.mul_(size)
    for factor in (size, 1.0, 0.0):
        given = factor * rows.q_XD, rows.codes, 30
        found = best_slots(*moved([*given]), backend=backend).cpu()
        right = best_slots(*given, backend="reference")
        assert DEVICE.type == "cuda" or torch.equal(found, right)
        if not factor * size:  # all are alike, so the last ones come first
            assert found[0].tolist() == list(range(210, 180, -1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_of_no_number_harms_no_other_row(backend: Backend) -> None:
    rows = Rows()
    right = best_slots(moved(rows.q_XD), moved(rows.codes), 30, backend=backend)
    rows.q_XD[0] = torch.nan
    found = best_slots(moved(rows.q_XD), moved(rows.codes), 30, backend=backend)
    assert torch.equal(found[1:], right[1:])
    assert ((found >= 0) & (found < SLOTS)).all()


def test_what_does_not_fit_is_named() -> None:
    rows = Rows()
    q_XD, codes = rows.q_XD, rows.codes
    few = Candidates(rows.keys_BGCD.flatten(0, 1), 5, codes.tokens_B)
    for call, message in (
        (lambda: best_slots(q_XD[1:], codes, 3), r"q has shape \[31, 64\]; it should be \[a mul"),
        (lambda: best_slots(q_XD, codes, 261), "most is 261, of 261 candidates; right is 1 <= "),
        (lambda: best_slots(q_XD, codes, 6, few), "most is 6, of 5 candidates"),
        (
            lambda: best_slots(q_XD, codes, 3, few._replace(keys_NCD=few.keys_NCD[1:])),
            r"keys has shape \[7, 270, 64\]",
        ),
        (
            lambda: best_slots(q_XD, codes, 3, few._replace(count_B=few.count_B.long())),
            "candidates' count has shape",
        ),
        (
            lambda: best_slots(q_XD, codes._replace(tokens_B=codes.tokens_B[:3]), 3),
            "codes have 8 heads; it should be a multiple of the 3 rows",
        ),
        (
            lambda: best_slots(q_XD, codes._replace(stretch_BT=codes.stretch_BT[:, 1:]), 3),
            r"stretch has shape \[4, 259\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()

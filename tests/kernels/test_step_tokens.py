"""The tokens of all rows of a step by their codes: against each row by itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from triton_cases import DTYPES, moved

from longspan_kernels.product_codes import reference, step_tokens
from longspan_kernels.types import Coded, CodedRows

if TYPE_CHECKING:
    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Sharing

BACKENDS = [
    "reference",
    pytest.param(
        "triton",
        marks=pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed"),
    ),
]
FLOATS = [dtype for dtype in DTYPES if dtype is not torch.int8]
ROOM = 90
CASES: list[tuple[int, int, int, int, int, list[tuple[int, ...]]]] = [
    # groups, heads of a group, head size, parts, centroids, tokens of each row's codebooks
    (2, 4, 64, 2, 50, [(80,), (17,), ()]),
    (1, 1, 96, 3, 16, [(5, 20, 60), (90,), (1, 2)]),
    (1, 3, 64, 4, 256, [(30, 50), (1,)]),
    (1, 19, 64, 1, 33, [(5, 40), (), (70,)]),
]


def inputs(
    groups: int, a_group: int, width: int, parts: int, clusters: int, rows: list[tuple[int, ...]]
) -> tuple[torch.Tensor, CodedRows, list[list[Coded]]]:
    """Queries, buffers, and what they hold of each row; there is rubbish elsewhere."""
    books, shape = max(1, *map(len, rows)), (len(rows), groups, parts)
    centroids = torch.full((*shape, books, clusters, width // parts), float("nan"))
    code_BGPT = torch.full((*shape, ROOM), 255, dtype=torch.uint8)
    stop_BS = torch.zeros(len(rows), books, dtype=torch.int32)
    held: list[list[Coded]] = []
    for row, stretches in enumerate(rows):
        held.append([])
        for book, tokens in enumerate(stretches):
            some = max(1, clusters - book)  # of short stretches there are fewer
            mine = centroids[row, :, :, book, :some]
            mine.copy_(torch.randn(mine.shape))
            code_GPT = torch.randint(some, (groups, parts, tokens)).byte()
            first = int(stop_BS[row, book])
            code_BGPT[row, :, :, first : first + tokens] = code_GPT
            stop_BS[row, book:] = first + tokens
            held[-1].append(Coded(mine, code_GPT))
    q_XD = torch.randn(len(rows) * groups * a_group, width)
    centroids_NPCE = centroids.flatten(3, 4).flatten(0, 1)
    return q_XD, CodedRows(centroids_NPCE, code_BGPT.flatten(0, 1), stop_BS), held


def weights(q_HD: torch.Tensor, coded: list[Coded], scale: float, share: Sharing) -> torch.Tensor:
    """float32 [N, T]: logarithms, by which the reference ranks."""
    z_GRT = torch.cat([reference.look_up(q_HD, each) for each in coded], dim=2) * scale
    return z_GRT.flatten(0, 1) if share == "query_head" else z_GRT.log_softmax(-1).logsumexp(1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("share", ["kv_head", "query_head"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_row_has_the_best_of_its_own(
    case: Any, share: Sharing, dtype: torch.dtype, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "triton" and dtype == torch.float32:  # more blocks than are added at once
        monkeypatch.setattr("longspan_kernels.product_codes.triton.TILE", 512)
        monkeypatch.setattr("longspan_kernels.product_codes.triton.PART_BLOCK", 2)
    q_XD, coded, held = inputs(*case)
    q_XD = q_XD.to(dtype)
    for scale, most in ((0.05, 40), (3.0, ROOM)):  # in the second case most weights vanish
        found = step_tokens(
            moved(q_XD), moved(coded), most, scale=scale, share=share, backend=backend
        )
        assert found.dtype == torch.int32
        found_BNK = found.cpu().view(len(held), -1, most)
        assert found_BNK.shape[1] == case[0] * (case[1] if share == "query_head" else 1)
        q_BHD = q_XD.view(len(held), -1, q_XD.shape[1])
        for found_NK, q_HD, stretches in zip(found_BNK, q_BHD, held, strict=True):
            assert (found_NK.sort().values.diff() > 0).all()  # none twice
            assert ((found_NK >= 0) & (found_NK < ROOM)).all()
            if not stretches:
                continue
            weight_NT = weights(q_HD, stretches, scale, share)
            count = min(most, weight_NT.shape[1])  # those that are there come first
            best_NK = weight_NT.gather(1, found_NK[:, :count].long())
            right_NK = weight_NT.topk(count).values
            torch.testing.assert_close(best_NK, right_NK, atol=2e-4, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    q_XD, coded, _ = inputs(1, 2, 64, 2, 8, [(20, 40), (30,)])
    centroids_NPCE, code_NPT, stop_BS = coded
    for q, given, most, message in (
        (q_XD[:3], coded, 5, r"q has shape \[3, 64\].* X a multiple of 2"),
        (q_XD[:, :8], coded, 5, r"should be \[X, 64\]"),
        (q_XD, coded._replace(code_NPT=code_NPT[:, :1]), 5, r"codes \[2, 1, 90\]"),
        (q_XD, coded._replace(stop_BS=stop_BS.repeat(2, 1)), 5, r"stops \[4, 2\]"),
        (q_XD, coded._replace(centroids_NPCE=centroids_NPCE[:, :, :15]), 5, "a multiple of B and"),
        (q_XD, coded._replace(stop_BS=stop_BS.long()), 5, "stops torch.int64"),
        (q_XD, coded._replace(code_NPT=code_NPT.int()), 5, "codes are torch.int32"),
        (q_XD, coded, 91, "most is 91; it should be 1 to 90"),
        (q_XD, coded, 0, "most is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            step_tokens(q, given, most, scale=0.2)
    with pytest.raises(ValueError, match="share is 'head'"):
        step_tokens(q_XD, coded, 5, scale=0.2, share="head")  # type: ignore[arg-type]

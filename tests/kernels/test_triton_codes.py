"""Product quantisation in Triton against the reference, as in test_triton.py."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch
from triton_cases import DTYPES, moved

from longspan_kernels.product_codes import best_tokens, encode, reference
from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from longspan_kernels.types import Sharing

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
FLOATS = [dtype for dtype in DTYPES if dtype is not torch.int8]
CASES = [  # groups, heads of a group, tokens of each stretch, head size, parts, centroids
    (1, 1, (1,), 64, 1, 1),
    (3, 1, (300, 41), 96, 2, 64),
    (2, 2, (257,), 192, 4, 16),
    (2, 4, (130, 1, 64), 128, 2, 64),
    (1, 7, (160,), 256, 8, 256),
    (2, 8, (64, 100), 64, 4, 33),
    (1, 37, (70, 40), 64, 2, 16),
]


def inputs(
    groups: int, a_group: int, tokens: tuple[int, ...], width: int, parts: int, clusters: int
) -> tuple[torch.Tensor, list[Coded]]:
    """Queries, and stretches with codebooks of their own."""
    coded = [
        Coded(
            torch.randn(groups, parts, clusters, width // parts),
            torch.randint(clusters, (groups, parts, some), dtype=torch.uint8),
        )
        for some in tokens
    ]
    return torch.randn(groups * a_group, width), coded


def weights(q_HD: torch.Tensor, coded: list[Coded], scale: float, share: Sharing) -> torch.Tensor:
    """float32 [N, T]: logarithms, by which the reference ranks."""
    z_GRT = torch.cat([reference.look_up(q_HD, each) for each in coded], dim=2) * scale
    return z_GRT.flatten(0, 1) if share == "query_head" else z_GRT.log_softmax(-1).logsumexp(1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("share", ["kv_head", "query_head"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_best_tokens(
    dtype: torch.dtype,
    share: Sharing,
    case: tuple[int, int, tuple[int, ...], int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from longspan_kernels.product_codes import triton

    if dtype == torch.float32:  # more blocks than masses that are added at once
        monkeypatch.setattr(triton, "TILE", 512)
        monkeypatch.setattr(triton, "PART_BLOCK", 2)
    q_HD, coded = inputs(*case)
    q_HD, tokens = q_HD.to(dtype), sum(case[2])
    # with the second scale most weights vanish
    for scale, wanted in ((0.05, max(1, tokens // 9)), (3.0, max(1, tokens - 1))):
        weight_NT = weights(q_HD, coded, scale, share)
        found_NK = best_tokens(
            moved(q_HD), moved(coded), wanted, scale=scale, share=share, backend="triton"
        ).cpu()
        assert found_NK.dtype == torch.int32
        assert (found_NK.sort().values.diff() > 0).all()  # none twice
        assert ((found_NK >= 0) & (found_NK < tokens)).all()
        # tokens of one code weigh the same, so weights are compared rather than tokens
        best_NK = weight_NT.gather(1, found_NK.long()).sort(1, descending=True).values
        torch.testing.assert_close(best_NK, weight_NT.topk(wanted).values, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("groups", "tokens", "width", "parts", "clusters"),
    [(1, 1, 64, 1, 1), (2, 300, 96, 2, 64), (2, 70, 128, 4, 256), (3, 33, 192, 8, 7)],
)
def test_codes(
    dtype: torch.dtype, groups: int, tokens: int, width: int, parts: int, clusters: int
) -> None:
    store_GTD = (torch.randn(groups, tokens + 5, width) + 4).to(dtype)
    keys_GTD = store_GTD[:, 2 : tokens + 2]
    centroids_GPCE = torch.randn(groups, parts, clusters, width // parts) + 4
    found = encode(*moved([keys_GTD, centroids_GPCE]), backend="triton").cpu()
    right = encode(keys_GTD, centroids_GPCE, backend="reference")
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    losses = [
        (keys_GTD.float() - reference.decode(code_GPT, centroids_GPCE)).square().sum(-1)
        for code_GPT in (found, right)
    ]
    # as near, where two centroids are as near but for rounding
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-4)
    assert (found == right).float().mean() > 0.99


def test_views_are_read_where_they_lie() -> None:
    """Codes of a longer store, centroids of other parts beside them, queries of a wider row."""
    q_HD, (coded,) = inputs(2, 4, (200,), 64, 4, 32)
    wide = torch.randn(8, 80)
    wide[:, :64] = q_HD
    centroids_GPCE = torch.randn(2, 6, 40, 16)
    centroids_GPCE[:, :4, :32] = coded.centroids_GPCE
    code_GPT = torch.full((2, 5, 230), 255, dtype=torch.uint8)
    code_GPT[:, 1:, 7:207] = coded.code_GPT
    view = moved(Coded(centroids_GPCE, code_GPT))
    view = Coded(view.centroids_GPCE[:, :4, :32], view.code_GPT[:, 1:, 7:207])
    found, right = (
        best_tokens(q, [each], 20, scale=0.2, backend="triton").sort().values
        for q, each in ((moved(wide)[:, :64], view), (moved(q_HD), moved(coded)))
    )
    assert torch.equal(found, right)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the interpreter's
def test_a_code_without_a_centroid_is_not_looked_up() -> None:
    """The host cannot know of it without waiting: weights are NaN, not of what lies there."""
    q_HD, (coded,) = inputs(1, 2, (50,), 64, 2, 8)
    coded.code_GPT[:, 1, 9] = 8
    for share in ("kv_head", "query_head"):
        found = best_tokens(
            moved(q_HD), moved([coded]), 5, scale=0.2, share=share, backend="triton"
        )
        assert ((found >= 0) & (found < 50)).all()


def test_what_the_kernels_cannot_read_is_refused() -> None:
    q_HD, coded = inputs(1, 2, (50,), 64, 2, 8)
    strided = [each._replace(code_GPT=each.code_GPT.repeat_interleave(2, 2)[..., ::2])
               for each in coded]  # fmt: skip
    for q, codes, message in (
        (q_HD.double(), coded, "no Triton kernel reads torch.float64"),
        (q_HD[:, :12], coded, "head size is 12"),
        (q_HD, strided, "numbers are 2 apart"),
    ):
        with pytest.raises(ValueError, match=message):
            best_tokens(q, codes, 5, scale=0.2, backend="triton")

"""Product quantisation: every path against the reference, which tests/indexes/test_pq.py checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from longspan_kernels.product_codes import best_tokens, encode, reference, train
from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from longspan_kernels.types import Sharing

CASES: dict[str, dict[str, Any]] = {
    "2 parts": {},
    "one centroid": {"clusters": 1},
    "bytes": {"clusters": 256, "parts": 4, "tokens": 900},
    "D=80": {"width": 80, "parts": 5, "heads": 3},
    "R=1": {"groups": 5, "heads": 1},
    "R=71": {"groups": 1, "heads": 71, "width": 64, "parts": 1},
    "R=16": {"groups": 2, "heads": 16, "tokens": 77},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16, "width": 96, "parts": 3, "heads": 6},
    "more tokens than a piece": {"tokens": 5000, "groups": 1, "heads": 2},
}


def inputs(
    groups: int = 2, heads: int = 4, tokens: int = 600, width: int = 32, parts: int = 2,
    clusters: int = 16, dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor, int, int]:  # fmt: skip
    """Keys in spots far from the origin, queries, parts, centroids."""
    spots_GSD = torch.randn(groups, 12, width) * 3
    keys_GTD = spots_GSD[:, torch.randint(12, (tokens,))] + torch.randn(groups, tokens, width) + 5
    return keys_GTD.to(dtype), torch.randn(groups * heads, width).to(dtype), parts, clusters


def distances(keys_GTD: torch.Tensor, coded: Coded) -> torch.Tensor:
    """float32 [G, T]: squares of what the codes lose."""
    stored_GTD = reference.decode(coded.code_GPT, coded.centroids_GPCE)
    return (keys_GTD.float() - stored_GTD).square().sum(-1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_codebooks_and_codes(case: str, threads: int, isa: Any) -> None:
    keys_GTD, _, parts, clusters = inputs(**CASES[case])
    one, right = (
        train(keys_GTD, parts, clusters, 1, backend=backend, threads=threads)
        for backend in (isa, "reference")
    )
    torch.testing.assert_close(one, right, atol=1e-4, rtol=1e-4)
    found = encode(keys_GTD, right, backend=isa, threads=threads)
    code_GPT = encode(keys_GTD, right, backend="reference")
    # as near, where two centroids are as near but for rounding
    losses = [distances(keys_GTD, Coded(right, code)) for code in (found, code_GPT)]
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-4)
    assert (found == code_GPT).float().mean() > 0.99
    # after more rounds a tie may have led elsewhere, but to no worse a place
    many, others = (train(keys_GTD, parts, clusters, 8, backend=b) for b in (isa, "reference"))
    lost, other = (
        distances(keys_GTD, Coded(c, encode(keys_GTD, c))).mean().item() for c in (many, others)
    )
    assert lost == pytest.approx(other, rel=0.05)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", ["kv_head", "query_head"])
@pytest.mark.parametrize("case", CASES)
def test_the_best_tokens(case: str, share: Sharing, threads: int, isa: Any) -> None:
    keys_GTD, q_HD, parts, clusters = inputs(**CASES[case])
    tokens = keys_GTD.shape[1]
    coded = []
    for some_GTD in (keys_GTD[:, : tokens // 3], keys_GTD[:, tokens // 3 :]):
        centroids_GPCE = train(some_GTD, parts, clusters, 2, backend="reference")
        coded.append(Coded(centroids_GPCE, encode(some_GTD, centroids_GPCE, backend="reference")))
    for scale in (0.05, 2.0):  # in the second case most weights vanish
        z_GRT = torch.cat([reference.look_up(q_HD, each) for each in coded], dim=2) * scale
        weight_NT = (
            z_GRT.flatten(0, 1) if share == "query_head" else z_GRT.log_softmax(-1).logsumexp(1)
        )
        for wanted in (1, tokens // 9, tokens - 1, tokens):
            found_NK = best_tokens(
                q_HD, coded, wanted, scale=scale, share=share, backend=isa, threads=threads
            )
            assert found_NK.dtype == torch.int32
            assert (found_NK[:, 1:] > found_NK[:, :-1]).all()  # ascending, so none twice
            best_NK = weight_NT.gather(1, found_NK.long()).sort(1, descending=True).values
            # tokens of one code weigh the same, so weights are compared rather than tokens
            right_NK = weight_NT.topk(wanted).values
            torch.testing.assert_close(best_NK, right_NK, atol=2e-4, rtol=1e-5)


def test_threads_change_nothing(isa: Any) -> None:
    keys_GTD, q_HD, parts, clusters = inputs(tokens=3000)
    results = []
    for threads in (1, 2, 5):
        centroids_GPCE = train(keys_GTD, parts, clusters, 5, backend=isa, threads=threads)
        code_GPT = encode(keys_GTD, centroids_GPCE, backend=isa, threads=threads)
        coded = [Coded(centroids_GPCE, code_GPT)]
        found_NK = best_tokens(q_HD, coded, 200, scale=0.3, backend=isa, threads=threads)
        results.append((centroids_GPCE, code_GPT, found_NK))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_what_does_not_fit_is_refused() -> None:
    keys_GTD, q_HD, _, _ = inputs(tokens=30)
    with pytest.raises(ValueError, match="parts is 3; it should divide the head size, 32"):
        train(keys_GTD, 3, 4, 1)
    for clusters in (0, 257):
        with pytest.raises(ValueError, match=f"{clusters} centroids for 30 keys"):
            train(keys_GTD, 2, clusters, 1)
    centroids_GPCE = train(keys_GTD, 2, 99, 1)
    assert centroids_GPCE.shape == (2, 2, 30, 16)  # no more than there are keys
    with pytest.raises(ValueError, match=r"keys have shape \[2, 30, 24\]"):
        encode(keys_GTD[..., :24], centroids_GPCE)
    coded = [Coded(centroids_GPCE, encode(keys_GTD, centroids_GPCE))]
    for wanted in (0, 31):
        with pytest.raises(ValueError, match=f"wanted is {wanted}; it should be 1 to 30"):
            best_tokens(q_HD, coded, wanted, scale=1.0)
    with pytest.raises(ValueError, match="share is 'head'"):
        best_tokens(q_HD, coded, 3, scale=1.0, share="head")  # type: ignore[arg-type]
    wild = [coded[0]._replace(code_GPT=coded[0].code_GPT + 200)]
    with pytest.raises(ValueError, match="a code names a centroid that is not there"):
        best_tokens(q_HD, wild, 3, scale=1.0, backend="native")

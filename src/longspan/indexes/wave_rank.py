"""Ranking the clusters of a wave index: all of them, or those of the best groups."""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan_kernels.wave_decode.mass import log_masses, unmet
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.wave_groups import Groups
    from longspan.indexes.wave_meta import Meta
    from longspan.indexes.wave_options import WaveOptions
    from longspan_kernels.types import Runs, WaveHits


class Ranked(NamedTuple):
    """The best clusters, and how many centroids and middles of groups were scored, per KV head."""

    hits: WaveHits
    products: float


def rank(
    meta: Meta,
    groups: Groups | None,
    options: WaveOptions,
    q_HD: Tensor,
    retrieve: int,
    estimate: int,
    budget: Budget,
    scale: float,
    mass_bias_GC: Tensor,
) -> Ranked:
    """The `retrieve` best clusters of each KV head and the `estimate` next ones; `mass_bias_GC`:
    what scores get added where clusters are ranked by mass.
    """
    within, products = None, float(meta.size_GC.shape[1])
    if groups is not None:
        wanted = (retrieve + estimate) / products
        within, products = _near(groups, options, q_HD, wanted, scale)
    search = partial(
        wave_search,
        q_HD,
        meta.centroids_GCD,
        meta.size_GC,
        retrieve=retrieve,
        estimate=estimate,
        scale=scale,
        softcap=options.softcap,
        vote="max" if options.vote == "max" else "sum",
        bias_GC={"mass": mass_bias_GC, "sized": meta.log_size_GC}.get(options.vote),
        within=within,
    )
    hits = search(want_scores=options.wants_scores)
    if options.vote != "unmet":
        return Ranked(hits, products)
    assert hits.score_HC is not None
    mass_GRC = log_masses(hits.score_HC, meta.log_size_GC)
    return Ranked(search(weight_H=unmet(mass_GRC, budget.exact_lse_H)), products)


def _near(
    groups: Groups, options: WaveOptions, q_HD: Tensor, wanted: float, scale: float
) -> tuple[Runs, float]:
    """The clusters of the best groups, about `group_slack` times the share of all that is `wanted`,
    and the centroids that this makes to be scored. Groups of generated tokens are smaller.
    """
    count = groups.count_GN.shape[1]
    opened = count if wanted >= 1 else min(ceil(options.group_slack * wanted * count), count)
    hits = wave_search(
        q_HD,
        groups.centroids_GND,
        groups.count_GN,
        retrieve=opened,
        estimate=0,
        scale=scale,
        softcap=options.softcap,
        vote="max" if options.vote == "max" else "sum",
        want_scores=False,
    )
    within = groups.runs(hits.retrieve_GK, hits.live_G)
    assert within.size_NK is not None
    live_NK = torch.arange(opened, device=q_HD.device) < hits.live_G[:, None]
    held = float(torch.where(live_NK, within.size_NK, 0).sum()) / len(groups.count_GN)
    return within, count + held

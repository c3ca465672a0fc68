# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Add your method
#
# A method is a class: its fields are its settings, `layer` opens the state of one layer of one
# sequence, and the state says what a query reads. The frame does the rest: exact prefill, storage,
# the merge of exact parts, forks, batches, counting of work. A prompt that another job of a sweep
# has read is not read again, unless the state has a `prefill` of its own, as one has that looks at
# the prompt's queries. Here is a whole one, and its comparison with what is there.

# %% tags=["parameters"]
common = [
    "model=nano",
    "task=ruler_vt",
    "ctx=4k",
    "samples=20",
    "recorder=local",
    "results=../results/add_your_method",
]
folder = "../results/add_your_method"
conf = "../conf"

# %% [markdown]
# ## The method
#
# The query heads that share a KV head read the same keys from memory. `oracle_topk` lets every
# query head choose for itself; ours lets the heads of a group vote with their attention, so that a
# group reads one set of tokens.

# %%
from typing import ClassVar

import torch

from longspan.methods.chosen import ChosenState
from longspan.methods.oracle_topk import OracleTopK
from longspan.options import settings
from longspan.types import Runs


@settings
class GroupTopK(OracleTopK):
    """The tokens that weigh most for all query heads of a KV head together."""

    name: ClassVar[str] = "group_topk"

    def layer(self, geometry):
        return GroupState(self, geometry)


class GroupState(ChosenState):
    """One layer of one sequence."""

    def __init__(self, method, geometry):
        super().__init__(
            geometry, method.placement, sink=method.sink_tokens, local=method.local_tokens
        )
        self.budget = method.budget

    def choose(self, q_HD, start, stop):
        weight_HT = self.exact_scores(q_HD, start, stop).softmax(-1)
        weight_GT = weight_HT.unflatten(0, (self.geometry.kv_heads, -1)).sum(1)
        wanted = max(1, round(self.budget * (stop - start)))
        slot_GK = weight_GT.topk(wanted).indices + start
        return Runs(slot_GK.int(), None, torch.full_like(slot_GK[:, 0], wanted).int())


# %% [markdown]
# ## A check before any score
#
# With a budget of everything, a method must be full attention. Worth a look on random numbers
# before a model is loaded.

# %%
from longspan.methods.full import Full
from longspan.types import LayerGeometry

shape = LayerGeometry(
    layer=0,
    query_heads=8,
    kv_heads=2,
    head_size=16,
    scale=0.25,
    dtype=torch.float32,
    device=torch.device("cpu"),
)
states = [method.layer(shape) for method in (GroupTopK(budget=1.0), Full())]
q_HQD, k_GQD, v_GQD = (torch.randn(heads, 300, 16) for heads in (8, 2, 2))
for state in states:
    state.prefill(q_HQD, k_GQD, v_GQD)
    state.seal()
ours, exact = (state.decode(q_HQD[:, -1]).out for state in states)
assert torch.allclose(ours, exact, atol=1e-5), "a budget of everything is not full attention"

# %% [markdown]
# ## Run it
#
# The command line in this process. `_target_` names the class; the other settings come from
# `conf/method/oracle_topk.yaml`.

# %%
from pathlib import Path

from longspan.cli import main

budgets = "method.budget=0.01,0.05"
assert main(["method=full", *common], Path(conf)) == 0
assert main(["-m", "method=oracle_topk", budgets, *common], Path(conf)) == 0
assert (
    main(
        ["-m", "method=oracle_topk", "method._target_=__main__.GroupTopK", budgets, *common],
        Path(conf),
    )
    == 0
)

# %% [markdown]
# ## Compare it
#
# At one budget, the group reads as many tokens as a head does in `oracle_topk`, so fewer bytes by
# the size of the group; what it loses is in the recovered mass.

# %%
from longspan import results

runs = results.read(folder)
shown = [
    "method",
    "set.budget",
    "score.mean",
    "recall.recovered_mass",
    "work.exact_tokens",
    "work.bytes_per_token",
]
runs.reindex(columns=shown).sort_values(["set.budget", "method"]).round(3)

# %%
verdicts = results.significance(runs, results.read_samples(folder))
verdicts.drop(columns="folder").round(1)

# %% [markdown]
# ## Keep it
#
# Move the class to `src/longspan/methods/group_topk.py`, give it `conf/method/group_topk.yaml` with
# the settings and their defaults, a row in the README and one in the CHANGELOG. `tests/methods`
# finds it by itself and holds it to what every method promises: exact at a budget of everything,
# the same for a batch as for its rows, honest about its work.

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
# # Where the time of a token goes
#
# The latency pass takes a step's time first, without any clock inside it, and then the ledger in
# further steps. Compare only runs of one machine and one number of threads. Made by
#
#     python run.py -m task=ruler_vt ctx=8k,16k measure=latency threads=2 \
#         method=full,retroinfer,retrieval_attention

# %% tags=["parameters"]
folder = "../results"

# %%
import matplotlib.pyplot as plt

from longspan import results
from longspan.report.charts import PARTS

runs = results.read(folder).dropna(subset=["latency.ms_per_token"])
if runs.empty:
    raise ValueError(f"{folder}: no run has taken a time; measure=latency or measure=all does")
length = runs["ctx"].map("{:,.0f}".format, na_action="ignore").fillna("native")
budgets = runs.filter(regex=r"^set\..*budget$").select_dtypes("number")
budgets = budgets.map("{:g}".format, na_action="ignore").fillna("")
parts = [runs["task"], length, runs["model"], runs["method"], *(budgets[name] for name in budgets)]
runs["run"] = [" ".join(filter(None, words)) for words in zip(*parts, strict=True)]
shown = [
    "run",
    "latency.rows",
    "latency.threads",
    "latency.ttft_s",
    "latency.ms_per_token",
    "latency.tokens_per_s",
]
runs[shown].round(2)

# %% [markdown]
# ## The ledger

# %%
columns = [f"latency.ledger.{name}" for name in PARTS]
ledger = runs.set_index("run").reindex(columns=columns).astype(float).fillna(0)
ledger.columns = list(PARTS.values())
axes = ledger.plot.barh(stacked=True, figsize=(9, 1 + 0.35 * len(ledger)))
axes.set(xlabel="milliseconds a token", ylabel="")
axes.invert_yaxis()
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
axes.figure.tight_layout()

# %% [markdown]
# ## Against full attention
#
# Ratios of runs that agree in everything but the method, threads and batch included; on which
# machine each ran, and whether its steps were CUDA graphs, is not looked at, of which the report
# warns. Above one is faster.

# %%
alike = ["pairing", "latency.rows", "latency.threads"]
full = (
    runs[runs["method"] == "full"].drop_duplicates(alike).set_index(alike)["latency.ms_per_token"]
)
full_ms = [full.get(tuple(key)) for key in runs[alike].itertuples(index=False)]
runs["speed-up"] = [
    ms and ms / own for ms, own in zip(full_ms, runs["latency.ms_per_token"], strict=True)
]
runs["build share of first token"] = (
    runs["latency.ledger.build_s"].astype(float) / runs["latency.ttft_s"]
)
runs[["run", "latency.ms_per_token", "speed-up", "build share of first token"]].round(3)

# %% [markdown]
# ## Steady or not
#
# The 10th and 90th percentile of the steps; where they are far from the median, take the time again
# on a quiet machine.

# %%
figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * len(runs)))
places = range(len(runs))
if {"latency.ms_per_token_p10", "latency.ms_per_token_p90"} <= set(runs):
    axes.hlines(places, runs["latency.ms_per_token_p10"], runs["latency.ms_per_token_p90"])
axes.plot(runs["latency.ms_per_token"], places, "o")
axes.set_yticks(places, runs["run"])
axes.set(xlabel="milliseconds a token")
figure.tight_layout()

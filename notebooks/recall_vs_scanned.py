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
# # Recall against the share of the keys scored
#
# An index is worth what it saves: how many of the heaviest keys it finds for how many products of a
# query with a key (or a centroid). A scan scores everything; a good index bends the curve into the
# upper left. Made by
#
#     python run.py -m task=ruler_vt ctx=8k measure.latency.enabled=false \
#         method=faiss_ivf method.probe_budget=0.02,0.05,0.1,0.3
#     python run.py -m task=ruler_vt ctx=8k measure.latency.enabled=false \
#         method=retrieval_attention method.beam=64,128,256,512
#     python run.py -m task=ruler_vt ctx=8k measure.latency.enabled=false \
#         method=retroinfer method.retrieval_budget=0.005,0.018,0.05

# %% tags=["parameters"]
folder = "../results"

# %%
import matplotlib.pyplot as plt

from longspan import results

runs = results.read(folder)
runs["scanned"] = runs["work.distances"] / runs["work.context_tokens"]
measured = runs[runs.filter(["recall.recovered_mass"]).notna().any(axis=1)]
if measured.empty:
    raise ValueError(f"{folder}: no run has measured recall; measure=recall or measure=all does")
shown = [
    "task",
    "ctx",
    "model",
    "method",
    "scanned",
    "work.read_fraction",
    "recall.at_100",
    "recall.recovered_mass",
]
measured.reindex(columns=shown).sort_values(["task", "ctx", "model", "method"]).round(3)

# %% [markdown]
# ## Recall@100
#
# The work comes from the quality pass, so that a run of `measure=recall` alone has no place on this
# axis.


# %%
def curves(axes, group, x, y):
    for method, line in group.dropna(subset=[x, y]).sort_values(x).groupby("method"):
        axes.plot(100 * line[x], 100 * line[y], marker="o", label=method)
    axes.set(xscale="symlog", xlabel=f"{x} (% of the context)", ylabel=f"{y} (%)")


groups = list(measured.groupby(["task", "ctx", "model", "pairing"], dropna=False))
figure, grid = plt.subplots(len(groups), 2, figsize=(11, 3.6 * len(groups)), squeeze=False)
for (left, right), ((task, ctx, model, _), group) in zip(grid, groups, strict=True):
    curves(left, group, "scanned", "recall.at_100")
    curves(right, group, "work.read_fraction", "recall.recovered_mass")
    length = "native context" if ctx != ctx else f"{ctx:,.0f} tokens"
    left.set_title(f"{task}, {length}, {model}")
    right.legend(fontsize="small")
figure.tight_layout()

# %% [markdown]
# ## Is missing attention what costs answers?
#
# Runs by recovered mass and by the worst twentieth of heads and steps.

# %%
columns = {
    "recall.recovered_mass": "mean mass",
    "recall.worst_5_percent.recovered_mass": "mass in the worst 5%",
    "recall.output_error": "output error",
}
known = measured.dropna(subset=["score.mean"]).reindex(columns=["score.mean", *columns])
known.rename(columns=columns).corr(method="spearman")["score.mean"].round(2).to_frame(
    "rank correlation with the score"
)

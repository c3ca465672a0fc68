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
# # What a budget buys
#
# Score against the share of the context that a method reads, with intervals, and which runs can be
# told from full attention. Made by
#
#     python run.py -cd experiments/sweeps -cn baseline_nano -m
#     python run.py -cd experiments/sweeps -cn budgets_nano -m

# %% tags=["parameters"]
folder = "../results"

# %%
import matplotlib.pyplot as plt

from longspan import results

runs = results.read(folder)
samples = results.read_samples(folder)
if "set.retrieval_budget" not in runs:
    raise ValueError(f"{folder}: no run sets method.retrieval_budget; budgets_nano does")
runs.groupby(["task", "ctx", "model", "method"], dropna=False).size().rename("runs").to_frame()

# %% [markdown]
# ## Score against the retrieval budget
#
# One panel a task, length and model; a line a method and value of its estimation budget. The dashed
# line is full attention.


# %%
def panel(axes, curve, baseline):
    lines = ["method", *(name for name in ["set.estimation_budget"] if name in curve)]
    for (method, *estimation), line in curve.groupby(lines, dropna=False):
        mean = line["score.mean"]
        spread = [mean - line["score.low"], line["score.high"] - mean]
        label = " estimating ".join(
            [method, *(f"{share:g}" for share in estimation if share == share)]
        )
        axes.errorbar(
            100 * line["set.retrieval_budget"], mean, spread, marker="o", capsize=3, label=label
        )
    for score in baseline["score.mean"]:
        axes.axhline(score, color="grey", linestyle="--")
    axes.set(xscale="log", xlabel="retrieval budget, %", ylabel="score")
    axes.legend(fontsize="small")


swept = runs.dropna(subset=["set.retrieval_budget"]).sort_values("set.retrieval_budget")
panels = list(swept.groupby(["task", "ctx", "model", "pairing"], dropna=False))
figure, grid = plt.subplots(
    1, len(panels), figsize=(4.5 * len(panels), 3.6), squeeze=False, sharey=True
)
for axes, ((task, ctx, model, pairing), curve) in zip(grid[0], panels, strict=True):
    panel(axes, curve, runs[(runs["pairing"] == pairing) & (runs["method"] == "full")])
    length = "native context" if ctx != ctx else f"{ctx:,.0f} tokens"
    axes.set_title(f"{task}, {length}, {model}")
figure.tight_layout()

# %% [markdown]
# ## What can be told from full attention
#
# Differences on the same samples. Where the interval holds zero, nothing can be said, and the last
# column says how many samples would show a difference of two points.

# %%
table = results.significance(runs, samples)


def needed(row, effect=2.0):
    """Samples that would show `effect` points, from the spread seen so far."""
    run = runs[runs["folder"] == row["folder"]].iloc[0]
    partner = runs[(runs["pairing"] == run["pairing"]) & (runs["method"] == "full")]
    if partner.empty:
        return None
    mine, full = (
        samples[samples["folder"] == name].groupby("id")["score"].mean()
        for name in (row["folder"], partner.iloc[0]["folder"])
    )
    differences = (mine - full).dropna()
    return (
        results.needed_samples(effect, differences.tolist()) if differences.nunique() > 1 else None
    )


table["n for 2 points"] = [needed(row) for row in table.to_dict("records")]
table.drop(columns="folder").round(1)

# %% [markdown]
# ## The front
#
# Runs that no other run of the same task, length and model beats in both bytes read and score.

# %%
front = results.pareto(runs)
shown = [
    "task",
    "ctx",
    "model",
    "method",
    "set.retrieval_budget",
    "work.bytes_per_token",
    "work.read_fraction",
    "score.mean",
]
front.reindex(columns=shown).round(3)

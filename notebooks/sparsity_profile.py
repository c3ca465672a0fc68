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
# # How sparse attention is, by layer and head
#
# The share of a head's attention that a method's tokens hold. With `oracle_topk` it is the best
# that any retrieval of that size can do: a profile of the model itself. Made by
#
#     python run.py -m task=ruler_vt ctx=8k measure=recall \
#         method=oracle_topk method.budget=0.01,0.02,0.05

# %% tags=["parameters"]
folder = "../results"

# %%
import matplotlib.pyplot as plt

from longspan import results

runs = results.read(folder)
heads = results.read_heads(folder)
if heads["method"].eq("full").all():
    raise ValueError(f"{folder}: full attention alone has measured recall, and misses nothing")
settings = [name for name in runs if name.startswith("set.") and name.endswith("budget")]
labels = {
    row["folder"]: " ".join(
        [
            row["method"],
            *(
                f"{row[name]:g}"
                for name in settings
                if isinstance(row[name], float) and row[name] == row[name]
            ),
        ]
    )
    for row in runs.to_dict("records")
}
heads["run"] = heads["folder"].map(labels)
of_runs = heads.groupby(["task", "ctx", "model", "run", "folder"], dropna=False)
profile = of_runs["recovered_mass"].describe()[["mean", "min", "25%", "50%"]].round(3)
profile.droplevel("folder")

# %% [markdown]
# ## The map
#
# Layers down, query heads across. Dark heads spread their attention: a fixed budget is not enough
# for them.

# %%
maps = list(heads[heads["method"] != "full"].groupby("folder"))
figure, grid = plt.subplots(1, len(maps), figsize=(3.4 * len(maps), 3.6), squeeze=False)
low = heads["recovered_mass"].min()
for axes, (_, run) in zip(grid[0], maps, strict=True):
    mass = run.pivot(index="layer", columns="head", values="recovered_mass")
    image = axes.imshow(mass, vmin=low, vmax=1, aspect="auto", cmap="magma")
    task, model, name = run[["task", "model", "run"]].iloc[0]
    axes.set(title=f"{task}, {model}\n{name}", xlabel="head", ylabel="layer")
figure.colorbar(image, ax=grid[0].tolist(), label="recovered attention")

# %% [markdown]
# ## Where a larger budget would go
#
# Heads in order of what is missing. A steep start says that a budget per head beats a uniform one.

# %%
figure, axes = plt.subplots(figsize=(6, 3.6))
for _, run in maps:
    missing = (1 - run["recovered_mass"]).sort_values(ascending=False, ignore_index=True)
    axes.plot(missing.index + 1, 100 * missing, label=f"{run['task'].iloc[0]} {run['run'].iloc[0]}")
axes.set(xlabel="heads of all layers, worst first", ylabel="attention missed, %")
axes.legend(fontsize="x-small")

# %% [markdown]
# ## Drift
#
# Mean over layers and heads, step by step of the teacher-forced answer.

# %%
steps = results.read_steps(folder)
figure, axes = plt.subplots(figsize=(6, 3.6))
for name, run in steps[steps["method"] != "full"].groupby("folder"):
    axes.plot(run["step"], 100 * run["recovered_mass"], label=labels[name])
axes.set(xlabel="step", ylabel="recovered attention, %")

# %%
worst = heads[heads["method"] != "full"].nsmallest(10, "recovered_mass")
worst[["task", "model", "run", "layer", "head", "recovered_mass", "output_error"]].round(3)

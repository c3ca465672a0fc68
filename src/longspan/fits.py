"""Whether what is asked for fits the model, and the jobs beside it: ValueErrors before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.request import tokens_label

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.models.base import Model
    from longspan.request import Request

STRETCH = (
    ", or a model.config whose rope_parameters reach further, as that of model=qwen25_7b_128k does"
)


def check(request: Request, method: Method, model: Model) -> None:
    """Positions and layers are there."""
    _check_positions(request, model)
    _check_layers(method, model)


def check_alone(request: Request, alone: bool) -> None:
    """Parallel jobs may have everything but a latency; one that wants nothing else is refused."""
    measure = request.measure
    if not alone and measure.latency.enabled and not (measure.quality or measure.recall.enabled):
        raise ValueError(
            "measure = latency: jobs that run side by side disturb one another's time; right would "
            "be hydra/launcher=basic"
        )


def _check_positions(request: Request, model: Model) -> None:
    from longspan.measures.latency import CLOCKED_STEPS

    most = model.max_positions
    if not most:
        return
    if request.ctx and request.ctx > most:
        raise ValueError(
            f"ctx = {tokens_label(request.ctx)}: {model.name} has {most} positions; right would be "
            f"at most {tokens_label(most)}{STRETCH if model.stretches else ''}"
        )
    sizes = request.measure.latency
    room = most - CLOCKED_STEPS - 1  # a token of the prompt, at least
    if sizes.enabled and sizes.warmup + sizes.steps > room:
        raise ValueError(
            f"measure.latency.steps = {sizes.steps}, warmup = {sizes.warmup}: {model.name} has "
            f"{most} positions; right would be at most {room} together"
        )


def _check_layers(method: Method, model: Model) -> None:
    """What the user says of single layers fits the model; a method's default may go beyond it."""
    budgets = getattr(method, "layer_budgets", None)
    if budgets is not None and len(budgets) != model.layers:
        raise ValueError(
            f"method.layer_budgets has {len(budgets)} entries; right would be {model.layers}, one"
            f" for each layer of {model.name}"
        )
    dense = getattr(method, "dense_layers", ())
    if max(dense, default=0) >= model.layers and dense != getattr(type(method), "dense_layers", ()):
        raise ValueError(
            f"method.dense_layers = {list(dense)}: {model.name} has no layer {max(dense)}; right "
            f"would be numbers from 0 to {model.layers - 1}"
        )

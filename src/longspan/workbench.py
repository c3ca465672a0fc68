"""What the jobs of one process share: the loaded model and the prepared data."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from longspan.build import part
from longspan.fingerprint import described
from longspan.tasks.base import taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.models.base import Model, Prompts
    from longspan.request import Request
    from longspan.tasks.base import Task
    from longspan.types import Example


@runtime_checkable
class Loader(Protocol):
    """The settings of a model."""

    def load(self) -> Model:
        """The model with its weights. Raises ValueError."""
        ...


class Workbench:
    """Keeps the last model and the examples made for it; another model takes their place."""

    def __init__(self) -> None:
        self._model: tuple[str, Model] | None = None
        self._examples: dict[str, Sequence[Example]] = {}
        self._prompts: Prompts | None = None
        self._threads: int | None = None

    def use_threads(self, threads: int | None) -> None:
        """Let torch use so many; None: as many as before any job said how many."""
        import torch

        self._threads = self._threads or torch.get_num_threads()
        torch.set_num_threads(threads or self._threads)

    def model(self, config: Mapping[str, Any]) -> Model:
        """The model that the group `model` describes, loaded once. Raises ValueError."""
        key = json.dumps(config, sort_keys=True, default=str)
        if self._model is None or self._model[0] != key:
            self.clear()
            self._model = (key, part(config, "model", Loader).load())
        return self._model[1]

    def examples(self, task: Task, model: Model, request: Request) -> Sequence[Example]:
        """The task's examples for this model's tokenizer, made once. Raises ValueError."""
        key = json.dumps(
            [described(task), request.ctx, request.samples, request.seed],
            sort_keys=True,
            default=str,
        )
        if key not in self._examples:
            made = task.examples(model.tokenizer, request.ctx, request.samples, request.seed)
            self._examples[key] = taken(made, task.label)
        return self._examples[key]

    def prompts(self, request: Request, *, sweep: bool) -> Prompts | None:
        """Those that the model has read, for further jobs of a sweep or the recall pass of one;
        None where nobody will ask again.
        """
        gigabytes, measure = request.prompts_gb, request.measure
        again = measure.recall.samples if measure.quality and measure.recall.enabled else 0
        if gigabytes == 0 or not (sweep or again):
            return None
        from longspan.methods.prompt import LayerPrompt
        from longspan.models.free import HOST, available
        from longspan.models.prompts import Prompts

        if self._prompts is None:
            most = None if sweep else again
            self._prompts = Prompts((available(HOST) or 0) // 4, LayerPrompt, most)
        if gigabytes is not None:
            self._prompts.most_bytes = gigabytes * 1e9
        return self._prompts

    def clear(self) -> None:
        """Drop everything before the next model needs the memory."""
        self._model = self._prompts = None
        self._examples.clear()
        gc.collect()

    def __reduce__(self) -> tuple[type[Workbench], tuple[()]]:
        """Another process begins with an empty one."""
        return (Workbench, ())

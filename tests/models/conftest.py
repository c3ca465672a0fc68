from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.tiny_models import save_tiny

from longspan.models.huggingface import HuggingFace, HuggingFaceModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.dense import Load


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a tiny model by family; each is written once."""
    folders: dict[tuple[str, bool, int], Any] = {}

    def loader(
        name: str, *, chat: bool = False, layers: int = 3, **options: Any
    ) -> HuggingFaceModel:
        key = name, chat, layers
        if key not in folders:
            fewer = {} if layers == 3 else {"num_hidden_layers": layers}
            folders[key] = save_tiny(name, tmp_path_factory.mktemp(name), chat=chat, **fewer)
        return HuggingFace(
            path=str(folders[key]), **{"dtype": "float32", "device": "cpu", **options}
        ).load()

    return loader


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what these tests generate: in plain torch a step takes what the room of buffers takes."""
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 100)

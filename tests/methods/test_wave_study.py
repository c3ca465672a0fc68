"""The ablation study runs: every variant, on a layer that needs no model."""

from __future__ import annotations

import importlib.util
import sys
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from tests.methods.cases import layer

PATH = Path(__file__).parents[2] / "experiments" / "wave_ablations" / "study.py"


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("wave_ablations_study", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_variant_is_replayed(study: Any) -> None:
    data = layer(2300)
    steps = [(data.q_HTD[:, t], data.oracle(t)) for t in range(2297, 2300)]
    given = study.Layer(data.geometry, data.k_GTD, data.v_GTD, steps)
    found = {name: study.replay(method, given) for name, method in study.VARIANTS.items()}
    assert all(0 < each["exact"] <= 1 and isfinite(each["error"]) for each in found.values())
    assert found["no estimation"]["estimated"] == 0 < found["the paper's"]["estimated"]
    assert found["coverage 0.95"]["error"] < found["no estimation"]["error"]
    assert found["exact mass 0.9"]["bias"] < 0

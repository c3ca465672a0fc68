"""Who may know whom: the import directions of the design, walked."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOUNDATION = {"tensors", "types", "options"}
ROOMS = {"indexes", "placement", "methods", "models", "prefill", "tasks", "measures", "record"}
BELOW = {
    "tensors": set(),
    "types": set(),
    "options": set(),
    "indexes": FOUNDATION,
    "placement": FOUNDATION,
    "prefill": FOUNDATION | {"placement"},
    "methods": FOUNDATION | {"indexes", "placement", "prefill"},
    "models": FOUNDATION | {"network"},
    "tasks": FOUNDATION | {"network", "statistics"},
    "network": set(),
    "statistics": set(),
    "measures": FOUNDATION,
    "record": FOUNDATION,
}
HEAVY = {"transformers", "datasets", "wandb", "faiss", "triton", "lm_eval", "matplotlib", "pandas"}
KERNEL_MAY = {"torch", "numpy", "safetensors", "triton", "longspan_kernels"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def top_level(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run at import: not function bodies, not `if TYPE_CHECKING`."""
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", sources("src/longspan"), ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_know_only_what_is_below_them_or_a_siblings_base(path: Path) -> None:
    room = path.relative_to(ROOT / "src/longspan").parts[0].removesuffix(".py")
    if room not in BELOW:
        return
    for name in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "longspan" or len(parts) < 2:
            continue
        other = parts[1]
        allowed = other == room or other in BELOW[room]
        through_base = other in ROOMS and (len(parts) == 2 or parts[2] == "base")
        assert allowed or through_base or other == "__version__", f"{room} must not import {name}"


@pytest.mark.parametrize("path", sources("kernels/longspan_kernels"), ids=lambda p: p.stem)
def test_kernels_import_nothing_of_longspan(path: Path) -> None:
    known = KERNEL_MAY | set(sys.stdlib_module_names)
    outside = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))} - known
    assert not outside, f"the kernels must not import {sorted(outside)}"


@pytest.mark.parametrize("path", sources("src"), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    for node in top_level(ast.parse(path.read_text())):
        heavy = {name.split(".")[0] for name in imported(node)} & HEAVY
        assert not heavy, f"import {sorted(heavy)} inside the function that needs it"


def test_no_package_shadows_the_hubs_kernels_package() -> None:
    for folder in ("kernels", "src", "experiments", "scripts"):
        assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    "statement", ["import longspan", "import longspan.types, longspan.methods.base"]
)
def test_the_package_and_its_interfaces_import_without_torch(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_entry_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT)
        for folder in ("src", "kernels/longspan_kernels")
        for path in sources(folder)
        if any(word in path.read_text() for word in ("os.environ", "os.getenv", "getenv("))
    ]
    allowed = {
        Path("src/longspan/cli.py"),  # the entry behind run.py
        Path("src/longspan/record/wandb_media.py"),  # wandb hears no other way
        Path("src/longspan/tasks/prepare.py"),  # a child process with an environment of its own
    }
    assert set(readers) <= allowed

"""What the quickened interpreter keeps is what Triton works out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

if torch.cuda.is_available():
    pytest.skip("kernels are compiled here", allow_module_level=True)
tl = pytest.importorskip("triton.language", reason="no gpu extra")

ELEMENTS = (
    tl.int1, tl.int8, tl.uint8, tl.int32, tl.int64, tl.uint64, tl.float16, tl.bfloat16, tl.float32,
    tl.pointer_type(tl.float32), tl.pointer_type(tl.float32, 3), tl.pointer_type(tl.int64),
    tl.pointer_type(tl.float32, const=True),
)  # fmt: skip
SHAPES = ([1], [8], [8, 1], [1, 8], [2, 2, 2])


def plain(kind: type, *given: Any) -> Any:
    """As it is without what is kept."""
    made = object.__new__(kind)
    kind.__init__.__wrapped__(made, *given)
    return made


def told(made: Any) -> dict[str, str]:
    kept = {"of_its_tensors", "type"}
    return {name: repr(value) for name, value in vars(made).items() if name not in kept}


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
def test_types_and_tensors_are_tritons(element: Any) -> None:
    from triton.runtime import interpreter

    for _ in range(2):
        for shape in SHAPES:
            block, right = tl.block_type(element, shape), plain(tl.block_type, element, shape)
            assert block == right
            assert told(block) == told(right)
            assert block.element_ty == element
            assert getattr(block.element_ty, "address_space", 0) == getattr(
                element, "address_space", 0
            )
            made = tl.tensor(shape, block)
            assert told(made) == told(plain(tl.tensor, shape, right))
            assert made.type is block
            numpys = interpreter._get_np_dtype
            assert numpys(block) == numpys.__wrapped__(right)
        assert told(tl.tensor("a", element)) == told(plain(tl.tensor, "a", element))
        assert interpreter._get_np_dtype(element) == interpreter._get_np_dtype.__wrapped__(element)


@pytest.mark.parametrize("shape", [[3], [], [4, 2.0]])
def test_what_triton_refuses_is_refused_again(shape: list[Any]) -> None:
    tl.block_type(tl.float32, [4, 2])
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            tl.block_type(tl.float32, shape)

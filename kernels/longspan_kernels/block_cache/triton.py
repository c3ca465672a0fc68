"""The flag behind what a GPU's step says to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from longspan_kernels.jit import device_of

if TYPE_CHECKING:
    from torch import Tensor

RELEASE = tl.constexpr("""{
    .reg .pred first;
    .reg .u32 lane;
    mov.u32 lane, %tid.x;
    setp.eq.u32 first, lane, 0;
    @first st.release.sys.global.s32 [$1], $2;
    mov.b32 $0, $2;
}""")
"""One thread's store."""


@triton.jit
def release(flag, raised, ORDERED: tl.constexpr):
    """What was done before this launch on its stream, copies to the host included, is there for
    whoever acquires the flag as raised. A copy of a number behind a copy promises no such thing:
    only a release by which the whole system goes does (PTX, memory consistency model).
    """
    number = tl.load(raised)
    if ORDERED:
        tl.inline_asm_elementwise(
            RELEASE, "=r,l,r", [flag.to(tl.int64), number], dtype=tl.int32, is_pure=False, pack=1
        )
    else:  # interpreted
        tl.store(flag, number)


def raise_flag(flag: Tensor, raised: Tensor) -> None:
    """Bring the number, of the device, to the pinned flag."""
    with device_of(raised):
        release[(1,)](flag, raised, ORDERED=not triton.knobs.runtime.interpret, num_warps=1)

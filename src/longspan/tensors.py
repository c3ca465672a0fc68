"""The shape legend and its checks.

Names carry their shape as a suffix (`q_HD`, `keys_GTD`):

    B  sequences in a batch          Q  new tokens (a prefill chunk)
    H  query heads                   T  cached tokens, in slot order
    G  key-value heads               D  head size
    R  query heads per KV head, H/G  K  selected tokens or runs
    S  sampled prefill queries       C  clusters
    N  selector rows: G (shared by the query heads of a group) or H (one per query head)
    V  vocabulary                    L  layers

Keys are post-RoPE. Query head h belongs to KV head h // R.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def check_shape(name: str, tensor: Tensor, dims: str, **sizes: int) -> dict[str, int]:
    """Sizes by letter, after checking `tensor` against `dims` ("HD") and the `sizes` known so far.

    Raises ValueError naming the tensor, its shape and the shape that would be right.
    """
    shape = tuple(tensor.shape)
    found = dict(sizes)
    fits = len(shape) == len(dims)
    for letter, size in zip(dims, shape, strict=False):
        fits = fits and found.setdefault(letter, size) == size
    if not fits:
        right = ", ".join(
            f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in dims
        )
        raise ValueError(f"{name} has shape {list(shape)}; it should be [{right}]")
    return found


def spread(number_B: Tensor, heads: int) -> Tensor:
    """Numbers of rows as those of each of their heads, `heads` a row. Waits for nothing."""
    return number_B.repeat_interleave(heads, output_size=len(number_B) * heads)


def wait_for_devices() -> None:
    """Until every GPU has done what it was given; layers may be on any of them."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return  # nothing was given to any; to look for them would take milliseconds
    for index in range(torch.cuda.device_count()):
        # what nobody here uses would be opened by waiting, and others may have it for themselves
        if torch._C._cuda_hasPrimaryContext(index):  # type: ignore[attr-defined]
            torch.cuda.synchronize(index)

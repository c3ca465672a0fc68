"""Hash tables in Triton: codes, and the tokens of a query's buckets counted up to two, by bits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.hash_tables.reference import BLOCK, sort_codes
from longspan_kernels.jit import device_of, pow2
from longspan_kernels.types import HashTables, Runs

if TYPE_CHECKING:
    from torch import Tensor

WORDS, STEP, READ = 256, 32, 1024
"""Words of 32 tokens that a program lists, how many of them at once, and how many it counts at
once before its own."""


@triton.jit
def code_block(
    vectors, mean, planes, code, N, L, D, K, v_stride_g, v_stride_n, c_stride_g, c_stride_l,
    c_stride_n, CHUNK, CENTRED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Codes of a block of vectors, less their mean, in CHUNK tables."""
    group = tl.program_id(2).to(tl.int64)
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    d, k = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_K)
    mask = (n < N)[:, None] & (d < D)[None, :]
    x_ND = tl.load(vectors + group * v_stride_g + n[:, None] * v_stride_n + d[None, :], mask, 0.0)
    x_ND = x_ND.to(tl.float32)
    if CENTRED:
        x_ND -= tl.load(mean + group * D + d, d < D, 0.0)[None, :]
    begin = tl.program_id(1).to(tl.int64) * CHUNK
    for table in range(begin, tl.minimum(begin + CHUNK, L)):
        at = (table * D + d)[:, None] * K + k[None, :]
        plane_DK = tl.load(planes + at, (d < D)[:, None] & (k < K)[None, :], 0.0)
        above_NK = tl.dot(x_ND, plane_DK, input_precision="ieee") > 0
        bits = tl.sum(tl.where(above_NK, (1 << k)[None, :], 0), 1)
        to = group * c_stride_g + table * c_stride_l + n * c_stride_n
        tl.store(code + to, bits.to(code.dtype.element_ty), n < N)


@triton.jit
def mark_bucket(
    code, token, bound, seen, size, T, C, H, L, R, W, code_stride, BLOCK_N: tl.constexpr
):
    """A bit for every token of one bucket: in the first words of a head, or in the second where it
    has been met before. Whoever comes first, the second words name what was met twice.
    """
    table, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = head // R * L + table
    mine = tl.load(code + head * code_stride + table)
    known = (mine >= 0) & (mine < C)
    begin = tl.load(bound + row * (C + 1) + mine, known, 0)
    end = tl.load(bound + row * (C + 1) + mine + 1, known, 0)
    tl.store(size + head * L + table, end - begin)
    for first in range(begin, end, BLOCK_N):
        place = first + tl.arange(0, BLOCK_N)
        live = place < end
        t = tl.load(token + row * T + place, live, 0)
        bit = tl.full((BLOCK_N,), 1, tl.int32) << (t % 32)
        before = tl.atomic_or(seen + head * W + t // 32, bit, live, sem="relaxed")
        again = live & ((before & bit) != 0)
        tl.atomic_or(seen + (H + head) * W + t // 32, bit, again, sem="relaxed")


@triton.jit
def ones(word):
    """How many bits are set."""
    x = word.to(tl.uint32, bitcast=True)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    x = x + (x >> 8)
    return ((x + (x >> 16)) & 0x3F).to(tl.int32)


@triton.jit
def list_marked(
    twice, found, count, T, W, number, WORDS: tl.constexpr, STEP: tl.constexpr, READ: tl.constexpr
):
    """The tokens whose bits are set in one stretch of a head's words, ascending: token t is
    `number` + t. Their places follow from the words before, of which there are few.
    """
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    begin = block * WORDS
    before = tl.zeros((), tl.int32)
    for first in range(0, begin, READ):
        w = first + tl.arange(0, READ)
        before += tl.sum(ones(tl.load(twice + head * W + w, w < begin, 0)), 0)
    for first in range(begin, tl.minimum(begin + WORDS, W), STEP):
        t = first * 32 + tl.arange(0, STEP * 32)
        marked = (tl.load(twice + head * W + t // 32, t < T, 0) >> (t % 32)) & 1
        place = before + tl.cumsum(marked, 0) - 1
        tl.store(found + head * T + place, number + t, (t < T) & (marked > 0))
        before += tl.sum(marked, 0)
    if begin + WORDS >= W:
        tl.store(count + head, before)


def write_codes(
    vectors_GND: Tensor, mean_GD: Tensor | None, planes_LDK: Tensor, code_GLN: Tensor
) -> None:
    """Codes of vectors, less their mean where there is one."""
    (groups, count, width), (tables, _, bits) = vectors_GND.shape, planes_LDK.shape
    block_n = min(pow2(count, 16), 64)
    rows = triton.cdiv(count, block_n)
    chunk = min(tables, max(1, rows // 16))  # few vectors: many programs; many: each read rarely
    with device_of(vectors_GND):
        code_block[(rows, triton.cdiv(tables, chunk), groups)](
            vectors_GND, vectors_GND if mean_GD is None else mean_GD.contiguous(),
            planes_LDK.contiguous(), code_GLN, count, tables, width, bits,
            *vectors_GND.stride()[:2], *code_GLN.stride(), chunk,
            CENTRED=mean_GD is not None, BLOCK_N=block_n, BLOCK_D=pow2(width, 16), BLOCK_K=16,
        )  # fmt: skip


def codes(vector_ND: Tensor, planes_LDK: Tensor) -> Tensor:
    """As the reference, but for vectors so near to a plane that rounding decides; a view, of which
    the transpose is contiguous.
    """
    sizes = len(vector_ND), len(planes_LDK)
    code_NL = torch.empty(sizes, dtype=torch.int32, device=vector_ND.device)
    write_codes(vector_ND[None], None, planes_LDK, code_NL.T[None])
    return code_NL.T


def hash_build(keys_GTD: Tensor, mean_GD: Tensor, planes_LDK: Tensor) -> HashTables:
    """As the reference, but for keys so near to a plane that rounding decides. torch sorts."""
    (groups, tokens, _), (tables, _, bits) = keys_GTD.shape, planes_LDK.shape
    whole = partial(torch.empty, dtype=torch.int32, device=keys_GTD.device)
    built = HashTables(whole(groups, tables, tokens), whole(groups, tables, 2**bits + 1))
    small = torch.int16 if bits < 15 else torch.int32  # sorting takes a pass a byte
    code_1LT = torch.empty(1, tables, tokens, dtype=small, device=keys_GTD.device)
    for group in range(groups):
        one = slice(group, group + 1)
        write_codes(keys_GTD[one], mean_GD[one], planes_LDK, code_1LT)
        at_once = max(1, BLOCK // tokens)
        parts = (each.split(at_once) for each in (code_1LT[0], *(x[group] for x in built)))
        for code_LT, token_LT, bound_LC in zip(*parts, strict=True):
            for mine, sorted_L in zip((token_LT, bound_LC), sort_codes(code_LT, bits), strict=True):
                mine.copy_(sorted_L)
    return built


def hash_search(code_HL: Tensor, tables: HashTables, first: int) -> tuple[Runs, Tensor]:
    """As the reference, but for as many places a row as there are tokens: how many a head found is
    not known to the host, which waits for nothing. A code that is out of range finds nothing.
    """
    (groups, count, tokens), heads = tables.token_GLT.shape, len(code_HL)
    whole = partial(torch.empty, dtype=torch.int32, device=code_HL.device)
    words = triton.cdiv(tokens, 32)
    seen_2HW = torch.zeros(2, heads, words, dtype=torch.int32, device=code_HL.device)
    size_HL, found_HT, count_H = whole(heads, count), whole(heads, tokens), whole(heads)
    token_GLT, bound_GLC = tables.token_GLT.contiguous(), tables.bound_GLC.contiguous()
    with device_of(code_HL):
        mark_bucket[(count, heads)](
            code_HL, token_GLT, bound_GLC, seen_2HW, size_HL, tokens, bound_GLC.shape[2] - 1,
            heads, count, heads // groups, words, code_HL.stride(0), BLOCK_N=128, num_warps=1,
        )  # fmt: skip
        list_marked[(triton.cdiv(words, WORDS), heads)](
            seen_2HW[1], found_HT, count_H, tokens, words, first,
            WORDS=WORDS, STEP=STEP, READ=READ,
        )  # fmt: skip
    return Runs(found_HT, None, count_H), size_HL.sum()

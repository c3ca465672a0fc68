"""The slow, obvious block cache: dictionaries, whose order is the order of reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longspan_kernels.block_cache.reference_lists import Admission, LookUp, Read

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 16
"""Reads of a block are counted to one less."""
WINDOW = 16
"""Counts are halved after so many reads a page, but no more often than BLOCKS blocks a read."""
BLOCKS = 64


@dataclass(slots=True)
class Held:
    """A block in the cache."""

    size: int
    pages: list[int]
    step: int


class BlockCache:
    """As the native one; `update` is done when it returns."""

    def __init__(self, pages: int, page: int, groups: int, policy: str, layers: int) -> None:
        self.pages, self.page, self.groups, self.policy = 0, page, groups, policy
        self.layers = layers
        self.held: dict[int, Held] = {}
        self.orders: list[dict[int, None]] = [{} for _ in range(LEVELS)]
        self.reads: dict[int, int] = {}
        self.free: list[int] = []
        self.step = self.counted = self.known = self.layer = 0
        self.from_store = False
        self.most_pages: int | None = None
        self.done: Admission | None = None
        self.grow(pages)

    def grow(self, pages: int) -> None:
        """More pages; what is cached stays."""
        self.free += reversed(range(self.pages, pages))
        self.pages = max(self.pages, pages)

    @property
    def free_pages(self) -> int:
        """Pages that hold nothing."""
        return len(self.free)

    @property
    def blocks(self) -> int:
        """Blocks held."""
        return len(self.held)

    def look_up(
        self, starts: Tensor, sizes: Tensor | None, counts: Tensor, layer: int = 0
    ) -> LookUp:
        """What is cached of these runs; changes nothing."""
        rows = len(starts)
        found = LookUp([[] for _ in range(rows)], lengths=[0] * rows, layer=layer)
        for rank in range(starts.shape[1]):
            for row in range(rows):
                if rank < int(counts[row]):
                    start = int(starts[row, rank])
                    size = 1 if sizes is None else int(sizes[row, rank])
                    self._read(found, row, rank, start, size)
        return found

    def _read(self, found: LookUp, row: int, rank: int, start: int, size: int) -> None:
        head = row * self.groups // len(found.rows)
        block = (start * self.layers + found.layer) * self.groups + head
        held, target = self.held.get(block), found.lengths[row]
        found.begins[row, rank] = target
        if not size:
            return
        hit = held is not None and held.size == size
        for number, t in enumerate(range(0, size, self.page)):
            source = held.pages[number] * self.page if held is not None and hit else ~(start + t)
            found.rows[row].append((source, target + t, min(self.page, size - t)))
        found.lengths[row] += size
        found.hit_blocks += hit
        found.miss_blocks += not hit
        found.hit_entries += size * hit
        found.miss_entries += size * (not hit)
        found.reads.append(Read(block, row, start, size, target, hit))

    def update(
        self, found: LookUp, from_store: bool = False, most_pages: int | None = None
    ) -> None:
        """Let in what was missing, at most so many pages. `from_store`: targets are slots of the
        store.
        """
        self.done = Admission([[] for _ in found.rows])
        self.from_store, self.most_pages = from_store, most_pages
        self.step += found.layer <= self.layer
        self.layer = found.layer
        for read in found.reads:
            self._count(read)
        for read in reversed(found.reads):
            if read.block in self.held and self.held[read.block].size == read.size:
                self.held[read.block].step = self.step
                self._leave(read.block)
                self.orders[self._level(read.block)][read.block] = None
        admitted = [read.block for read in found.reads if self._admit(read, self.done)]
        for block in reversed(admitted):
            self.orders[self._level(block)][block] = None

    def wait(self) -> Admission:
        """What the update let in."""
        assert self.done is not None
        return self.done

    def _level(self, block: int) -> int:
        return self.reads[block] if self.policy == "lfu" else 0

    def _leave(self, block: int) -> None:
        for order in self.orders:
            order.pop(block, None)

    def _count(self, read: Read) -> None:
        if self.policy == "lru":
            return
        self.counted += 1
        self.known = max(self.known, (read.start + 1) * self.groups * self.layers)
        if self.counted > max(WINDOW * self.pages, self.known // BLOCKS):
            self.counted //= 2
            self.reads = {block: count // 2 for block, count in self.reads.items()}
            if self.policy == "lfu":
                halves = [self.orders[level : level + 2] for level in range(0, LEVELS, 2)]
                self.orders = [low | high for low, high in halves] + [{} for _ in halves]
        self.reads[read.block] = min(self.reads.get(read.block, 0) + 1, LEVELS - 1)

    def _yields(self, victim: int, level: int, block: int) -> bool:
        if self.held[victim].step == self.step:
            return False
        if self.policy == "tinylfu":
            return self.reads[block] > self.reads[victim]
        return self._level(block) >= level

    def _victims(self, block: int, wanted: int) -> list[int] | None:
        room, victims = self.free_pages, []
        for level, order in enumerate(self.orders):
            for victim in order:
                if room >= wanted or not self._yields(victim, level, block):
                    break
                victims.append(victim)
                room += len(self.held[victim].pages)
        return victims if room >= wanted else None

    def _evict(self, block: int) -> None:
        self._leave(block)
        self.free += self.held.pop(block).pages

    def _admit(self, read: Read, done: Admission) -> bool:
        old = self.held.get(read.block)
        if read.hit or (old is not None and old.size == read.size):
            return False
        if old is not None and old.step == self.step:
            return False  # another row of this step takes it for what it was
        if old is not None:
            self._evict(read.block)
        wanted = -(-read.size // self.page)
        if self.most_pages is not None and done.admitted_pages + wanted > self.most_pages:
            return False
        victims = self._victims(read.block, wanted)
        if victims is None:
            return False
        for victim in victims:
            self._evict(victim)
        held = Held(read.size, [self.free.pop() for _ in range(wanted)], self.step)
        for number, page in enumerate(held.pages):
            t = number * self.page
            first = read.start if self.from_store else read.target
            pages = (page * self.page, first + t, min(self.page, read.size - t))
            done.rows[read.row].append(pages)
        self.held[read.block] = held
        done.evicted_blocks += len(victims)
        done.admitted_blocks += 1
        done.admitted_pages += wanted
        done.admitted_entries += read.size
        return True

"""The catalogue as the kernel meets it: largest norms first, cut into shards that fit in memory.

By the inequality of Cauchy and Schwarz no score of an item exceeds Σ_b ‖u_b‖·‖v_b‖ over the blocks b of
dimensions. With the largest norms first, a user whose k-th best score exceeds that bound for all the items
that follow is done. On factors of real shops, where most items have small norms, that spares most of the
product; where all norms are equal it costs next to nothing. Ties still go to the lower index in item order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.parts import Bits, Csr, Floats, ItemParts, UserParts

CUT = 64  # shards hold a multiple of so many items, the last one excepted


@dataclass(frozen=True)
class Shard:
    """A run of n items in places first … first + n.

    dense float32 [n, D]; norms float64 [n, B + 1]; item int32 [n], each one's index in item order; sparse
    [n, V]; allowed uint8 [G, ceil(n / 8)], packed. coded: what `codes` made of it, by tile size.
    """

    first: int
    dense: NDArray[np.float32]
    norms: Floats
    item: NDArray[np.int32]
    sparse: Csr | None = None
    allowed: Bits | None = None
    coded: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def n_items(self) -> int:
        return int(self.dense.shape[0])


@dataclass(frozen=True)
class Outline:
    """What is known of a catalogue without its data.

    cuts: the first place of each shard, then I. largest [S + 1, B + 1]: the largest norms in shard s and
    all that follow (0 at the end). most_terms: of an item; n_terms: columns of the sparse part.
    """

    n_dims: int
    blocks: tuple[int, ...]
    n_groups: int
    cuts: tuple[int, ...]
    largest: Floats
    most_terms: int
    n_terms: int
    is_sparse: bool

    @property
    def n_items(self) -> int:
        return self.cuts[-1]

    @property
    def n_shards(self) -> int:
        return len(self.cuts) - 1


@dataclass(frozen=True)
class Shards:
    """A catalogue whose shards are loaded one at a time; place int32 [I] is where item i stands."""

    outline: Outline
    place: NDArray[np.int32]
    load: Callable[[int], Shard]


@dataclass(frozen=True)
class Arrangement:
    """How a catalogue is ordered and cut, before any of its data are copied."""

    items: ItemParts
    order: NDArray[np.int32]
    outline: Outline

    def shard(self, number: int) -> Shard:
        """The data of one shard, copied out of the items."""
        start, stop = self.outline.cuts[number : number + 2]
        chosen = self.order[start:stop]
        items, allowed = self.items, None
        if items.allowed is not None:
            allowed = repacked(items.allowed, chosen, items.n_items)
        return Shard(
            start,
            np.ascontiguousarray(items.dense[chosen]),
            items.norms[chosen],
            chosen,
            items.sparse and items.sparse.take(chosen),
            allowed,
        )

    @property
    def place(self) -> NDArray[np.int32]:
        place = np.empty(self.order.size, np.int32)
        place[self.order] = np.arange(self.order.size, dtype=np.int32)
        return place


def arranged(items: ItemParts, *, shard_bytes: int | None = None, cuts: Sequence[int] = ()) -> Arrangement:
    """Order the items by falling norm and cut them into shards of at most shard_bytes (None: one), or of CUT
    items where those alone are more.

    Blocks of different scale are weighed by their mean square, as standardised scores are. cuts: the inner
    cuts, for those who want them elsewhere. ValueError: NaN or infinity in the items.
    """
    norms = items.norms
    relative = norms[:, :-1] / np.maximum(norms[:, :-1].max(axis=0, initial=0.0), 1e-300)
    mean_square = np.square(relative).sum(axis=0) / max(items.n_items, 1)
    key = relative @ (1 / np.sqrt(np.maximum(mean_square, 1e-12)))
    order = np.argsort(-key, kind="stable").astype(np.int32)
    if not cuts and shard_bytes is not None and item_bytes(items) > shard_bytes:
        cuts = _cuts(_bytes_of_each(items)[order], shard_bytes)
    ends = (0, *cuts, items.n_items)
    largest = np.zeros((len(ends), norms.shape[1]))
    for number in range(len(ends) - 2, -1, -1):
        here = norms[order[ends[number] : ends[number + 1]]].max(axis=0, initial=0.0)
        largest[number] = np.maximum(here, largest[number + 1])
    lengths = np.diff(items.sparse.indptr) if items.sparse is not None else np.zeros(0, np.int64)
    terms = items.sparse.indices if items.sparse is not None else np.zeros(0, np.int32)
    outline = Outline(
        n_dims=int(items.dense.shape[1]),
        blocks=items.blocks or (int(items.dense.shape[1]),),
        n_groups=items.n_groups,
        cuts=ends,
        largest=largest,
        most_terms=int(lengths.max(initial=0)),
        n_terms=int(terms.max(initial=-1)) + 1,
        is_sparse=items.sparse is not None,
    )
    return Arrangement(items, order, outline)


def item_bytes(items: ItemParts) -> int:
    """What the items take in a task: factors, norms, words, masks, and the codes made of the factors."""
    return int(_bytes_of_each(items).sum())


def _bytes_of_each(items: ItemParts) -> NDArray[np.int64]:
    n_dims, n_norms = items.dense.shape[1], items.norms.shape[1]
    codes = 4 * -(-n_dims // 4) + 4
    fixed = 4 * n_dims + 8 * n_norms + 4 + codes + -(-items.n_groups // 8)
    if items.sparse is None:
        return np.full(items.n_items, fixed, np.int64)
    return fixed + 8 + 8 * np.diff(items.sparse.indptr)


def _cuts(sizes: NDArray[np.int64], at_most: int) -> list[int]:
    """Where to cut, so that runs are as long as fit, and multiples of CUT; sizes: of each item, in order."""
    cuts, held = [], 0
    for number, size in enumerate(np.add.reduceat(sizes, np.arange(0, sizes.size, CUT))):
        if held and held + size > at_most:
            cuts.append(number * CUT)
            held = 0
        held += int(size)
    return cuts


def in_memory(items: ItemParts, *, shard_bytes: int | None = None, cuts: Sequence[int] = ()) -> Shards:
    """The items as shards of this process."""
    arrangement = arranged(items, shard_bytes=shard_bytes, cuts=cuts)
    shards = [arrangement.shard(number) for number in range(arrangement.outline.n_shards)]
    return Shards(arrangement.outline, arrangement.place, shards.__getitem__)


def repacked(allowed: NDArray[Any], chosen: NDArray[np.int32], n_items: int) -> Bits:
    """The bits of the chosen items, group by group: a whole mask is never unpacked at once."""
    bits = np.empty((allowed.shape[0], -(-chosen.size // 8)), np.uint8)
    for group, row in enumerate(allowed):
        mask = row if row.dtype == np.bool_ else np.unpackbits(row, count=n_items, bitorder="little")
        bits[group] = np.packbits(mask[chosen], bitorder="little")
    return bits


@dataclass(frozen=True)
class PlacedUsers:
    """Users with items by place: additive and excluded sorted, masked = what the scan passes over.

    What is added to is scored apart, before the scan, and so is masked in it as what is excluded.
    """

    dense: Floats
    sparse: Csr | None
    additive: Csr | None
    excluded: Csr | None
    masked: Csr | None
    group: NDArray[np.int32] | None

    @property
    def n_users(self) -> int:
        return int(self.dense.shape[0])

    @classmethod
    def of(cls, users: UserParts, place: NDArray[np.int32]) -> PlacedUsers:
        """Users that have been `checked`."""
        additive, excluded = users.additive and _placed(users.additive, place), None
        if users.excluded is not None:
            excluded = _placed(users.excluded, place)
        masked = excluded
        if additive is not None:
            entries = Csr(additive.indptr, additive.indices)
            masked = entries if excluded is None else excluded.joined(entries).with_sorted_rows()
        return cls(users.dense, users.sparse, additive, excluded, masked, users.group)

    def rows(self, start: int, stop: int) -> PlacedUsers:
        """The users start to stop."""
        return PlacedUsers(
            self.dense[start:stop],
            self.sparse and self.sparse.rows(start, stop),
            self.additive and self.additive.rows(start, stop),
            self.excluded and self.excluded.rows(start, stop),
            self.masked and self.masked.rows(start, stop),
            None if self.group is None else self.group[start:stop],
        )


def _placed(matrix: Csr, place: NDArray[np.int32]) -> Csr:
    return Csr(matrix.indptr, place[matrix.indices], matrix.values).with_sorted_rows()

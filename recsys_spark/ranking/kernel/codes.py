"""Factors as 8-bit codes, and how far a sum of codes may be from the score.

A vector x becomes s·q + e: q whole numbers of -127 … 127, s one step for the vector (for all items of a
tile), e what is left. Then for a user x = s·q + e and an item y = t·p + f

    |x·y - s·t·(q·p)|  =  |e·y + s·q·f|  ≤  ‖e‖·‖y‖ + ‖s·q‖·‖f‖,

of which the norms of a tile's items are taken at their largest. For D dimensions of like size that is about
‖x‖·‖y‖/100, a tenth of the standard deviation of the scores at 64 dimensions: of 50,000 items some dozens
pass who do not belong to the best ten, and they are scored in float32 next.

Each dimension is first brought to a mean square of about 1 over the items, by a power of two, which is exact;
the user's dimension takes the other half. Parts of a blend differ in size by more than 8 bits could hold.

Source: quantized maximum inner product search as in Guo et al., "Accelerating Large-Scale Inference with
Anisotropic Vector Quantization" (2020); with a bound instead of recall, since the lists must be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.parts import Floats, slices
from recsys_spark.ranking.kernel.shards import Shard

LARGEST = 127
MAX_DIMS = 4096  # 127 · 255 · 4096 is far below 2³¹, and so is every sum
MAX_EXPONENT = 30  # keeps what float32 loses at its ends below ABSOLUTE
TINY = 2.0**-100  # items below this are all residual
ROUNDING = 1e-6  # of float32 in the user's vector, in steps and residuals, with room
ABSOLUTE = 2.0**-40  # for underflow, of a product near 1

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class CodedTile:
    """A tile's items for `take_codes`: codes, starts, step; the largest norms of items and of residuals."""

    codes: NDArray[np.int8]
    starts: NDArray[np.int32]
    step: float
    norm: float
    residual: float


@dataclass(frozen=True)
class CodedItems:
    """A shard's items in codes, tile by tile. Memory: D + 4 bytes an item."""

    exponent: NDArray[np.int32]  # [D]: an item's value is divided by 2^exponent, a user's multiplied
    tiles: tuple[CodedTile, ...]

    @classmethod
    def of(cls, shard: Shard, tile_items: int, rows: int) -> CodedItems:
        """rows: items of a block, to which the last one of a tile is filled up with codes of 0."""
        square = np.zeros(shard.dense.shape[1])
        for part in slices(shard.n_items, 1 << 14):
            square += np.square(shard.dense[part], dtype=np.float64).sum(axis=0)
        mean = np.sqrt(square / max(shard.n_items, 1))
        exponent = np.where(mean > 0, np.frexp(mean)[1], 0).clip(-MAX_EXPONENT, MAX_EXPONENT).astype(np.int32)
        scaled = (np.ldexp(shard.dense[part], -exponent) for part in slices(shard.n_items, tile_items))
        return cls(exponent, tuple(_coded_tile(tile, rows) for tile in scaled))


def _coded_tile(items: Singles, rows: int) -> CodedTile:
    largest = float(np.abs(items).max(initial=0.0))
    step = largest / LARGEST if largest > TINY else 1.0
    code = np.rint(items * np.float32(1 / step))
    residual = items - code * np.float32(step)
    starts = np.zeros(-(-len(items) // rows) * rows, np.int32)
    starts[: len(items)] = -128 * code.sum(axis=1, dtype=np.float64)
    return CodedTile(
        in_blocks(code.astype(np.int8), rows), starts, step, _largest_norm(items), _largest_norm(residual)
    )


def _largest_norm(rows: Singles) -> float:
    return float(_norms(rows).max(initial=0.0))


def _norms(rows: Singles) -> Floats:
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))


def in_blocks(code: NDArray[Any], rows: int) -> NDArray[Any]:
    """Codes [n, D] in the order of the block product, flat: blocks, fours of dimensions, rows, 4."""
    n, dims = code.shape
    blocks, steps = -(-n // rows), -(-dims // 4)
    whole = np.zeros((blocks * rows, steps * 4), code.dtype)
    whole[:n, :dims] = code
    return np.ascontiguousarray(whole.reshape(blocks, rows, steps, 4).transpose(0, 2, 1, 3)).reshape(-1)


def coded_items(shard: Shard, tile_items: int, rows: int) -> CodedItems:
    """The shard's items in codes, made once for as long as the shard is held."""
    if tile_items not in shard.coded:
        shard.coded[tile_items] = CodedItems.of(shard, tile_items, rows)
    coded: CodedItems = shard.coded[tile_items]
    return coded


@dataclass(frozen=True)
class CodedUsers:
    """Users: vectors float32 [n, D], codes plus 128 in panels, step [n], norms [n] of s·q and of e."""

    vectors: Singles
    codes: NDArray[np.uint8]
    step: Floats
    norm: Floats
    residual: Floats

    @classmethod
    def of(cls, vectors: Singles, exponent: NDArray[np.int32], lanes: int) -> CodedUsers:
        """vectors: near 1 in every user's scores; lanes: users of a panel."""
        scaled = np.ldexp(vectors, exponent)
        largest = np.abs(scaled).max(axis=1, initial=0.0)
        step = np.where(largest > TINY, largest / np.float32(LARGEST), np.float32(1))
        code = np.rint(scaled / step[:, None])
        rounded = code * step[:, None]
        residual = scaled - rounded
        return cls(
            vectors,
            in_blocks(code.astype(np.int8), lanes).view(np.uint8) ^ np.uint8(128),
            step.astype(np.float64),
            _norms(rounded),
            _norms(residual),
        )

    def margin(self, tile: CodedTile) -> Floats:
        """How far step · tile.step · sum may be from the product of vector and item, for each user."""
        bound = self.residual * tile.norm + self.norm * tile.residual
        return bound + ROUNDING * (self.norm + self.residual) * (tile.norm + tile.residual) + ABSOLUTE

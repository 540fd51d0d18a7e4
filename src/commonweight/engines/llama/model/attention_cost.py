"""Cost model of llama.cpp's tiled attention on the CPU, for sizing prefill chunks.

From :data:`TILE_ROWS` rows on it computes tiles of so many rows, each over the cells of all its rows. A tile
that is not full costs what a full one does, and fewer rows than a tile are computed one by one, at several times
the price: behind 1,500 tokens, 63 rows of the starter model were seen to take twice as long as 64.
"""

from typing import NamedTuple

TILE_ROWS = 64
"""Rows of an attention tile."""
UNTILED_COST, TILED_COST = 8.0, 4.8
"""Cost of a multiplication of attention outside and within a tile, in multiplications with the weights: fitted
to steps of the starter model on two threads, 16 to 64 rows behind 512 to 4,096 tokens."""


class AttentionCost(NamedTuple):
    """Multiplications that one row of a model takes."""

    weights: int
    """With the weights; of mixtures of experts all of them, so that it rather seems too much than too little."""
    cell: int
    """With each cell that it attends to, in all layers."""

    def should_fill_tile(self, rows: int, context: int) -> bool:
        """Whether ``rows`` rows, fewer than a tile and behind ``context`` cells, are slower than a whole tile."""
        more = (TILE_ROWS - rows) * self.weights
        less = (rows * UNTILED_COST - TILE_ROWS * TILED_COST) * self.cell * context
        return 0 < more < less

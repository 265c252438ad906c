"""Tile coding: several grids over a box, shifted against each other; each point lies in one tile of each.

Sutton & Barto 2018, section 9.5.4: tiling i is shifted by i times the displacement vector (1, 3, 5, ...)
in units of one tile's width over the number of tilings, so that tilings are asymmetrically offset. They
name a power of two of at least 4 D tilings in D dimensions (Miller & Glanz 1996). Every tile has a
number of its own, without hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agents.contract import Array
from envs.kernel import kernel


class Tiling(NamedTuple):
    """Grids over a box of D dimensions."""

    low: Array  # [D] float64: where the box begins
    scale: Array  # [D] float64: tiles per unit
    offset: Array  # [tilings, D] float64 in [0, 1): a tiling's shift, in widths of a tile
    tiles: int  # widths of a tile from one end of the box to the other

    @property
    def features(self) -> int:
        """Tiles of all tilings; a shifted one needs one tile more in each dimension."""
        tilings, dimensions = self.offset.shape
        count: int = tilings * (self.tiles + 1) ** dimensions
        return count


def make_tiling(low: Sequence[float], high: Sequence[float], tilings: int, tiles: int) -> Tiling:
    """``tilings`` grids whose tiles are 1 / ``tiles`` of the box wide.

    Args:
        low: [D], where the box begins.
        high: [D], where it ends, above ``low``.
        tilings: how many; a power of two, so that odd displacements take every shift once.
        tiles: widths of a tile from one end of the box to the other.
    """
    begins, ends = np.array(low, np.float64), np.array(high, np.float64)
    displacement = 2 * np.arange(len(begins)) + 1
    shift = np.arange(tilings)[:, None] * displacement % tilings / tilings
    return Tiling(begins, tiles / (ends - begins), shift, tiles)


@kernel()
def active_tiles(tiling, obs, found):  # type: ignore[no-untyped-def]
    """The number of the tile of each tiling that ``obs`` lies in: x(s) is 1 there and 0 elsewhere.

    Args:
        tiling: a `Tiling`.
        obs: [D]; what lies outside the box counts as its edge.
        found: [tilings] int64, written.
    """
    tilings, dimensions = tiling.offset.shape
    for i in range(tilings):
        number = i
        for d in range(dimensions):
            widths = (obs[d] - tiling.low[d]) * tiling.scale[d]
            widths = min(max(widths, 0.0), float(tiling.tiles))
            number = number * (tiling.tiles + 1) + int(widths + tiling.offset[i, d])
        found[i] = number

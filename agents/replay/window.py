"""The n-step window that starts at a row of a ring."""

from __future__ import annotations

from agents.replay.view import reward_and_discount
from envs.kernel import inlined, kernel

_view = inlined()(reward_and_discount)


@kernel()
def window(  # type: ignore[no-untyped-def]
    row, k, lane, head, n_step, gamma, scale, clip, first, reward, terminated, truncated
):
    """The n-step window that starts at a row: (row of its last observation, reward, discount).

    It ends with the first done row, before the first row that is not valid, or after n rows. Row r
    is valid where row r + 1 does not open an episode. Returns the row itself as the end where no
    window can start.
    """
    slots = first.shape[0]
    total, discount = 0.0, 1.0
    for t in range(row, row + n_step):
        if t >= head:
            return row, 0.0, 0.0
        slot = t % slots
        if first[(t + 1) % slots, k, lane]:
            return t, total, discount
        r, factor = _view(reward[slot, k, lane], terminated[slot, k, lane], gamma, scale, clip)
        total += discount * r
        discount *= factor
        if terminated[slot, k, lane] or truncated[slot, k, lane]:
            return t + 1, total, discount
    return row + n_step, total, discount

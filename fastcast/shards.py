"""How many shards a number of connections takes: what the server starts, and what the doctor reckons with."""

from __future__ import annotations

from typing import Final

MOST_SHARDS: Final = 1024
"""FC_SHARD_MAX in core/client.h."""

# The kernel's spread over the shards is uneven by a percent or so, and a handover costs more than some room.
_SPREAD: Final = 1.02

# What a shard needs for itself; see count_room in core/shard.c.
_FDS_OF_A_SHARD: Final = 48


def shards_for(connections: int | None, limit: int | None, processors: int) -> int:
    """One for each processor, at least two; more where the connections want more fds than they have.

    ``limit`` is that on open files, of each fd table. None is no number in mind, or no limit.
    """
    shards = max(2, processors)
    if connections is not None and limit is not None:
        # A shard's table holds a wake-up and a door of each shard, and the process's own four fds for each.
        while (
            shards < MOST_SHARDS
            and shards * (limit - 2 * shards - _FDS_OF_A_SHARD) < connections * _SPREAD
            and 4 * (shards + 1) + 64 < limit
        ):
            shards += 1
    return min(shards, MOST_SHARDS)

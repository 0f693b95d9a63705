"""Sharding: parameters of which every process holds some rows (``fully_shard``, DTensor)."""

from gaugefix.sharding.modules import apart, is_sharded, reshard_
from gaugefix.sharding.place import Place, factor_here, is_dtensor, place_of, rows_here
from gaugefix.sharding.shards import Shards, copied, rows_of, shards_of, subset, widened
from gaugefix.sharding.streamed import Streamed
from gaugefix.sharding.structure import structure_of

__all__ = [
    "Place",
    "Shards",
    "Streamed",
    "apart",
    "copied",
    "factor_here",
    "is_dtensor",
    "is_sharded",
    "place_of",
    "reshard_",
    "rows_here",
    "rows_of",
    "shards_of",
    "structure_of",
    "subset",
    "widened",
]

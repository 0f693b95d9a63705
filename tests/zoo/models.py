"""The zoo: small random `transformers` models, by name."""

from __future__ import annotations

from tests.zoo.decoders import DECODERS
from tests.zoo.encoders import ENCODERS
from tests.zoo.wrapper import Entry

ZOO: dict[str, Entry] = {**DECODERS, **ENCODERS}

"""Products of signs that are fixed: linear algebra over Z2.

A sign is an integer name, a product of signs the set of its names (a sign that occurs twice cancels). Several
symmetries may flip the same entries, so that only products of their signs have a meaning, and some have none.
"""

from __future__ import annotations

from collections.abc import Iterable


class SignSpace:
    """The products that are fixed so far, as a reduced basis: each element has a pivot that occurs in no other."""

    def __init__(self) -> None:
        self._basis: dict[int, frozenset[int]] = {}
        self._holders: dict[int, set[int]] = {}

    def reduce(self, product: Iterable[int]) -> frozenset[int]:
        """Return what of a product is still open; empty if it is fixed."""
        rest: frozenset[int] = frozenset()
        for sign in product:
            rest ^= self._basis[sign] - {sign} if sign in self._basis else {sign}
        return rest

    def fix(self, rest: frozenset[int]) -> frozenset[int]:
        """Fix an open product; return the signs to flip together, which change it and nothing that was fixed before.

        Args:
            rest: from :meth:`reduce`, not empty.
        """
        pivot = min(rest)
        holders = self._holders.pop(pivot, set())
        for holder in holders:
            self._place(holder, self._basis[holder] ^ rest)
        self._place(pivot, rest)
        return frozenset((pivot, *holders))

    def _place(self, pivot: int, element: frozenset[int]) -> None:
        for sign in self._basis.get(pivot, frozenset()) - element - {pivot}:
            self._holders.get(sign, set()).discard(pivot)
        for sign in element - {pivot}:
            self._holders.setdefault(sign, set()).add(pivot)
        self._basis[pivot] = element

"""The place of each record in a journal's file, by kind and key, in some 32 bytes a record: keys
stay in the file.

A hash table with open addressing, in arrays. A record with the right hash is compared with the key
in the file, as two keys may have one hash."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

# Start and length of a line, in bytes.
Place = tuple[int, int]


class Index:
    """Records by number, in the order in which they were added. `name_at` reads a record's kind and
    key from the file."""

    def __init__(self, name_at: Callable[[int, int], tuple[str, str]]) -> None:
        self._name_at = name_at
        self._starts, self._lengths, self._hashes = array("Q"), array("I"), array("q")
        # Kinds by number, as there are few of them.
        self._kinds, self._of_kind = array("H"), dict[str, int]()
        # Numbers of records, counted from 1; 0 is a free slot.
        self._slots = array("I", bytes(4 * 8))

    def put(self, kind: str, key: str, start: int, length: int) -> None:
        """Enter a record; if the key is known, its place changes and its number stays."""
        number, slot = self._look_up(kind, key)
        if number is not None:
            self._starts[number], self._lengths[number] = start, length
            return
        self._starts.append(start)
        self._lengths.append(length)
        self._hashes.append(hash((kind, key)))
        self._kinds.append(self._of_kind.setdefault(kind, len(self._of_kind)))
        self._slots[slot] = len(self._starts)
        if 3 * len(self._starts) > 2 * len(self._slots):
            self._grow()

    def find(self, kind: str, key: str) -> Place | None:
        """The place of a record, or None."""
        number, _ = self._look_up(kind, key)
        return None if number is None else (self._starts[number], self._lengths[number])

    def places(self, kind: str | None = None, start: int = 0) -> Iterator[Place]:
        """The places of the records of one kind or of all, from number `start` on."""
        end, wanted = len(self._starts), self._of_kind.get(kind, -1) if kind is not None else None
        for number in range(start, end):
            if wanted is None or self._kinds[number] == wanted:
                yield self._starts[number], self._lengths[number]

    def _look_up(self, kind: str, key: str) -> tuple[int | None, int]:
        """The number of a record if it is known, and the slot that is or would be its own."""
        key_hash, last = hash((kind, key)), len(self._slots) - 1
        slot = key_hash & last
        while number := self._slots[slot]:
            if self._hashes[number - 1] == key_hash and self._is(number - 1, kind, key):
                return number - 1, slot
            slot = (slot + 1) & last
        return None, slot

    def _is(self, number: int, kind: str, key: str) -> bool:
        return self._name_at(self._starts[number], self._lengths[number]) == (kind, key)

    def _grow(self) -> None:
        last = 2 * len(self._slots) - 1
        self._slots = array("I", bytes(4 * (last + 1)))
        for number, key_hash in enumerate(self._hashes, 1):
            slot = key_hash & last
            while self._slots[slot]:
                slot = (slot + 1) & last
            self._slots[slot] = number

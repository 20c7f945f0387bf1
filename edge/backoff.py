"""How long to wait before trying again. Pure."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double from `first_s` up to `longest_s`, each shortened at random by up to a third.

    The jitter keeps a dozen agents from knocking on a restarted camera or hub in the same instant.
    """

    __slots__ = ("_first_s", "_longest_s", "_next_s", "_random")

    def __init__(self, first_s: float, longest_s: float, randomness: random.Random | None = None) -> None:
        if not 0 < first_s <= longest_s:
            raise ValueError(f"backoff from {first_s} s up to {longest_s} s: give 0 < first <= longest")
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s
        self._random = randomness or random.Random()

    def next_s(self) -> float:
        """Seconds to wait now; the following wait is twice as long."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._longest_s)
        return wait_s * (1 - self._random.random() / 3)

    def reset(self) -> None:
        """It worked: start from the shortest wait next time."""
        self._next_s = self._first_s

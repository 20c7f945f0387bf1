"""Times are whole nanoseconds everywhere; these say how many make what people say."""

from typing import Final

SECOND_NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000

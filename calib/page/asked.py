"""What a browser asked for, taken apart; nothing in it is trusted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError

Floats = NDArray[np.float64]
_MOST_CORNERS = 500
_LONGEST_TEXT = 200
_LARGEST_NUMBER = 1e7


class Asked:
    """The values of one request. CalibError names the one that is not usable."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise CalibError("the page sent something that is no request: reload the page")
        self._values = values

    def text(self, key: str) -> str:
        """Text that must be there."""
        value = self._values.get(key)
        if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_TEXT:
            raise CalibError(f"{key} is empty or no text: type one")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._values.get(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        return self._values.get(key) is True

    def whole(self, key: str) -> int:
        value = self._values.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CalibError(f"{key} is {value!r}: type a whole number")
        return value

    def numbers(self, key: str, count: int) -> Floats:
        """(count,) finite numbers that must be there."""
        return _numbers(key, self._values.get(key), (count,))

    def optional_numbers(self, key: str, count: int) -> Floats | None:
        return None if self._values.get(key) is None else self.numbers(key, count)

    def polygon(self, key: str) -> Floats:
        """(N, 2) corners."""
        value = self._values.get(key)
        if not isinstance(value, list) or len(value) < 3:
            raise CalibError("a shape needs at least three corners: click more of them")
        if len(value) > _MOST_CORNERS:
            raise CalibError(f"a shape has at most {_MOST_CORNERS} corners: draw it coarser")
        return _numbers(key, value, (len(value), 2))


def _numbers(key: str, value: Any, shape: tuple[int, ...]) -> Floats:
    try:
        array = (
            np.array(value, dtype=np.float64).reshape(-1) if shape == (1,) else np.array(value, np.float64)
        )
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or not (np.abs(array) < _LARGEST_NUMBER).all():
        raise CalibError(f"{key} needs {' × '.join(map(str, shape))} finite number(s): type them again")
    return array

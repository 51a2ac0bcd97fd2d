"""What was used of late, in memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by key, the least used of late dropped where they take more than `max_bytes`, each after `ttl_s`.

    Times are seconds of `clock`, the time of day. Only one thread uses it.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, size_bytes: Callable[[Value], int], clock: Callable[[], float] = time.time
    ) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._size_bytes = size_bytes
        self._clock = clock
        self._values: OrderedDict[str, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Value | None:
        """The value, if there is one that is not too old."""
        found = self._values.get(key)
        if found is None:
            return None
        value, made_s = found
        if self._clock() - made_s > self._ttl_s:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: str, value: Value, made_s: float) -> None:
        """Have the value, made at that time of day, in the place of one that was there."""
        self._drop(key)
        self._values[key] = (value, made_s)
        self.bytes += self._size_bytes(value)
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._values)))

    def _drop(self, key: str) -> None:
        if found := self._values.pop(key, None):
            self.bytes -= self._size_bytes(found[0])

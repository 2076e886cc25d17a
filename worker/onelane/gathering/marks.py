"""Names that are marked for a while."""

from collections import OrderedDict
from typing import Final

MARKED_MAX: Final = 10_000


class Marks:
    """Names that are marked for a while; of too many the oldest are forgotten."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._until: OrderedDict[str, float] = OrderedDict()

    def add(self, name: str, now: float) -> None:
        """Mark `name` from now on."""
        self._until.pop(name, None)
        self._until[name] = now + self._for_s
        while len(self._until) > MARKED_MAX or next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)

    def has(self, name: str, now: float) -> bool:
        """Tell whether `name` is marked."""
        return self._until.get(name, now) > now

"""What the drop-ins for engines share: fills bound once per set of buffers, and a count of calls."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from ._core import Fill, fill_many

# An engine has a few sets of buffers for each captured batch size.
LIMIT = 1024


class Calls:
    """Bound fills by everything that they depend on, and how often each function was called.

    A fill that is kept here keeps no buffer alive: its key says where the buffers are and how they are laid out, so a
    tensor that comes to lie where a freed one was is filled correctly.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.counts: Counter[str] = Counter()
        self.bound: dict[Hashable, tuple[Fill, ...]] = {}

    def run(self, name: str, key: Hashable, bind: Callable[[], tuple[Fill, ...]]) -> None:
        """One launch of the fills that bind makes for this key."""
        fills = self.bound.get((name, key))
        if fills is None:
            fills = self._bind(name, key, bind)
        if len(fills) == 1:
            fills[0]()
        else:
            fill_many(fills)
        self.counts[name] += 1

    def _bind(self, name: str, key: Hashable, bind: Callable[[], tuple[Fill, ...]]) -> tuple[Fill, ...]:
        fills = bind()
        if not self.counts[name] and os.environ.get("DRAFTMETA_VERBOSE", "0") not in ("", "0"):
            where = f"{fills[0].backend}:{fills[0].device}"
            print(
                f"{self.module}.{name} is in use, on {where}, process {os.getpid()}",
                file=sys.stderr,
                flush=True,
            )
        while len(self.bound) >= LIMIT:
            self.bound.pop(next(iter(self.bound)), None)  # the oldest; another thread may have been faster
        self.bound[name, key] = fills
        return fills


def head(tensor: Any, length: int) -> Any:
    """The first length rows; None stays None. Fewer than that are an error, as they are for the kernels replaced."""
    if tensor is None:
        return None
    if tensor.shape[0] < length:
        raise ValueError(f"a buffer has {tensor.shape[0]} rows: at least {length} are needed")
    return tensor[:length]

"""What the drop-ins for engines share: functions whose fills are bound by layout, and a count of their calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ._core import ByLayout

# Layouts that a function keeps bound. An engine has a few for each captured batch size.
LIMIT = 1024


class Part(NamedTuple):
    """Of a call's array: these rows and columns; -1 is all there are. Too few rows are an error, too few columns not."""

    number: int
    rows: int = -1
    columns: int = -1
    skip: int = 0


class Calls:
    """The functions of one module that stand for an engine's."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.functions: dict[str, ByLayout] = {}

    def function(
        self,
        name: str,
        arrays: tuple[str, ...],
        bind: Callable[[tuple[Any, ...], tuple[Any, ...]], list[dict[str, Any]]],
        limit: int = LIMIT,
    ) -> ByLayout:
        """What runs the fills that bind(arrays, numbers) gives for a layout: see ByLayout."""
        made = self.functions[name] = ByLayout(arrays, bind, limit, partial(self._say, name))
        return made

    def counts(self) -> dict[str, int]:
        """How often each function was called, if it was."""
        return {name: function.calls for name, function in self.functions.items() if function.calls}

    def _say(self, name: str, backend: str, device: int) -> None:
        if os.environ.get("DRAFTMETA_VERBOSE", "0") not in ("", "0"):
            where = f"{backend}:{device}"
            print(
                f"{self.module}.{name} is in use, on {where}, process {os.getpid()}",
                file=sys.stderr,
                flush=True,
            )


def whole(arrays: tuple[Any, ...], names: tuple[str, ...]) -> dict[str, Part | None]:
    """By their names, parts that are all of the call's arrays; None stays None."""
    return {name: None if array is None else Part(i) for i, (name, array) in enumerate(zip(names, arrays))}


def head(part: Part | None, rows: int, columns: int = -1) -> Part | None:
    """The first rows, and the first columns."""
    return None if part is None else Part(part.number, rows, columns)

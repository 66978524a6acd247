"""Work schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ._core import _Array


class Schedule:
    """One of DeepGEMM's paged-MQA schedules, for Fill(schedules=[...]).

    table: int32 [slots + 1][2], written. variant: "smxx", "sm90" or "sm100". unit: "token" (each by itself) or
    "request" (its extend_len tokens together). slots: usually the number of multiprocessors; None: as many as the table
    has room for. divisor: KV tokens per entry of a pooled cache. Fill checks them, and names them in its errors.
    """

    __slots__ = ("table", "variant", "unit", "slots", "divisor")

    def __init__(
        self,
        table: _Array,
        variant: Literal["smxx", "sm90", "sm100"] = "sm90",
        unit: Literal["token", "request"] = "token",
        slots: int | None = None,
        divisor: int = 1,
    ) -> None:
        self.table = table
        self.variant = variant
        self.unit = unit
        self.slots = slots
        self.divisor = divisor

    def __repr__(self) -> str:
        return f"Schedule({self.variant!r}, {self.unit!r}, slots={self.slots}, divisor={self.divisor})"

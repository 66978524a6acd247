"""What fills found in their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import _core

if TYPE_CHECKING:
    from ._core import _Array, _Backend, _Stream


class Report(NamedTuple):
    """A report's three numbers; the properties are its flags."""

    flags: int
    """DM_REPORT_* values, OR-ed."""
    bad_request: int
    """The highest r + 1 of a request with a clamped length or a bad pool index; 0: none."""
    tokens_wanted: int
    """The most tokens that a fill had, whether the buffers held them or not."""

    @property
    def kv_clamped(self) -> bool:
        """A KV length was negative or above 2**31 - 1."""
        return bool(self.flags & 1)

    @property
    def q_clamped(self) -> bool:
        """An extend length was negative or above 2**31 - 1."""
        return bool(self.flags & 2)

    @property
    def bad_pool(self) -> bool:
        """A pool index, or a block table's row, was out of range."""
        return bool(self.flags & 4)

    @property
    def narrow(self) -> bool:
        """A sum did not fit the int32 that it was stored into."""
        return bool(self.flags & 8)

    @property
    def tokens_dropped(self) -> bool:
        """There were more tokens than the buffers hold."""
        return bool(self.flags & 16)


def read_report(
    report: _Array, stream: _Stream | None = None, backend: _Backend | None = None, device: int | None = None
) -> Report:
    """Waits for the stream and reads the buffer that was given as Fill(report=...).

    report: 16 bytes, 2 of int64 or 4 of int32; the flags stay set until the caller zeroes it. stream: as in a fill.
    backend, device: where the buffer is, if it does not say. Raises what Fill raises.
    """
    return Report(*_core.read_report(report, stream, backend, device))

"""GPU time of single calls as an engine sees them, in three columns:

    warm  the call before was the same one
    code  before every call other kernels ran, which evict its instructions from the multiprocessors' caches
    cold  besides, the L2 was flushed

Time is the duration of a call's kernels, as CUPTI's activity records give it; torch's profiler carries them. The compared
sides take turns sample by sample. A small kernel of a kind of its own marks in the trace where other kernels end.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from results import COLUMNS

FLUSH_BYTES = 256 << 20
FIRST_CALLS = 3  # until nothing is compiled, loaded or bound any more

Call = Callable[[], object]
Trace = list[tuple[str, float]]  # names and microseconds of what ran on the device, in order
Times = dict[str, dict[str, list[float]]]  # by side and column


class Unexpected(Exception):
    """The trace is not what was launched."""


@dataclass(frozen=True)
class Turn:
    column: str
    side: str


def turns_of(sides: Sequence[str], samples: int) -> list[Turn]:
    return [Turn(c, side) for c in COLUMNS for _ in range(samples) for side in sides]


class Reader:
    """Takes a trace apart: warm turns are two calls, of which the second counts; before the others a marker stands."""

    def __init__(self, trace: Trace, marker: str) -> None:
        self.trace, self.marker, self.at = trace, marker, 0

    def after_marker(self) -> None:
        while self.at < len(self.trace):
            self.at += 1
            if self.trace[self.at - 1][0] == self.marker:
                return
        raise Unexpected(f"a marker is missing after {len(self.trace)} records")

    def call(self, names: Sequence[str]) -> float:
        """The next call's time: of all its kernels and copies."""
        found = self.trace[self.at : self.at + len(names)]
        if [name for name, _ in found] != list(names):
            raise Unexpected(f"record {self.at}: expected {names}, got {[name for name, _ in found]}")
        self.at += len(names)
        return sum(us for _, us in found)

    def times(self, turns: Sequence[Turn], names: Mapping[str, Sequence[str]]) -> Times:
        result: Times = {side: {column: [] for column in COLUMNS} for side in names}
        for turn in turns:
            if turn.column == "warm":
                self.call(names[turn.side])
            else:
                self.after_marker()
            result[turn.side][turn.column].append(self.call(names[turn.side]))
        if self.at != len(self.trace):
            raise Unexpected(f"{len(self.trace) - self.at} records are left over")
        return result


def period(trace: Trace, calls: int) -> list[str]:
    """The names of one call, from a trace of several."""
    names = [name for name, _ in trace]
    one = names[: len(names) // calls]
    if not one or one * calls != names:
        raise Unexpected(f"{calls} calls are not alike: {names}")
    return one


# ---- On a GPU -------------------------------------------------------------------------------------------------------


def record(work: Call) -> Trace:
    """What it runs on the device, and the wait for it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    events = [e for e in profile.profiler.kineto_results.events() if e.device_type() == cuda]
    events = [e for e in events if not e.name().endswith(" Sync")]  # waits, not work
    events.sort(key=lambda e: e.start_ns())
    return [(e.name(), e.duration_ns() / 1e3) for e in events]


class Device:
    def __init__(self) -> None:
        self.flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        self.mark = torch.zeros(1, dtype=torch.bool, device="cuda")
        self.a = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
        self.b = torch.randn(300000, device="cuda")
        for _ in range(FIRST_CALLS):
            self.between("cold")
        self.marker = period(record(lambda: [self.mark.logical_not_() for _ in range(4)]), 4)[0]
        others = {name for name, _ in record(self.other_code)}
        if self.marker in others:
            raise Unexpected(f"the marker is not a kernel of its own: {self.marker}")
        print(f"between calls: {len(others)} kinds of kernels", flush=True)

    def other_code(self) -> None:
        """A mix of kernels as engines have it."""
        x = (self.a @ self.a).softmax(-1)
        self.b.sort()
        self.b.topk(50)
        self.b.cumsum(0)
        torch.nn.functional.layer_norm(x.float(), (1024,)).sum()
        (x * 2 + 1).tanh().argmax(-1)

    def between(self, column: str) -> None:
        if column == "warm":
            return
        self.other_code()
        if column == "cold":
            self.flushed.fill_(1)
        self.mark.logical_not_()
        torch.cuda.synchronize()

    def times(self, sides: Mapping[str, Call], samples: int) -> Times:
        """sides: calls by name. Raises Unexpected where the trace cannot be read, twice."""
        for call in sides.values():
            for _ in range(FIRST_CALLS):
                call()
        names = {side: period(record(lambda: [call() for _ in range(3)]), 3) for side, call in sides.items()}
        turns = turns_of(list(sides), samples)

        def work() -> None:
            for turn in turns:
                self.between(turn.column)
                for _ in range(1 + (turn.column == "warm")):
                    sides[turn.side]()

        try:
            return Reader(record(work), self.marker).times(turns, names)
        except Unexpected as error:
            print(f"  once more: {error}", flush=True)
            return Reader(record(work), self.marker).times(turns, names)


class Host:
    """To try the code without a GPU: the caller's time, which means nothing here."""

    def times(self, sides: Mapping[str, Call], samples: int) -> Times:
        result: Times = {side: {column: [] for column in COLUMNS} for side in sides}
        for turn in turns_of(list(sides), samples):
            start = time.perf_counter()
            sides[turn.side]()
            result[turn.side][turn.column].append((time.perf_counter() - start) * 1e6)
        return result


# ---- The host's time ------------------------------------------------------------------------------------------------


def prepared_us(calls: Iterator[Call], count: int) -> float:
    """The caller's microseconds a call, for the next of calls, which are made before the clock starts."""
    ready = [next(calls) for _ in range(count)]
    start = time.perf_counter_ns()
    for call in ready:
        call()
    return (time.perf_counter_ns() - start) / count / 1e3

"""What happens when, in the engine's scheduler: the mode, the stretches of steps that are counted, the held requests."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

# A  SGLang's own metadata
# B  draftmeta.sglang's drop-ins for its fused kernels
# C  also draftmeta.sglang.dsa_step_metadata: a whole step in one launch, with its schedule
# D  also the draft backends, all of them in one launch
# S  shadow: SGLang's own, and draftmeta into poisoned copies, which are compared
MODES = {
    "A": "SGLang's own",
    "B": "drop-ins",
    "C": "whole steps",
    "D": "and draft backends",
    "S": "shadow",
}


@dataclass
class State:
    mode: str = "A"
    gate: int = 0  # requests that are let in together
    counting: bool = False  # this step belongs to a measurement
    tracing: bool = False
    times: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    uses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Segment:
    """Decode steps in one mode; the first of them, skip, are not counted. With a trace they are profiled, not timed."""

    mode: str
    skip: int
    steps: int
    trace: str | None = None


class Program:
    """Segments, one behind the other, while as many requests run as they are meant for."""

    def __init__(self, state: State, start: Callable[[], None], stop: Callable[[str], None]) -> None:
        self.state, self.start_trace, self.stop_trace = state, start, stop
        self.segments: deque[Segment] = deque()
        self.requests = self.done = 0

    def load(self, requests: int, segments: Iterable[Segment]) -> None:
        self.requests, self.done, self.segments = requests, 0, deque(segments)

    def before_step(self, requests: int) -> None:
        if not self.segments or requests != self.requests:
            return
        if self.done == self.segments[0].skip + self.segments[0].steps:
            self._end(self.segments.popleft())
        if self.segments:
            self._begin(self.segments[0])
            self.done += 1

    def _begin(self, segment: Segment) -> None:
        if self.done == 0:
            self.state.mode = segment.mode
        if self.done == segment.skip:
            self.state.counting = True
            if segment.trace:
                self.state.tracing = True
                self.start_trace()

    def _end(self, segment: Segment) -> None:
        self.state.counting, self.done = False, 0
        if segment.trace:
            self.state.tracing = False
            self.stop_trace(segment.trace)


class Gate:
    """Lets requests in together and in one order, so that every mode sees the same batches."""

    def __init__(self, state: State, request: type) -> None:
        self.state, self.request = state, request
        self.held: list[Any] = []

    def admit(self, came: list[Any] | None) -> list[Any] | None:
        if came is None or not self.state.gate:
            return came
        self.held += [item for item in came if isinstance(item, self.request)]
        others = [item for item in came if not isinstance(item, self.request)]
        if len(self.held) < self.state.gate:
            return others
        ready, self.held = sorted(self.held, key=lambda item: str(item.rid)), []
        return others + ready

"""Reads what the GPU does for each refresh of metadata out of PyTorch's trace.

A refresh is a range of the host; the GPU's operations in it are those whose CUDA call lies in the range. A fill that
draftmeta launches as a graph has no such call in the trace: it belongs to the refresh of the operation behind it in its
stream, for SGLang's top-k plan always follows."""

from __future__ import annotations

import bisect
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

PREFIX = "metadata: "
FILL = "draftmeta_fill"
CALLS, OPERATIONS = ("cuda_runtime", "cuda_driver"), ("kernel", "gpu_memcpy", "gpu_memset")
Event = dict[str, Any]


def reduce(path: Path) -> list[Event]:
    """The events that matter here; the file is left with these alone, a small part of it."""
    events = json.loads(path.read_text())["traceEvents"]
    kept = [event for event in events if event.get("ph") == "X" and _matters(event)]
    path.write_text(json.dumps({"traceEvents": kept}))
    return kept


def _matters(event: Event) -> bool:
    if event.get("cat") == "user_annotation":
        return str(event["name"]).startswith(PREFIX)
    return event.get("cat") in CALLS + OPERATIONS


def refreshes(events: list[Event]) -> dict[str, list[list[Event]]]:
    """Of each kind of refresh, each one's operations on the GPU."""
    ranges = sorted((e for e in events if e["cat"] == "user_annotation"), key=lambda e: e["ts"])
    calls = _ranges_of_calls(ranges, [e for e in events if e["cat"] in CALLS])
    found: list[list[Event]] = [[] for _ in ranges]
    behind: dict[int | None, int | None] = {}  # the refresh of the operation that follows in a stream
    for event in sorted((e for e in events if e["cat"] in OPERATIONS), key=lambda e: -e["ts"]):
        correlation, stream = event["args"].get("correlation"), event["args"].get("stream")
        if correlation in calls:
            behind[stream] = index = calls[correlation]
        else:
            index = behind.get(stream) if event["name"].startswith(FILL) else None
        if index is not None:
            found[index].append(event)
    kinds: dict[str, list[list[Event]]] = defaultdict(list)
    for entry, operations in zip(ranges, found):
        kinds[entry["name"].removeprefix(PREFIX)].append(operations[::-1])
    return kinds


def _ranges_of_calls(ranges: list[Event], calls: list[Event]) -> dict[int, int | None]:
    """By correlation, the index of the range that a call lies in; None if it lies in none."""
    starts = [entry["ts"] for entry in ranges]
    result: dict[int, int | None] = {}
    for call in calls:
        at = bisect.bisect_right(starts, call["ts"]) - 1
        inside = at >= 0 and call["ts"] <= starts[at] + ranges[at]["dur"] and call["tid"] == ranges[at]["tid"]
        result[call["args"].get("correlation")] = at if inside else None
    return result


def summarise(events: list[Event]) -> dict[str, Any]:
    """By kind of refresh: how many were seen, and medians of their operations, their time, and their fills' time."""
    return {kind: _summarise_kind(rounds) for kind, rounds in refreshes(events).items()}


def _summarise_kind(rounds: list[list[Event]]) -> dict[str, Any]:
    fills = [[e for e in operations if e["name"].startswith(FILL)] for operations in rounds]
    durations: dict[str, list[float]] = defaultdict(list)
    for event in (e for operations in rounds for e in operations):
        durations[short(event["name"])].append(event["dur"])
    return {
        "seen": len(rounds),
        "operations": median(len(operations) for operations in rounds),
        "us": median(_time(operations) for operations in rounds),
        "fills": median(len(operations) for operations in fills),
        "fills_us": median(_time(operations) for operations in fills),
        "launched": {
            name: [len(times) / len(rounds), median(times)]
            for name, times in sorted(durations.items(), key=lambda item: -sum(item[1]))
        },
    }


def _time(operations: list[Event]) -> float:
    return float(sum(event["dur"] for event in operations))


def short(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters."""
    if name.startswith(("Memcpy", "Memset")):
        return name
    name = re.sub(r"^void ", "", name).replace("(anonymous namespace)::", "")
    return re.split(r"[<(]", name)[0].split("::")[-1]

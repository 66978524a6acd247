"""Rows of raw numbers: run.py writes them, the report reads them. Needs no GPU, no NumPy and no PyTorch."""

import json
import math
import operator
import statistics
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

OURS, THEIRS, EMPTY = "draftmeta", "SGLang", "empty"
COLUMNS = ("warm", "code", "cold")  # of GPU times, see columns.py
POINT = ("mode", "form", "pool_size", "requests", "context", "width")  # what a shape is told by
CASE = (*POINT, "tables")  # the same, for the stages that ask as an engine does

Row = dict[str, Any]
Pair = tuple[tuple[Any, ...], Row, Row]  # key values, our row, their row


class Mismatch(Exception):
    """An output is not what the reference says."""


# ---- Statistics -----------------------------------------------------------------------------------------------------


def percentile(samples: Sequence[float], share: float) -> float:
    """By linear interpolation between the two nearest samples."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(v) for v in values) / len(values))


def within_rounds(pair: Pair, compare: Callable[[float, float], float]) -> float:
    """The median over rounds of compare(theirs, ours), for calls: the host's clock may change between rounds."""
    _, ours, theirs = pair
    return statistics.median(map(compare, theirs["samples"], ours["samples"]))


def ratio(pair: Pair) -> float:
    """How many times as long theirs takes."""
    _, ours, theirs = pair
    if ours["metric"] in ("graph_us", "gpu_us"):
        return theirs["median"] / ours["median"]
    return within_rounds(pair, operator.truediv)


# ---- Writing --------------------------------------------------------------------------------------------------------


class Results:
    """Rows of raw numbers and what they belong to, written after every stage."""

    def __init__(self, path: Path) -> None:
        self.path, self.checks = Path(path), 0
        self.meta: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.failures: list[dict[str, str]] = []
        self.skipped: list[str] = []

    def add(self, stage: str, peer: str, metric: str, samples: Sequence[float], shape=None, **more) -> None:
        row = {"stage": stage, "peer": peer, "metric": metric, "median": statistics.median(samples)}
        row.update(p10=percentile(samples, 0.1), p90=percentile(samples, 0.9))
        if shape:
            row.update({name: getattr(shape, name) for name in POINT})
        row.update(more, samples=[round(float(s), 4) for s in samples])
        self.rows.append(row)

    def fail(self, stage: str, peer: str, what: object, error: Exception) -> None:
        kind = "mismatch" if isinstance(error, Mismatch) else "failure"
        where = {"kind": kind, "stage": stage, "peer": peer, "at": str(what)}
        self.failures.append({**where, "error": str(error)[:500]})
        print(f"  {kind}: {stage}, {peer}, {what}: {error}", flush=True)
        if kind == "failure":
            traceback.print_exception(error)

    def write(self) -> None:
        names = ("meta", "checks", "failures", "skipped", "rows")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({name: getattr(self, name) for name in names}))


# ---- Reading --------------------------------------------------------------------------------------------------------


class Data:
    def __init__(self, path: Path | str) -> None:
        content = json.loads(Path(path).read_text())
        self.meta, self.rows = content["meta"], content["rows"]
        self.checks, self.failures, self.skipped = (content[k] for k in ("checks", "failures", "skipped"))

    def select(self, **wanted: Any) -> list[Row]:
        return [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]

    def pairs(self, ours: str, theirs: str, keys: Sequence[str], **wanted: Any) -> list[Pair]:
        """Wherever both were measured."""
        mine = {tuple(r.get(k) for k in keys): r for r in self.select(peer=ours, **wanted)}
        others = {tuple(r.get(k) for k in keys): r for r in self.select(peer=theirs, **wanted)}
        return [(key, mine[key], others[key]) for key in mine if key in others]

    def empty_us(self) -> float | None:
        rows = sorted(r["median"] for r in self.select(peer=EMPTY, metric="graph_us"))
        return rows[len(rows) // 2] if rows else None


# ---- Words ----------------------------------------------------------------------------------------------------------


def tokens(n: int) -> str:
    return f"{n // 1048576}M" if n % 1048576 == 0 else f"{n // 1024}k" if n % 1024 == 0 else str(n)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def place(row: Row) -> str:
    """A point of the sweeps."""
    pool = f", pool {row['pool_size']}" if row["pool_size"] > 1 else ""
    where = f"{row['requests']} requests, context {tokens(row['context'])}, width {tokens(row['width'])}"
    return f"{where}, {row['form']}{pool}"


def case_name(row: Row) -> str:
    """What an engine asks, such as "target verify 8 x 300, page_table_1"."""
    form = f" {row['form']}" if row["mode"] == "draft-extend" else ""
    what = f"{row['mode'].replace('-', ' ')}{form} {row['requests']} x {tokens(row['context'])}"
    return f"{what}, {row['tables']}"

"""The aims that the project set itself, and what a run says of them."""

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from results import CASE, OURS, POINT, THEIRS, Data, Pair
from results import case_name, geometric_mean, number, place, ratio, within_rounds

SHARE, TICK_US = (
    1.05,
    0.032,
)  # to which a GPU time is known: the larger of a share and a tick of CUPTI's clock
ENGINE_STAGES = ("columns", "python")  # what an engine sees: --strict is about these
SCHEDULE_US = 0.9


@dataclass(frozen=True)
class Bar:
    stage: str
    name: str
    limit: float
    value: float | None  # None: not measured
    unit: str = "x"
    at_least: bool = True
    note: str = ""
    missed: tuple[str, ...] | None = None  # the points that missed it, where the bar is one of points

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        if self.missed is not None:
            return not self.missed
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def word(self) -> str:
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]

    @property
    def aim(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"


def within(value: float, limit: float) -> bool:
    """Whether microseconds are at most so many, as far as they are known."""
    return value <= max(limit * SHARE, limit + TICK_US)


# ---- What an engine sees --------------------------------------------------------------------------------------------


def limit_of(row) -> float:
    """Of GPU time / SGLang's, for what a row asks."""
    if row["mode"] == "target-verify" and (row["requests"], row["context"]) == (48, 3000):
        return 0.5
    return 1.0 if row["requests"] >= 8 else 1.1


GROUPS = {0.5: "verify at 48 x 3000", 1.0: "8 requests or more", 1.1: "1 request"}


def gpu_bar(column: str, limit: float, pairs: list[Pair]) -> Bar:
    worst = max(pairs, key=lambda p: 1 / ratio(p), default=None)
    missed = tuple(
        f"{case_name(o)}: {o['median']:.2f} us, SGLang's {t['median']:.2f}"
        for _, o, t in pairs
        if not within(o["median"], limit * t["median"])
    )
    note = f"the worst of {len(pairs)}: {case_name(worst[1])}" if worst else ""
    name = f"{column} GPU time / SGLang's, {GROUPS[limit]}"
    return Bar("columns", name, limit, 1 / ratio(worst) if worst else None, "x", False, note, missed)


def bars_of_columns(data: Data) -> Iterable[Bar]:
    for column in ("cold", "warm"):
        wanted = {"stage": "columns", "metric": "gpu_us", "column": column}
        pairs = data.pairs(OURS, THEIRS, CASE, **wanted)
        for limit in GROUPS:
            yield gpu_bar(column, limit, [p for p in pairs if limit_of(p[1]) == limit])
        yield schedule_bar(data, column, wanted)


def schedule_bar(data: Data, column: str, wanted: dict) -> Bar:
    """What a schedule, and the context lengths, add."""
    pairs = data.pairs(f"{OURS}, schedule", OURS, CASE, **wanted)
    more = {case_name(o): o["median"] - t["median"] for _, o, t in pairs}
    worst = max(more, key=more.__getitem__, default=None)
    missed = tuple(f"{name}: {us:.2f} us" for name, us in more.items() if not within(us, SCHEDULE_US))
    note = f"the worst of {len(pairs)}: {worst}" if worst else ""
    theirs = data.pairs(f"{THEIRS}, schedule", THEIRS, CASE, **wanted)
    if theirs:
        us = [o["median"] - t["median"] for _, o, t in theirs]
        note += f"; SGLang's sequence takes {min(us):.2f} to {max(us):.2f} us more"
    value = more[worst] if worst else None
    return Bar(
        "columns", f"{column} GPU time that a schedule adds", SCHEDULE_US, value, " us", False, note, missed
    )


def bars_of_python(data: Data) -> Iterable[Bar]:
    for pointers, limit in (("new", 0.3), ("same", 0.15)):
        pairs = data.pairs(OURS, THEIRS, CASE, stage="python", metric="host_us", pointers=pointers)
        worst = min(pairs, key=ratio, default=None)
        note = f"the worst of {len(pairs)}: {case_name(worst[1])}" if worst else ""
        if worst:
            note += f", {worst[1]['median']:.1f} us beside {worst[2]['median']:.1f}"
        name = f"host time of a call from Python / SGLang's, {pointers} pointers"
        yield Bar("python", name, limit, 1 / ratio(worst) if worst else None, "x", False, note)


# ---- The wider comparison -------------------------------------------------------------------------------------------


def bars_of_host(data: Data) -> Iterable[Bar]:
    wanted = {"stage": "host", "metric": "host_us", "pool_size": 1}
    python = data.pairs("draftmeta C", "draftmeta Python", POINT, **wanted)
    extra = max((within_rounds(p, operator.sub) for p in python), default=None)
    note = f"the worst of {len(python)} points"
    yield Bar("host", "a call from Python above one from C", 2, extra, " us", False, note)
    for peer, limit in (("draftmeta C", 12), ("draftmeta Python", 8)):
        pairs = data.pairs(peer, THEIRS, POINT, **wanted)
        worst = min(map(ratio, pairs), default=None)
        note = f"the worst of {len(pairs)} points" + beside_host(data)
        yield Bar("host", f"host time of SGLang's call / {peer}'s", limit, worst, note=note)


def beside_host(data: Data) -> str:
    """The same for a call that repeats none of the last, and for a launch of an empty kernel."""
    note = ""
    for peer, words in (("draftmeta C, no repeats", "C without repeats"), ("a launch", "a bare launch")):
        pairs = data.pairs(peer, THEIRS, POINT, stage="host", metric="host_us", pool_size=1)
        note += f"; {words} {min(map(ratio, pairs)):.1f}x" if pairs else ""
    return note


def bars_of_graphs(data: Data) -> Iterable[Bar]:
    for stage, form, limit in (("fused", "static", 10), ("fused", "variable", 10), ("kpool", None, 3)):
        wanted = {"stage": stage, "metric": "graph_us", **({"form": form} if form else {})}
        ratios = [ratio(p) for p in data.pairs(OURS, THEIRS, POINT, **wanted)]
        mean = geometric_mean(ratios) if ratios else None
        least = f"; {min(ratios):.2f} to {max(ratios):.0f}" if ratios else ""
        name = f"warm graph time of SGLang's {f'draft extend, {form}' if form else 'kpool'}, geometric mean"
        yield Bar(stage, name, limit, mean, note=f"over {len(ratios)} points{least}")
    yield worst_graph(data)


def worst_graph(data: Data) -> Bar:
    stages = ("fused", "kpool")
    pairs = [p for stage in stages for p in data.pairs(OURS, THEIRS, POINT, stage=stage, metric="graph_us")]
    slowest = max(pairs, key=lambda p: 1 / ratio(p), default=None)
    slower = sum(1 / ratio(p) > 1.05 for p in pairs)
    where = f"{slower} of {len(pairs)} points slower; the worst: {place(slowest[1])}" if slowest else ""
    value = 1 / ratio(slowest) if slowest else None
    return Bar("fused", "warm graph time / SGLang's, the worst point", 1.05, value, "x", False, where)


def bars_of_steps(data: Data) -> Iterable[Bar]:
    pairs = data.pairs(OURS, THEIRS, POINT, stage="step", metric="graph_us")
    ours = max((p[1]["nodes"] for p in pairs), default=None)
    others = sorted({f"{p[2]['nodes']:g}" for p in pairs})
    note = f"SGLang's takes {' to '.join(others)}" if pairs else ""
    if pairs:
        note += f"; warm graph time {geometric_mean([ratio(p) for p in pairs]):.1f}x less in the mean"
    yield Bar("step", "graph nodes of a whole replayed step", 1, ours, "", False, note)


def bars_of_seed(data: Data) -> Iterable[Bar]:
    rows = {r["peer"]: r for r in data.select(stage="seed", metric="wall_us", config="the seed's")}
    theirs, waiting = rows.get("Triton in place"), rows.get("draftmeta C, waiting")
    for peer, limit in (("draftmeta C", 20), ("draftmeta Python", 12)):
        value, note = None, ""
        if theirs and peer in rows:
            value = ratio(((), rows[peer], theirs))
            note = f"{theirs['median']:.1f} us / {rows[peer]['median']:.2f} us"
            if waiting and peer == "draftmeta C":
                note += f"; waiting for the count {ratio(((), waiting, theirs)):.1f}x"
        yield Bar(
            "seed",
            f"the seed's configuration: its in-place version's call / {peer}'s",
            limit,
            value,
            note=note,
        )


def bars_of_cpu(data: Data) -> Iterable[Bar]:
    for name, choices in (("torch", ("torch CPU", "torch CPU, one thread")), ("NumPy", ("NumPy",))):
        keys, wanted = ("outputs", "context"), {"stage": "cpu", "metric": "host_us"}
        pairs = [p for peer in choices for p in data.pairs("draftmeta cpu", peer, keys, **wanted)]
        worst = min(pairs, key=ratio, default=None)
        note = f"the worst of {len(pairs)}: {worst[2]['peer']}, {worst[2]['outputs']}" if worst else ""
        value = ratio(worst) if worst else None
        yield Bar("cpu", f"64 requests on the CPU: {name} / draftmeta's cpu backend", 5, value, note=note)


# ---- All of them ----------------------------------------------------------------------------------------------------

PARTS = (
    bars_of_columns,
    bars_of_python,
    bars_of_host,
    bars_of_graphs,
    bars_of_steps,
    bars_of_seed,
    bars_of_cpu,
)


def all_bars(data: Data) -> list[Bar]:
    return [bar for part in PARTS for bar in part(data)]


def failing(data: Data) -> list[Bar]:
    """What --strict does not let pass: an aim of what an engine sees that was missed, or that was to be measured and was
    not."""
    wanted = [stage for stage in ENGINE_STAGES if stage not in data.skipped]
    return [bar for bar in all_bars(data) if bar.stage in wanted and not bar.met]


def summary(data: Data) -> str:
    """One line a bar of what was wanted, and one for each point that missed it."""
    lines = []
    for bar in all_bars(data):
        if bar.met is None and bar.stage in data.skipped:
            continue
        value = number(bar.value) + (bar.unit if bar.value is not None else "")
        lines.append(f"{bar.word:12} {value:>9}  {bar.aim:16} {bar.name} ({bar.note})")
        lines += [f"{'':12} {'':>9}  {point}" for point in bar.missed or ()]
    return "\n".join(lines)

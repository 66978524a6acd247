"""Tables, bars and the verdict, from the plans' results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .plans import PLANS
from .steps import MODES

# What draftmeta's part must at least do in a mode, or the comparison compared nothing.
USES = {"B": "fused_dsa_", "C": "dsa_step_metadata", "D": "fill_many"}
LEAST_DISTINCT = 20  # tokens, of 1024
SHAPE = "7 x 300"  # that the bars are for
FILLS_MOST, PLAIN_MOST, HOST_MOST = 9.5, 5.2, 0.4
METADATA_MOST = {"C": 31.0, "D": 19.0}
Result = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    plan: str
    what: str
    most: float
    value: float | None
    unit: str

    @property
    def state(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.most else "MISSED"

    def row(self) -> list[str]:
        value = "" if self.value is None else f"{self.value:.2f}{self.unit}"
        return [self.what, f"at most {self.most:g}{self.unit}", value, self.state]


# ---- What is wrong ----


def faults(results: list[Result]) -> list[str]:
    return [fault for result in results for fault in _faults_of(result)]


def _faults_of(result: Result) -> Iterator[str]:
    plan = result["plan"]
    if result.get("error"):
        yield f"{plan}: {result['error'].strip().splitlines()[-1]}"
    for name, tokens in result.get("tokens", {}).items():
        if tokens["differing"]:
            yield f"{plan}: tokens of {name} differ in {tokens['differing']} of {tokens['requests']} requests"
        if tokens["distinct"] < LEAST_DISTINCT:
            yield f"{plan}: {tokens['distinct']} different tokens in all answers of {name}: they show nothing"
        yield from _not_in_use(f"{plan}, {name}", name[0], tokens["uses"])
    for name, shape in result.get("shapes", {}).items():
        for mode, seen in shape["gpu"].items():
            yield from _not_in_use(f"{plan}, {name}", mode, shape["uses"])
            yield from _not_in_trace(plan, f"{plan}, {name}, {mode}", seen)
    for comparison in _comparisons(result):
        if not comparison["checked"]:
            yield f"{plan}: no tensors were compared"
        for what, count in comparison["differing"].items():
            yield f"{plan}: tensors differ {count} times: {what}"
        yield from (f"{plan}: {example}" for example in comparison["examples"])


def _not_in_use(where: str, mode: str, uses: dict[str, int]) -> Iterator[str]:
    wanted = USES.get(mode)
    if wanted and not any(name.startswith(wanted) for name in uses):
        yield f"{where}: draftmeta was not in use: no call of {wanted} in mode {mode}"


def _not_in_trace(plan: str, where: str, seen: dict[str, Any]) -> Iterator[str]:
    """A trace that lacks something says too little time."""
    for kind in PLANS[plan].kinds:
        if kind not in seen:
            yield f"{where}: there is no {kind} refresh in the trace"
        elif not where.endswith("A") and not seen[kind]["fills"]:
            yield f"{where}: there is no fill of {kind} refreshes in the trace"


def _comparisons(result: Result) -> Iterator[dict[str, Any]]:
    if "S" in result.get("tokens", {}):
        yield result["tokens"]["S"]["comparison"]
    if "shadow" in result:
        yield result["shadow"]


def missing(results: list[Result]) -> list[str]:
    """What was asked for and did not run to its end."""
    return [f"{r['plan']}: {r['skipped']}" for r in results if r.get("skipped")]


# ---- Bars ----


def bars(results: list[Result]) -> list[Bar]:
    eagle, plain = _shape(results, "eagle-times"), _shape(results, "plain-times")
    fills, metadata = (
        "GPU time of draftmeta's fills in an EAGLE round",
        "GPU time of all metadata in an EAGLE round",
    )
    decode = "GPU time of all metadata in a plain decode step, C"
    return [
        *(Bar("eagle-times", f"{fills}, {mode}", FILLS_MOST, _fills(eagle, mode), " us") for mode in "CD"),
        *(
            Bar("eagle-times", f"{metadata}, {mode}", most, _gpu(eagle, mode), " us")
            for mode, most in METADATA_MOST.items()
        ),
        Bar("plain-times", decode, PLAIN_MOST, _gpu(plain, "C"), " us"),
        *(
            Bar(
                "eagle-times",
                f"host time of {kind} refreshes, D to A",
                HOST_MOST,
                _host_ratio(eagle, kind),
                " x",
            )
            for kind in PLANS["eagle-times"].kinds
        ),
    ]


def missed(results: list[Result]) -> list[Bar]:
    """Bars that are not met, of the plans that ran to their end."""
    done = {result["plan"] for result in results if result.get("done")}
    return [bar for bar in bars(results) if bar.state == "MISSED" or bar.state != "met" and bar.plan in done]


def _shape(results: list[Result], plan: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        next((r for r in results if r["plan"] == plan), {}).get("shapes", {}).get(SHAPE, {})
    )
    return found


def _sum(shape: dict[str, Any], mode: str, name: str) -> float | None:
    kinds = shape.get("gpu", {}).get(mode)
    return sum(kind[name] for kind in kinds.values()) if kinds else None


def _gpu(shape: dict[str, Any], mode: str) -> float | None:
    return _sum(shape, mode, "us")


def _fills(shape: dict[str, Any], mode: str) -> float | None:
    """None, too, if the trace has no fills: then it says nothing."""
    return _sum(shape, mode, "fills_us") or None


def _host_ratio(shape: dict[str, Any], kind: str) -> float | None:
    times = shape.get("host_us", {})
    ours, theirs = (times.get(mode, {}).get(kind) for mode in "DA")
    return ours[0] / theirs[0] if ours and theirs else None


# ---- Tables ----


def write(results: list[Result], stubs: list[str]) -> str:
    """All of it as Markdown."""
    parts = ["Modes: " + "; ".join(f"{mode} {text}" for mode, text in MODES.items()) + "."]
    parts += [token_table(results), refresh_table(results), launch_table(results), bar_table(results)]
    if stubs:
        parts.append(f"Modules that were missing and stand empty: {', '.join(stubs)}.")
    parts += [f"SKIPPED: {text}" for text in missing(results)]
    parts += [f"WRONG: {text}" for text in faults(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def token_table(results: list[Result]) -> str:
    rows = []
    for result in results:
        for name, tokens in result.get("tokens", {}).items():
            counts = [tokens["requests"], tokens["tokens"], tokens["differing"]]
            rows.append([result["plan"], name, *map(str, counts), *_compared(tokens["comparison"])])
        if "shadow" in result:
            rows.append([result["plan"], "S", "", "", "", *_compared(result["shadow"])])
    header = ["plan", "mode", "requests", "tokens", "requests that differ", "tensors compared", "that differ"]
    return table(header, rows)


def _compared(comparison: dict[str, Any]) -> list[str]:
    checked = sum(comparison["checked"].values())
    return [str(checked), str(sum(comparison["differing"].values()))] if checked else ["", ""]


def refresh_table(results: list[Result]) -> str:
    """Host time of each kind of refresh, and the GPU's operations and time of a round, mode by mode."""
    rows = []
    for result in results:
        kinds = PLANS[result["plan"]].kinds
        for name, shape in result.get("shapes", {}).items():
            where = f"{result['plan']}, {name}"
            rows.append(
                [f"{where}: host us, {' / '.join(kinds)}", *(_host(shape, mode, kinds) for mode in "ABCD")]
            )
            rows.append([f"{where}: GPU operations / us", *(_round(shape, mode) for mode in "ABCD")])
            rows.append(
                [f"{where}: of these draftmeta's", *(_round(shape, mode, "fills") for mode in "ABCD")]
            )
    return table(["a round of refreshes", *"ABCD"], rows)


def _host(shape: dict[str, Any], mode: str, kinds: list[str]) -> str:
    times = shape["host_us"].get(mode, {})
    return " / ".join(f"{times[kind][0]:.0f}" if kind in times else "?" for kind in kinds) if times else ""


def _round(shape: dict[str, Any], mode: str, name: str = "") -> str:
    count, time = (
        _sum(shape, mode, key) for key in (("fills", "fills_us") if name else ("operations", "us"))
    )
    return "" if count is None or time is None else f"{count:g} / {time:.1f}"


def launch_table(results: list[Result]) -> str:
    """What is launched for each kind of refresh: SGLang alone, and what remains in the last mode."""
    rows = []
    for result in results:
        for name, shape in result.get("shapes", {}).items():
            for mode in [mode for mode in shape["gpu"] if mode in ("A", max(shape["gpu"]))]:
                for kind, seen in shape["gpu"][mode].items():
                    launched = [
                        f"{n:.3g} x {kernel} {us:.1f}" for kernel, (n, us) in seen["launched"].items()
                    ]
                    rows.append([f"{result['plan']}, {name}", mode, kind, "; ".join(launched)])
    return table(["plan", "mode", "refresh", "launched on the GPU: count x name us"], rows)


def bar_table(results: list[Result]) -> str:
    return table([f"at {SHAPE}", "bar", "measured", ""], [bar.row() for bar in bars(results)])


def status(results: list[Result], strict: bool) -> int:
    """0: all that was asked for ran and is right; 1: something is wrong; 3: something did not run."""
    if faults(results) or strict and missed(results):
        return 1
    return 3 if missing(results) else 0

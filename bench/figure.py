"""The README's figure: GPU time of a refresh as SGLang asks for it, cold and warm, beside SGLang's own kernels.

python bench/figure.py BENCH.json docs/figures/summary.png

BENCH.json is what `draftmeta bench --backend cuda --json BENCH.json` writes. SGLang's figures are those of the bars,
tools/bench_rows.c. Needs matplotlib."""

import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Times = dict[str, dict[str, float]]  # row: column: us

BARS = Path(__file__).parents[1] / "tools" / "bench_rows.c"
COLUMNS = ("warm", "code", "cold")
SHOWN = {
    "cold": "Cold: after other kernels, L2 flushed",
    "warm": "Warm: the same fill again and again",
}
STEPS = {"decode": "decode", "verify": "target verify", "extend": "draft extend"}
SHAPES = {"1x300": "1 x 300", "8x300": "8 x 300", "48x3000": "48 x 3000"}
SIDES = (("SGLang 0.5.17", "#d55e00", -0.2), ("draftmeta", "#0072b2", 0.2))


def read_bench(path: str) -> Times:
    """Medians of all rows."""
    rows = json.loads(Path(path).read_text())["rows"]
    return {row["name"]: {c: spread["us"] for c, spread in row["columns"].items()} for row in rows}


def read_bars() -> Times:
    """SGLang's times, of the rows that have a bar."""
    found = re.findall(r'\{"([^"]+)", \{([\d., ]+)\}', BARS.read_text())
    return {name: dict(zip(COLUMNS, map(float, times.split(",")))) for name, times in found}


def draw(axes: Axes, column: str, sides: list[Times]) -> None:
    rows = [f"{step} {shape} +pt1" for step in STEPS for shape in SHAPES]
    for (label, colour, shift), times in zip(SIDES, sides):
        there = [(i + shift, times[row][column]) for i, row in enumerate(rows) if row in times]
        axes.barh([y for y, _ in there], [us for _, us in there], 0.38, color=colour, label=label)
        for y, us in there:
            axes.text(us, y, f" {us:.2f}", va="center", fontsize=8)
    axes.set_yticks(
        range(len(rows)), [f"{step}, {shape}" for step in STEPS.values() for shape in SHAPES.values()]
    )
    axes.set(title=SHOWN[column], xlabel="us", xlim=(0, 10))
    axes.spines[["top", "right"]].set_visible(False)


def main(bench: str, picture: str) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 5), sharey=True)
    sides = [read_bars(), read_bench(bench)]
    for axes, column in zip(panels, SHOWN):
        draw(axes, column, sides)
    panels[0].invert_yaxis()
    panels[0].legend(loc="upper right", frameon=False)
    figure.suptitle("GPU time of a refresh with both page tables, requests x KV tokens of each")
    figure.tight_layout()
    figure.savefig(picture, dpi=110, facecolor="white")


if __name__ == "__main__":
    main(*sys.argv[1:])

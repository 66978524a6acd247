"""Figures from the rows that run.py measured."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from results import OURS, THEIRS, case_name, tokens

COLOURS = {
    "draftmeta": "#0072b2",
    "static": "#d55e00",
    "variable": "#e69f00",
    "kpool": "#009e73",
    "empty": "#888888",
}
SIDES = ((THEIRS, COLOURS["static"]), (OURS, COLOURS["draftmeta"]))


def axes_of(ax, title, x, y="time per fill (µs)"):
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(True, which="major", alpha=0.3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def draw_line(ax, rows, x, label, colour, style="-o"):
    rows = sorted(rows, key=lambda r: r[x])
    if rows:
        ax.plot([r[x] for r in rows], [r["median"] for r in rows], style, color=colour, label=label, ms=4)


def draw_empty(ax, data):
    us = data.empty_us()
    if us:
        ax.axhline(us, color=COLOURS["empty"], ls=":", lw=1.2, label="an empty kernel")


def add_legend(ax, size):
    """Above the lines, for which the logarithmic axis is made longer."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.35)
    ax.legend(fontsize=size, loc="upper left", ncol=2)


def powers(ax, values, name=tokens):
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(values, [name(v) for v in values])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:,.0f}")


def lines(ax, data, x, **wanted):
    """draftmeta and SGLang, static and variable, and the kpool form where it was measured."""
    for form, style in (("static", "-o"), ("variable", "--s")):
        for stage, theirs, colour in (("fused", "SGLang", form), ("kpool", "SGLang kpool", "kpool")):
            found = data.select(stage=stage, metric="graph_us", form=form, **wanted)
            draw_line(
                ax, [r for r in found if r["peer"] == THEIRS], x, f"{theirs}, {form}", COLOURS[colour], style
            )
            if stage == "fused":
                ours = [r for r in found if r["peer"] == OURS]
                draw_line(ax, ours, x, f"draftmeta, {form}", COLOURS["draftmeta"], style)
    draw_empty(ax, data)


def values_of(data, key, **wanted):
    return sorted({r[key] for r in data.select(stage="fused", metric="graph_us", **wanted)})


def plot_requests(data):
    widths = values_of(data, "width")
    contexts = [c for c in values_of(data, "context") if c in (8192, 65536)] or values_of(data, "context")[:2]
    fig, axes = plt.subplots(
        len(contexts), len(widths), figsize=(10, 3.6 * len(contexts)), sharey=True, squeeze=False
    )
    for row, context in zip(axes, contexts):
        for ax, width in zip(row, widths):
            lines(ax, data, "requests", context=context, width=width)
            powers(ax, values_of(data, "requests"), str)
            axes_of(ax, f"context {tokens(context)}, table {tokens(width)} wide", "requests")
    add_legend(axes[0][0], 7)
    return fig


def plot_context(data):
    requests = [r for r in values_of(data, "requests") if r in (8, 64, 1024)] or values_of(data, "requests")
    width = max(values_of(data, "width"))
    fig, axes = plt.subplots(1, len(requests), figsize=(3.6 * len(requests), 3.6), sharey=True, squeeze=False)
    for ax, r in zip(axes[0], requests):
        lines(ax, data, "context", requests=r, width=width)
        powers(ax, values_of(data, "context"))
        axes_of(ax, f"{r} requests, table {tokens(width)} wide", "context (KV tokens)", "time per fill (µs)")
    add_legend(axes[0][0], 6)
    return fig


def plot_width(data):
    contexts = [c for c in values_of(data, "context") if c <= 65536]
    fig, axes = plt.subplots(
        1, max(1, len(contexts)), figsize=(3.6 * max(1, len(contexts)), 3.6), sharey=True, squeeze=False
    )
    for ax, context in zip(axes[0], contexts):
        for requests, marker in ((8, "o"), (64, "s"), (1024, "^")):
            for peer, colour in ((OURS, "draftmeta"), (THEIRS, "static")):
                wanted = {"peer": peer, "form": "static", "requests": requests, "context": context}
                found = data.select(stage="fused", metric="graph_us", **wanted)
                draw_line(ax, found, "width", f"{peer}, {requests} requests", COLOURS[colour], f"-{marker}")
        powers(ax, values_of(data, "width"))
        axes_of(ax, f"context {tokens(context)}, static", "columns of req_to_token")
    add_legend(axes[0][0], 6)
    return fig


def plot_roofline(data):
    fig, ax = plt.subplots(figsize=(7, 4.4))
    for peer, form, colour in (
        (THEIRS, "static", "static"),
        (THEIRS, "variable", "variable"),
        (OURS, None, "draftmeta"),
    ):
        found = data.select(stage="fused", metric="graph_us", peer=peer, **({"form": form} if form else {}))
        label = f"{peer}, {form}" if form else peer
        ax.plot(
            [r["bytes"] for r in found],
            [r["median"] for r in found],
            "o",
            ms=3.5,
            alpha=0.7,
            label=label,
            color=COLOURS[colour],
        )
    copies = sorted(data.select(stage="roofline", peer="copy"), key=lambda r: r["bytes"])
    ax.plot(
        [r["bytes"] for r in copies],
        [r["median"] for r in copies],
        "-",
        color="black",
        lw=1.2,
        label="device-to-device copy",
    )
    draw_empty(ax, data)
    ax.set(xscale="log", yscale="log")
    axes_of(ax, "A fill against the empty kernel and a copy of as many bytes", "bytes read and written")
    ax.legend(fontsize=8)
    return fig


HOST_ROWS = [
    ("host", "a launch", "draft-extend", 1, "a launch of an empty kernel"),
    ("host", "draftmeta C", "draft-extend", 1, "draftmeta, from C"),
    ("host", "draftmeta C, no repeats", "draft-extend", 1, "draftmeta, from C, where nothing repeats"),
    ("host", "draftmeta Python", "draft-extend", 1, "draftmeta, from Python"),
    ("host", "SGLang", "draft-extend", 1, "SGLang, fused kernel"),
    ("host", "SGLang", "draft-extend", None, "SGLang, kpool kernel"),
    ("step", "draftmeta C", "draft-extend", 1, "draftmeta, whole step, from C"),
    ("step", "SGLang", "draft-extend", 1, "SGLang, whole step"),
    ("vllm", "vLLM", "draft-extend", 1, "vLLM, ragged flatten"),
]


def host_bars(data, requests=64):
    result = []
    for stage, peer, mode, pool, label in HOST_ROWS:
        found = data.select(stage=stage, peer=peer, metric="host_us", mode=mode, requests=requests)
        found = [r for r in found if (r["pool_size"] == 1) == (pool == 1)]
        if found:
            result.append((label, found[0]["median"]))
    return result


def draw_host(ax, data):
    measured = host_bars(data) or host_bars(data, 3)
    labels, values = [m[0] for m in measured], [m[1] for m in measured]
    colours = [
        COLOURS["draftmeta" if "draftmeta" in x else "empty" if "empty" in x else "static"] for x in labels
    ]
    ax.barh(labels, values, color=colours)
    for i, value in enumerate(values):
        ax.text(value, i, f" {value:.1f}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    axes_of(ax, "Host time of a call, 64 requests", "µs", "")
    ax.grid(False, axis="y")


def plot_host(data):
    fig, ax = plt.subplots(figsize=(7, 3.4))
    draw_host(ax, data)
    return fig


# ---- What an engine sees --------------------------------------------------------------------------------------------


def usual(row):
    """With the tables that the mode has in an engine, and as many requests as one often has."""
    return row["requests"] <= 48 and (row["tables"] == "pages") == (row["mode"] == "decode")


def case_rows(data, column, peer, wanted=None):
    """Medians by the cases' names, of plain calls."""
    found = data.select(stage="columns", metric="gpu_us", column=column, peer=peer)
    found.sort(key=lambda r: r["requests"])
    return {case_name(r): r["median"] for r in found if not wanted or wanted(r)}


def draw_cases(ax, data, wanted=None):
    """A line a case: from warm (hollow) to cold (full), of both."""
    names = list(case_rows(data, "cold", OURS, wanted))
    for peer, colour in SIDES:
        shift = 0.16 if peer == OURS else -0.16
        warm, cold = (case_rows(data, column, peer, wanted) for column in ("warm", "cold"))
        for i, name in enumerate(names):
            if name in warm and name in cold:
                ax.plot([warm[name], cold[name]], [i + shift] * 2, "-", color=colour, lw=1.5)
                ax.plot(warm[name], i + shift, "o", mfc="white", color=colour, ms=4.5)
                ax.plot(cold[name], i + shift, "o", color=colour, ms=5.5)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ticks = [1, 2, 3, 5, 10, 20, 50, 100, 200]
    low, high = ax.get_xlim()
    ax.set_xticks([t for t in ticks if low <= t <= high])
    ax.minorticks_off()
    axes_of(ax, "GPU time of a refresh, as SGLang calls it", "µs, cold (full) and warm (hollow)", "")
    marks = [Line2D([], [], marker="o", color=colour, label=peer) for peer, colour in SIDES]
    ax.legend(handles=marks, fontsize=8, loc="best")


def draw_python(ax, data):
    """Calls from Python. The cases are much alike, so one is shown."""
    found = data.select(stage="python", metric="host_us")
    first = [r for r in found if case_name(r) == case_name(found[0])]
    first.sort(key=lambda r: (r["peer"] != THEIRS, r["pointers"] != "new"))
    labels = [f"{r['peer']}, {r['pointers']} pointers" for r in first]
    values = [r["median"] for r in first]
    ax.barh(labels, values, color=[dict(SIDES)[r["peer"]] for r in first])
    for i, value in enumerate(values):
        ax.text(value, i, f" {value:.1f}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    title = (
        f"Host time of a call from Python\n{case_name(first[0])}"
        if first
        else "Host time of a call: not measured"
    )
    axes_of(ax, title, "µs", "")
    ax.title.set_fontsize(10)
    ax.grid(False, axis="y")


def plot_summary(data):
    """The README's: what a refresh takes on the GPU between an engine's kernels, and what a call costs the host."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), gridspec_kw={"width_ratios": [1.6, 1]})
    draw_cases(left, data, usual)
    draw_python(right, data)
    return fig


def plot_columns(data):
    """All cases."""
    fig, ax = plt.subplots(figsize=(8, 1.5 + 0.22 * len(case_rows(data, "cold", OURS))))
    draw_cases(ax, data)
    return fig


# ---- All of them ----------------------------------------------------------------------------------------------------

FUSED = {"stage": "fused", "metric": "graph_us"}
CASES = {"stage": "columns", "metric": "gpu_us"}
PLOTS = {  # by name: the function, the title, what it needs
    "summary": (plot_summary, "As an engine sees it: GPU time of a refresh, and host time of a call", CASES),
    "columns": (plot_columns, "GPU time, warm and cold, of all that was asked", CASES),
    "requests": (plot_requests, "Against requests, in wide tables: warm, in graphs", FUSED),
    "context": (plot_context, "Against context, in wide tables: warm, in graphs", FUSED),
    "width": (plot_width, "Against the table's width: warm, in graphs", FUSED),
    "roofline": (plot_roofline, "Against bytes: warm, in graphs", FUSED),
    "host": (plot_host, "Host time of a call", {"stage": "host", "metric": "host_us"}),
}


def draw_all(data, folder):
    """Writes every figure that there are numbers for; returns the SVGs by name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "draftmeta"})
    result = {}
    for name, (plot, _, needed) in PLOTS.items():
        if not data.select(**needed):
            continue
        fig = plot(data)
        fig.tight_layout()
        fig.savefig(folder / f"{name}.svg", metadata={"Date": None})
        fig.savefig(folder / f"{name}.png", dpi=110)
        plt.close(fig)
        result[name] = (folder / f"{name}.svg").read_text()
    return result

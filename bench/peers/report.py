#!/usr/bin/env python3
"""Plots, tables and one page from results.json, which run.py measured.

    python bench/peers/report.py build/peers/results.json --out build/peers/report
    python bench/peers/report.py build/peers/results.json --docs docs/figures    # the figures alone

Writes report.html (self-contained), results.csv and the figures as SVG and PNG. Needs no GPU, and no PyTorch.
"""

import argparse
import csv
import html
import json
import math
import operator
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, THEIRS, EMPTY = "draftmeta", "SGLang", "empty"
COLOURS = {
    "draftmeta": "#0072b2",
    "static": "#d55e00",
    "variable": "#e69f00",
    "kpool": "#009e73",
    "empty": "#888888",
}
KNOWN = [
    "SGLang writes a request's live page-table columns up to a multiple of 128 KV tokens, which is one page of 64 more than "
    "the contract asks for at most. The check allows that to SGLang, and nothing to draftmeta.",
    "SGLang's variable form, given fewer tokens than total_len, writes values derived from request 0 behind them. It is given "
    "the true total here, so that it writes what is right.",
    "SGLang's decode writes no seqlens_expanded (it shares cache_seqlens); draftmeta writes it, in the same launch.",
    "vLLM's flattening copies whole rows of the block table, zeroes the lengths' tail and sets decode_lens to 1; draftmeta "
    "writes the live columns. It is written from vLLM 0.33.0's formulas, with torch operators as there.",
    "FlagGems 5.0.2 on PyPI has no seqlens_expand: its form is written from its description, and is given the prefix of the "
    "query lengths. SGLang's seqlens_expand_triton is run as published; it makes that prefix and its output itself.",
    "The seed's versions are written from their description. The Triton ones read the number of tokens back, which they "
    "return; draftmeta's bar is against an asynchronous call, and the row that waits for the count is beside it.",
]


# ---- Rows -----------------------------------------------------------------------------------------------------------


class Data:
    def __init__(self, path):
        content = json.loads(Path(path).read_text())
        self.meta, self.rows = content["meta"], content["rows"]
        self.checks, self.failures, self.skipped = (content[k] for k in ("checks", "failures", "skipped"))

    def select(self, **wanted):
        return [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]

    def pairs(self, ours, theirs, keys, **wanted):
        """(key values, our row, their row) wherever both were measured."""
        mine = {tuple(r.get(k) for k in keys): r for r in self.select(peer=ours, **wanted)}
        others = {tuple(r.get(k) for k in keys): r for r in self.select(peer=theirs, **wanted)}
        return [(key, mine[key], others[key]) for key in mine if key in others]

    def empty_us(self):
        rows = [r["median"] for r in self.select(peer=EMPTY, metric="graph_us")]
        return sorted(rows)[len(rows) // 2] if rows else None


POINT = ("mode", "form", "pool_size", "requests", "context", "width")


def within_rounds(pair, compare):
    """The median over rounds of compare(theirs, ours), for calls: the host's clock may change between rounds."""
    _, ours, theirs = pair
    return statistics.median(map(compare, theirs["samples"], ours["samples"]))


def ratio(pair):
    _, ours, theirs = pair
    if ours["metric"] != "graph_us":
        return within_rounds(pair, operator.truediv)
    return theirs["median"] / ours["median"]


def geometric_mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values))


def tokens(n):
    return f"{n // 1048576}M" if n % 1048576 == 0 else f"{n // 1024}k" if n % 1024 == 0 else str(n)


# ---- Bars -----------------------------------------------------------------------------------------------------------


def bar(name, limit, value, unit="x", at_least=True, note=""):
    """value None: it was not measured."""
    met = None if value is None else (value >= limit if at_least else value <= limit)
    sign = "at least" if at_least else "at most"
    return {
        "name": name,
        "bar": f"{sign} {limit:g}{unit}",
        "value": value,
        "unit": unit,
        "met": met,
        "note": note,
    }


def bars_of_host(data):
    python = data.pairs("draftmeta C", "draftmeta Python", POINT, stage="host", metric="host_us", pool_size=1)
    extra = max((within_rounds(p, operator.sub) for p in python), default=None)
    result = [
        bar(
            "a call from Python above one from C",
            2,
            extra,
            " us",
            False,
            f"the worst of {len(python)} points",
        )
    ]
    for peer, limit in (("draftmeta C", 12), ("draftmeta Python", 8)):
        pairs = data.pairs(peer, THEIRS, POINT, stage="host", metric="host_us", pool_size=1)
        worst = min(map(ratio, pairs), default=None)
        note = f"the worst of {len(pairs)} points" + beside_host(data)
        result.append(bar(f"host time of SGLang's call / {peer}'s", limit, worst, note=note))
    return result


def beside_host(data):
    """The same for a call that repeats none of the last, and for a launch of an empty kernel."""
    note = ""
    for peer, words in (("draftmeta C, no repeats", "C without repeats"), ("a launch", "a bare launch")):
        pairs = data.pairs(peer, THEIRS, POINT, stage="host", metric="host_us", pool_size=1)
        note += f"; {words} {min(map(ratio, pairs)):.1f}x" if pairs else ""
    return note


def bars_of_graphs(data):
    result = []
    for stage, form, limit in (("fused", "static", 10), ("fused", "variable", 10), ("kpool", None, 3)):
        wanted = {"stage": stage, "metric": "graph_us", **({"form": form} if form else {})}
        ratios = [ratio(p) for p in data.pairs(OURS, THEIRS, POINT, **wanted)]
        mean = geometric_mean(ratios) if ratios else None
        least = f"; {min(ratios):.2f} to {max(ratios):.0f}" if ratios else ""
        name = f"graph time of SGLang's {'kpool' if not form else 'draft extend, ' + form}, geometric mean"
        result.append(bar(name, limit, mean, note=f"over {len(ratios)} points{least}"))
    pairs = [
        p
        for stage in ("fused", "kpool")
        for p in data.pairs(OURS, THEIRS, POINT, stage=stage, metric="graph_us")
    ]
    slowest = max(pairs, key=lambda p: 1 / ratio(p), default=None)
    value = 1 / ratio(slowest) if slowest else None
    slower = sum(1 / ratio(p) > 1.05 for p in pairs)
    where = f"{slower} of {len(pairs)} points slower; the worst: {place(slowest[1])}" if slowest else ""
    return result + [bar("graph time against SGLang's, the worst point", 1.05, value, "x", False, where)]


def place(row):
    pool = f", pool {row['pool_size']}" if row["pool_size"] > 1 else ""
    where = f"{row['requests']} requests, context {tokens(row['context'])}, width {tokens(row['width'])}"
    return f"{where}, {row['form']}{pool}"


def bars_of_steps(data):
    pairs = data.pairs(OURS, THEIRS, POINT, stage="step", metric="graph_us")
    ours = max((p[1]["nodes"] for p in pairs), default=None)
    others = sorted({f"{p[2]['nodes']:g}" for p in pairs})
    note = f"SGLang's takes {' to '.join(others)}" if pairs else ""
    if pairs:
        note += f"; graph time {geometric_mean([ratio(p) for p in pairs]):.1f}x less in the mean"
    return [bar("graph nodes of a whole replayed step", 1, ours, "", False, note)]


def bars_of_seed(data):
    rows = {r["peer"]: r for r in data.select(stage="seed", metric="wall_us", config="the seed's")}
    theirs, waiting, result = rows.get("Triton in place"), rows.get("draftmeta C, waiting"), []
    for peer, limit in (("draftmeta C", 20), ("draftmeta Python", 12)):
        value = ratio((None, rows[peer], theirs)) if theirs and peer in rows else None
        note = f"{theirs['median']:.1f} us / {rows[peer]['median']:.2f} us" if value else ""
        if value and waiting and limit == 20:
            note += f"; waiting for the count {ratio((None, waiting, theirs)):.1f}x"
        result.append(
            bar(f"the seed's configuration: its in-place version's call / {peer}'s", limit, value, note=note)
        )
    return result


def bars_of_cpu(data):
    result = []
    for name, choices in (("torch", ("torch CPU", "torch CPU, one thread")), ("NumPy", ("NumPy",))):
        keys, wanted = ("outputs", "context"), {"stage": "cpu", "metric": "host_us"}
        pairs = [p for peer in choices for p in data.pairs("draftmeta cpu", peer, keys, **wanted)]
        worst = min(pairs, key=ratio, default=None)
        note = f"the worst of {len(pairs)}: {worst[2]['peer']}, {worst[2]['outputs']}" if worst else ""
        value = ratio(worst) if worst else None
        result.append(bar(f"64 requests on the CPU: {name} / draftmeta's cpu backend", 5, value, note=note))
    return result


def all_bars(data):
    parts = (bars_of_host, bars_of_graphs, bars_of_steps, bars_of_seed, bars_of_cpu)
    return [b for part in parts for b in part(data)]


# ---- Plots ----------------------------------------------------------------------------------------------------------


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


def plot_summary(data):
    """The README's: time against requests at a wide table, and what a call costs the host."""
    context = 65536 if 65536 in values_of(data, "context") else max(values_of(data, "context"))
    width = max(values_of(data, "width"))
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), gridspec_kw={"width_ratios": [1.25, 1]})
    lines(left, data, "requests", context=context, width=width)
    powers(left, values_of(data, "requests"), str)
    title = f"On the GPU: context {tokens(context)}, table {tokens(width)} wide"
    axes_of(left, title, "requests")
    add_legend(left, 8)
    draw_host(right, data)
    return fig


PLOTS = {
    "summary": (plot_summary, "Time of a fill on the GPU, and of a call on the host"),
    "requests": (plot_requests, "Graph time against requests"),
    "context": (plot_context, "Graph time against context"),
    "width": (plot_width, "Graph time against the table's width"),
    "roofline": (plot_roofline, "Graph time against bytes"),
    "host": (plot_host, "Host time of a call"),
}


def draw_all(data, folder):
    """Writes every figure; returns the SVGs by name. A figure without data is left out."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "draftmeta"})
    result = {}
    for name, (plot, _) in PLOTS.items():
        fig = plot(data) if data.select(stage="fused", metric="graph_us") else plt.figure()
        fig.tight_layout()
        fig.savefig(folder / f"{name}.svg", metadata={"Date": None})
        fig.savefig(folder / f"{name}.png", dpi=110)
        plt.close(fig)
        result[name] = (folder / f"{name}.svg").read_text()
    return result


# ---- Tables and the page --------------------------------------------------------------------------------------------

COLUMNS = [
    "stage",
    "peer",
    "metric",
    "config",
    "outputs",
    "mode",
    "form",
    "pool_size",
    "requests",
    "context",
    "width",
]
COLUMNS += ["bytes", "nodes", "median", "samples"]


def write_csv(data, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[:-1] + ["rounds", "least", "most"])
        for row in data.rows:
            samples = row["samples"]
            writer.writerow(
                [row.get(c, "") for c in COLUMNS[:-1]] + [len(samples), min(samples), max(samples)]
            )


def table(header, rows):
    def cells(values, tag):
        return "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values)

    body = "".join(f"<tr>{cells(r, 'td')}</tr>" for r in rows)
    return f"<table><thead><tr>{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def number(value):
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def bar_table(data):
    words = {True: "met", False: "MISSED", None: "not measured"}
    rows = [
        (
            b["name"],
            b["bar"],
            number(b["value"]) + b["unit"] * (b["value"] is not None),
            words[b["met"]],
            b["note"],
        )
        for b in all_bars(data)
    ]
    return table(["what", "bar", "measured", "", ""], rows)


def stage_table(data, stage, metric):
    """A line a point, a column a peer."""
    found = data.select(stage=stage, metric=metric)
    keys = [k for k in ("config", "outputs", *POINT) if len({r.get(k) for r in found}) > 1]
    peers = list(dict.fromkeys(r["peer"] for r in found))
    points = dict.fromkeys(tuple(r.get(k) for k in keys) for r in found)
    value = {(tuple(r.get(k) for k in keys), r["peer"]): r["median"] for r in found}
    shown = [
        [tokens(v) if k in ("context", "width") else v for k, v in zip(keys, p)]
        for p in sorted(points, key=str)
    ]
    ordered = sorted(points, key=str)
    rows = [cells + [number(value.get((p, peer))) for peer in peers] for cells, p in zip(shown, ordered)]
    return table([k.replace("_", " ") for k in keys] + peers, rows) if found else ""


STAGES = [
    ("fused", "graph_us", "SGLang's fused draft extend: microseconds in a graph"),
    ("kpool", "graph_us", "The kpool form: microseconds in a graph"),
    ("modes", "graph_us", "Target verify and decode: microseconds in a graph"),
    ("step", "graph_us", "A whole replayed step: microseconds in a graph"),
    ("step", "host_us", "A whole replayed step: microseconds of the host"),
    ("host", "host_us", "A call: microseconds of the host"),
    ("first", "first_us", "The first call of a batch size, and the wait for it: microseconds"),
    (
        "seed",
        "wall_us",
        "The seed's versions: microseconds a call of many in a row, and the wait at their end",
    ),
    ("seed", "graph_us", "The seed's kernel alone: microseconds in a graph"),
    ("expand", "graph_us", "Expanded lengths alone: microseconds in a graph"),
    ("expand", "host_us", "Expanded lengths alone: microseconds of the host"),
    ("vllm", "graph_us", "vLLM's flattening: microseconds in a graph"),
    ("vllm", "host_us", "vLLM's flattening: microseconds of the host"),
    ("cpu", "host_us", "On the CPU: microseconds a call"),
]

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left}th{background:#f4f4f4}
svg{max-width:100%;height:auto}details{margin:1rem 0}summary{cursor:pointer;font-weight:600}"""

METHOD = """Every implementation gets the same inputs and writes the same buffers; each is compared with a reference (NumPy, from
the contract in draftmeta.h) over poisoned outputs before it is timed, and what differs is not timed. Requests have half to
all of the context; static means 4 new tokens a request, variable 1 to 5; lengths are int64, page 64, top-k 2048; the pool's
rows have one stride for both widths. Graph time: calls captured one behind the other in one stream, four sets of inputs
in turns, the L2 cache warm; CUDA events; medians of rounds in which all implementations of a point take turns. Calls slower
than 0.8 ms a graph take part in fewer rounds. Host time: calls in a row without waiting, four sets of inputs in turns,
20 that are not counted and 20 that are; a ratio is the median over rounds of that within a round. draftmeta C is a loop in C. Its calls repeat, as an engine's do; without repeats,
more descriptors take turns, none equal to another, than it knows again. On the CPU each has a turn of samples in a row, of which
the first is not counted, once the threads of the one before have gone to sleep; so threads are awake in all that count. The
empty kernel has 132 x 256 threads. The bytes of a fill are what it writes, and 64 for every page whose first slot it reads; a copy's are read and written."""


def page(data, figures):
    meta = data.meta
    machine = [
        (k, v if not isinstance(v, (list, dict)) else json.dumps(v)) for k, v in meta.items() if v is not None
    ]
    parts = [
        f"<h1>draftmeta side by side</h1><p>{html.escape(str(meta.get('gpu') or 'no GPU: only a trial'))}, "
    ]
    parts.append(
        f"draftmeta {meta.get('draftmeta')} at {meta.get('commit')}, {meta.get('date')}. {data.checks} outputs "
        f"checked; {len(data.failures)} failures; {len(data.skipped)} points or stages left out.</p>"
    )
    parts += ["<h2>Bars</h2>", bar_table(data)]
    for name, (_, title) in PLOTS.items():
        parts.append(f"<h2>{title}</h2>{figures[name][figures[name].index('<svg'):]}")
    parts.append("<h2>Numbers</h2>")
    for stage, metric, title in STAGES:
        parts.append(f"<details><summary>{title}</summary>{stage_table(data, stage, metric)}</details>")
    parts += [f"<h2>How it is measured</h2><p>{METHOD}</p><h2>Known differences</h2><ul>"]
    parts += [f"<li>{html.escape(text)}</li>" for text in KNOWN]
    parts += [f"<li>The schedule of SGLang's step: {html.escape(str(meta.get('schedule')))}.</li></ul>"]
    if data.failures:
        rows = [[f[k] for k in ("kind", "stage", "peer", "at", "error")] for f in data.failures]
        parts += ["<h2>Failures</h2>", table(["kind", "stage", "peer", "at", "error"], rows)]
    if data.skipped:
        parts += [
            "<h2>Left out, for want of time or by choice</h2><p>",
            html.escape("; ".join(data.skipped)),
            "</p>",
        ]
    parts += ["<h2>Machine and versions</h2>", table(["", ""], machine)]
    parts += [
        "<h2>Again</h2><pre>python bench/peers/run.py                  # on a machine with an NVIDIA GPU\n"
    ]
    parts += ["python bench/peers/report.py results.json  # this page, from the recorded numbers</pre>"]
    body = "".join(parts)
    return f"<!doctype html><meta charset='utf-8'><title>draftmeta side by side</title><style>{STYLE}</style>{body}"


def write(path, folder):
    """Everything, from results.json."""
    data, folder = Data(path), Path(folder)
    figures = draw_all(data, folder)
    write_csv(data, folder / "results.csv")
    (folder / "report.html").write_text(page(data, figures))
    for b in all_bars(data):
        met = {True: "met", False: "MISSED", None: "not measured"}[b["met"]]
        print(f"{met:12} {number(b['value']):>8}{b['unit']:3} {b['bar']:14} {b['name']} ({b['note']})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", help="results.json")
    parser.add_argument("--out", help="where all of it goes [a folder report beside results.json]")
    parser.add_argument("--docs", help="write the figures alone, into this folder")
    options = parser.parse_args()
    if options.docs:
        draw_all(Data(options.results), options.docs)
    else:
        write(options.results, options.out or Path(options.results).parent / "report")
    return 0


if __name__ == "__main__":
    sys.exit(main())

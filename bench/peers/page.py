"""Tables and the page: HTML to read, CSV to count with, Markdown for the documentation."""

import csv
import html
import json

from bars import all_bars, limit_of, within
from plots import PLOTS
from results import COLUMNS, OURS, POINT, THEIRS, case_name, number, tokens

KNOWN = [
    "SGLang writes a request's live page-table columns up to a multiple of 128 KV tokens, which is one page of 64 "
    "more than the contract asks for at most. The check allows that to SGLang, and nothing to draftmeta.",
    "SGLang's variable form, given fewer tokens than total_len, writes values derived from request 0 behind them. "
    "It is given the true total here, so that it writes what is right.",
    "SGLang's decode writes no seqlens_expanded (it shares cache_seqlens). In the three columns and from Python, "
    "draftmeta's drop-in does not either; elsewhere draftmeta writes it, in the same launch.",
    "With a schedule draftmeta writes the context lengths too, as SGLang copies them. SGLang's sequence is several "
    "kernels and copies; their times are added, and what passes between them is not counted.",
    "vLLM's flattening copies whole rows of the block table, zeroes the lengths' tail and sets decode_lens to 1; "
    "draftmeta writes the live columns. It is written from vLLM 0.33.0's formulas, with torch operators as there.",
    "FlagGems 5.0.2 on PyPI has no seqlens_expand: its form is written from its description, and is given the prefix "
    "of the query lengths. SGLang's seqlens_expand_triton is run as published; it makes that prefix and its output "
    "itself.",
    "The seed's versions are written from their description. The Triton ones read the number of tokens back, which "
    "they return; draftmeta's bar is against an asynchronous call, and the row that waits for the count is beside it.",
]

METHOD = [
    "Every implementation gets the same inputs and writes the same outputs. Each is compared with a reference (NumPy, "
    "from the contract in draftmeta.h) over poisoned outputs before it is timed; what differs is not timed. Requests "
    "have half to all of the context; lengths are int64, page 64, top-k 2048.",
    "GPU time, in three columns: the duration of a call's kernel, as CUPTI's activity records give it (torch's "
    "profiler carries them). Warm: the call before was the same one. Code: before every call other kernels ran, as "
    "large and as many as an engine's (a matrix product, softmax, sort, top-k, prefix sum, layer norm and others), "
    "which evict its instructions from the caches of the multiprocessors. Cold: 256 MB were written besides, so that "
    "the L2 holds neither code nor data. The compared sides take turns sample by sample; medians, and from a tenth "
    "to nine tenths of the samples. Durations are multiples of 32 ns; a bar is missed by more than 5% and a tick.",
    "These calls are SGLang's functions and the functions of draftmeta.sglang that replace them, with the same "
    "arguments: tables as wide as a captured graph's (8,263 slots, or 65,607 where contexts are 64k), 4 tokens a "
    "request, or 1 to 4 in the variable form. Both tables: page_table_1 and the page table.",
    "Host time from Python: the same calls, in a row, not waited for. New pointers: no two calls have outputs at the "
    "same addresses, as where an engine allocates them; same pointers: all have.",
    "Graph time, which is warm by its nature: calls captured one behind the other in one stream, four sets of inputs "
    "in turns; CUDA events; medians of rounds in which all implementations of a point take turns. Static means 4 new "
    "tokens a request, variable 1 to 5; the pool's rows have one stride for all widths. Calls slower than 0.8 ms a "
    "graph take part in fewer rounds.",
    "Host time elsewhere: four sets of inputs in turns, 20 calls that are not counted and 20 that are; a ratio is the "
    "median over rounds of that within a round. draftmeta C is a loop in C. Its calls repeat, as an engine's do; "
    "without repeats, more descriptors take turns, none equal to another, than it knows again.",
    "On the CPU each has a turn of samples in a row, of which the first is not counted, once the threads of the one "
    "before have gone to sleep; so threads are awake in all that count.",
    "The empty kernel has 132 x 256 threads. The bytes of a fill are what it writes, and 64 for every page whose "
    "first slot it reads; a copy's are read and written.",
]

STAGES = [
    ("python", "host_us", "A call from Python: microseconds of the host"),
    ("fused", "graph_us", "SGLang's fused draft extend: microseconds in a graph, warm"),
    ("kpool", "graph_us", "The kpool form: microseconds in a graph, warm"),
    ("modes", "graph_us", "Target verify and decode: microseconds in a graph, warm"),
    ("step", "graph_us", "A whole replayed step: microseconds in a graph, warm"),
    ("step", "host_us", "A whole replayed step: microseconds of the host"),
    ("host", "host_us", "A call: microseconds of the host"),
    ("first", "first_us", "The first call of a batch size, and the wait for it: microseconds"),
    (
        "seed",
        "wall_us",
        "The seed's versions: microseconds a call of many in a row, and the wait at their end",
    ),
    ("seed", "graph_us", "The seed's kernel alone: microseconds in a graph"),
    ("expand", "graph_us", "Expanded lengths alone: microseconds in a graph, warm"),
    ("expand", "host_us", "Expanded lengths alone: microseconds of the host"),
    ("vllm", "graph_us", "vLLM's flattening: microseconds in a graph, warm"),
    ("vllm", "host_us", "vLLM's flattening: microseconds of the host"),
    ("cpu", "host_us", "On the CPU: microseconds a call"),
]

AGAIN = """python bench/peers/run.py                  # on a machine with an NVIDIA GPU
python bench/peers/report.py results.json  # this page, from the recorded numbers"""

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left}th{background:#f4f4f4}
svg{max-width:100%;height:auto}details{margin:1rem 0}summary{cursor:pointer;font-weight:600}"""


# ---- Tables: a header and rows of text ------------------------------------------------------------------------------


def bar_table(data):
    rows = [
        (b.name, b.aim, number(b.value) + b.unit * (b.value is not None), b.word, b.note)
        for b in all_bars(data)
    ]
    return ["what", "aim", "measured", "", ""], rows


def column_table(data):
    """A line a case: SGLang's and draftmeta's three columns, with the spread of cold, and the cold ratio."""
    found = {}
    for row in data.select(stage="columns", metric="gpu_us"):
        found.setdefault(case_name(row), {})[row["peer"], row["column"]] = row
    header = ["warm / code / cold, us", THEIRS, OURS, "cold, 10% to 90%", "cold / SGLang's", ""]
    return header, [column_line(name, rows) for name, rows in found.items()]


def three(rows, peer):
    return " / ".join(number(rows[peer, c]["median"]) if (peer, c) in rows else "-" for c in COLUMNS)


def column_line(name, rows):
    ours, theirs = (rows.get((peer, "cold")) for peer in (OURS, THEIRS))
    spread = f"{number(ours['p10'])} to {number(ours['p90'])}" if ours else ""
    if not ours or not theirs:
        return name, three(rows, THEIRS), three(rows, OURS), spread, "", ""
    met = within(ours["median"], limit_of(ours) * theirs["median"])
    share = ours["median"] / theirs["median"]
    return name, three(rows, THEIRS), three(rows, OURS), spread, number(share), "met" if met else "MISSED"


def schedule_table(data):
    """The same calls with a schedule."""
    found = {}
    for row in data.select(stage="columns", metric="gpu_us"):
        found.setdefault(case_name(row), {})[row["peer"], row["column"]] = row
    peers = [f"{THEIRS}, schedule", f"{OURS}, schedule", OURS]
    rows = [(name, *(three(r, p) for p in peers)) for name, r in found.items() if (peers[1], "cold") in r]
    return ["warm / code / cold, us", *peers[:2], f"{OURS}, without"], rows


def stage_table(data, stage, metric):
    """A line a point, a column a peer."""
    found = data.select(stage=stage, metric=metric)
    keys = [
        k for k in ("config", "outputs", "tables", "pointers", *POINT) if len({r.get(k) for r in found}) > 1
    ]
    peers = list(dict.fromkeys(r["peer"] for r in found))
    points = sorted({tuple(r.get(k) for k in keys) for r in found}, key=str)
    value = {(tuple(r.get(k) for k in keys), r["peer"]): r["median"] for r in found}
    rows = []
    for point in points:
        shown = [tokens(v) if k in ("context", "width") else v for k, v in zip(keys, point)]
        rows.append(shown + [number(value.get((point, peer))) for peer in peers])
    return [k.replace("_", " ") for k in keys] + peers, rows


# ---- As HTML --------------------------------------------------------------------------------------------------------


def html_table(header, rows):
    def cells(values, tag):
        return "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values)

    body = "".join(f"<tr>{cells(r, 'td')}</tr>" for r in rows)
    return (
        f"<table><thead><tr>{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    )


def section(title, *parts):
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}" if any(parts) else ""


def paragraphs(texts, tag="p"):
    return "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts)


def head(data):
    meta = data.meta
    text = (
        f"{meta.get('gpu') or 'no GPU: only a trial'}, draftmeta {meta.get('draftmeta')} at {meta.get('commit')}, "
        f"{meta.get('date')}. {data.checks} outputs checked; {len(data.failures)} failures; "
        f"{len(data.skipped)} points or stages left out."
    )
    return f"<h1>draftmeta side by side</h1>{paragraphs([text])}"


def figure(figures, name):
    svg = figures.get(name, "<svg")
    return section(PLOTS[name][1], svg[svg.index("<svg") :]) if name in figures else ""


def numbers(data):
    parts = []
    for stage, metric, title in STAGES:
        table = html_table(*stage_table(data, stage, metric))
        parts.append(f"<details><summary>{title}</summary>{table}</details>" if table else "")
    return section("All numbers", *parts)


def failures(data):
    names = ("kind", "stage", "peer", "at", "error")
    return html_table(names, [[f[k] for k in names] for f in data.failures])


def machine(meta):
    return [
        (k, json.dumps(v) if isinstance(v, (list, dict)) else v) for k, v in meta.items() if v is not None
    ]


def page(data, figures):
    known = KNOWN + [f"The schedule of SGLang's step: {data.meta.get('schedule')}."]
    parts = [
        head(data),
        section("Aims", html_table(*bar_table(data))),
        figure(figures, "summary"),
        section("GPU time as SGLang calls it", html_table(*column_table(data))),
        section("With a schedule", html_table(*schedule_table(data))),
        *(figure(figures, name) for name in PLOTS if name != "summary"),
        numbers(data),
        section("How it is measured", paragraphs(METHOD)),
        section("Known differences", f"<ul>{paragraphs(known, 'li')}</ul>"),
        section("Failures", failures(data)),
        section(
            "Left out, for want of time or by choice",
            paragraphs(["; ".join(data.skipped)] if data.skipped else []),
        ),
        section("Machine and versions", html_table(["", ""], machine(data.meta))),
        section("Again", f"<pre>{AGAIN}</pre>"),
    ]
    start = "<!doctype html><meta charset='utf-8'><title>draftmeta side by side</title>"
    return f"{start}<style>{STYLE}</style>{''.join(parts)}"


# ---- As Markdown and CSV --------------------------------------------------------------------------------------------


def markdown_table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def markdown(data):
    """For docs/benchmarks.md: the aims and the three columns."""
    tables = (bar_table, column_table, schedule_table)
    return "\n".join(markdown_table(*table(data)) for table in tables)


FIELDS = ["stage", "peer", "metric", "column", "pointers", "config", "outputs", "tables"]
FIELDS += [*POINT, "bytes", "nodes", "median", "p10", "p90"]


def write_csv(data, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FIELDS, "samples"])
        writer.writerows([*(row.get(f, "") for f in FIELDS), len(row["samples"])] for row in data.rows)

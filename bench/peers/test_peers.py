"""The parts of the comparison that need no GPU: pytest bench/peers

Without PyTorch the implementations are skipped, without matplotlib the report."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bars  # these need neither
import results


@pytest.fixture
def case():
    """A small shape, one batch of it, a pool and outputs, on the CPU."""
    pytest.importorskip("torch")
    import inputs

    shape = inputs.Shape(requests=5, context=700, width=1024, variable=True)
    pool = inputs.Pool(8, 1024, "cpu", seed=3)
    batch = inputs.Batch(shape, pool, "cpu", seed=4)
    return inputs, shape, pool, batch, inputs.Outputs(shape.rows, 5, 1024, 132, "cpu").view(shape)


@pytest.mark.parametrize("pool_size", [1, 4])
@pytest.mark.parametrize("mode", ["draft-extend", "target-verify", "decode"])
def test_reference_is_the_contract(mode, pool_size):
    pytest.importorskip("torch")
    import inputs

    shape = inputs.Shape(4, 300, 1024, mode=mode, pool_size=pool_size)
    batch = inputs.Batch(shape, inputs.Pool(8, 1024, "cpu", seed=3), "cpu", seed=4)
    got, e, s = inputs.reference(shape, batch, topk=100), [], []
    for length in batch.seq_lens.tolist():
        n = 1 if mode == "decode" else 4
        kv = length + (4 if mode == "target-verify" else 0)
        e += [max(0, kv - n + 1 + j) for j in range(n)]
    s = [min(x - x % pool_size, 100) + x % pool_size for x in e]
    assert got["seqlens_expanded"].tolist() == e and got["dsa_cache_seqlens"].tolist() == s
    assert got["dsa_cu_seqlens_k"].tolist() == [sum(s[:i]) for i in range(len(s) + 1)]


def test_schedule():
    pytest.importorskip("torch")
    import inputs
    import numpy as np

    # 3 + 0 + 5 segments over 3 slots: 2 each, and the remaining 2 go to the last slots, or to the first
    lens = np.array([600, 0, 1200])
    assert inputs.schedule(lens, 3, True).tolist() == [[0, 0], [0, 2], [2, 2], [3, 0]]
    assert inputs.schedule(lens, 3, False).tolist() == [[0, 0], [2, 0], [2, 3], [3, 0]]


@pytest.mark.parametrize("name", ["torch_on_cpu", "numpy_on_cpu"])
def test_cpu_operators(case, name):
    inputs, shape, pool, batch, out = case
    import peers

    inputs.poison(out)
    getattr(peers, name)(shape, batch, pool, out)()
    inputs.check(shape, batch, pool, out, peers.FULL_SET, block=None)


@pytest.mark.parametrize("name, page", [("page_table_1", 1), ("page_table", 64)])
def test_check_of_tables_as_an_engine_has_them(name, page):
    """A width that no page divides, and what a peer may write past the last live column."""
    pytest.importorskip("torch")
    import inputs

    shape = inputs.Shape(3, 300, 8263, tokens=1, mode="decode")
    pool = inputs.Pool(8, 8263, "cpu", seed=3)
    batch = inputs.Batch(shape, pool, "cpu", seed=4)
    batch.replace_lengths([1, 1, 1], [130, 200, 300])
    out = {name: inputs.Places(inputs.sizes_of(shape, True, 132), "cpu").take()[name]}
    inputs.poison(out)
    for row, (length, source) in enumerate(zip(batch.seq_lens.tolist(), batch.rows)):
        live = pool.view(8263)[source, : -(-length // 128) * 128 : page] // page
        out[name][row, : len(live)] = live
    inputs.check(shape, batch, pool, out, [name], block=128)
    with pytest.raises(inputs.Mismatch, match=name):
        inputs.check(shape, batch, pool, out, [name])


def test_places_are_new():
    pytest.importorskip("torch")
    import inputs

    places = inputs.Places({"page_table": (3, 5), "cache_seqlens": (3,)}, "cpu")
    taken = [places.take() for _ in range(3)]
    assert len({out["page_table"].data_ptr() for out in taken}) == 3
    assert taken[0]["page_table"].shape == (3, 5) and taken[0]["page_table"].is_contiguous()


def test_check_sees_a_wrong_page(case):
    inputs, shape, pool, batch, out = case
    import peers

    inputs.poison(out)
    peers.numpy_on_cpu(shape, batch, pool, out)()
    out["page_table"][2, 1] += 1
    with pytest.raises(inputs.Mismatch, match=r"page_table\[2\]\[1\]"):
        inputs.check(shape, batch, pool, out, peers.FULL_SET, block=None)


def test_seed_and_vllm(case):
    inputs, shape, pool, batch, out = case
    import peers
    import seed

    written = seed.python_loop(
        batch.q.tolist(), batch.kv.tolist(), inputs.TOPK, *(out[k] for k in peers.LENGTHS)
    )
    assert written == batch.total
    inputs.check(shape, batch, pool, out, peers.LENGTHS)
    flatten = peers.VLLMFlatten(shape.rows, 16, "cpu")
    flatten.bind(batch, pool.view(1024)[batch.pool_indices, :: inputs.PAGE] // inputs.PAGE)()
    views = {"seqlens_expanded": flatten.seq_lens, "page_table": flatten.table}
    inputs.check(shape, batch, pool, views, list(views), block=None)


# ---- Times ----------------------------------------------------------------------------------------------------------


def test_percentiles():
    shares = (0, 0.1, 0.5, 0.9, 1)
    assert [results.percentile([4, 1, 3, 2, 5], s) for s in shares] == pytest.approx([1, 1.4, 3, 4.6, 5])
    assert results.percentile([7], 0.9) == 7


def trace_of(turns, names, marker="marker"):
    """What a device would have recorded, the times counted up from 1; what stands between is 0.5 long."""
    trace, us = [], 0
    for turn in turns:
        if turn.column != "warm":
            trace += [("sort", 0.5), ("copy", 0.5), (marker, 0.5)]
        for _ in range(1 + (turn.column == "warm")):
            for name in names[turn.side]:
                us += 1
                trace.append((name, us))
    return trace


def test_a_trace_is_read_by_turns():
    columns = pytest.importorskip("columns")
    names = {"ours": ["fill"], "theirs": ["fused", "copy"]}
    turns = columns.turns_of(list(names), 2)
    times = columns.Reader(trace_of(turns, names), "marker").times(turns, names)
    assert times["ours"] == {"warm": [2, 8], "code": [13, 16], "cold": [19, 22]}
    assert times["theirs"]["warm"] == [5 + 6, 11 + 12]  # the second call, both of its records
    assert times["theirs"]["code"] == [14 + 15, 17 + 18]


@pytest.mark.parametrize("spoil", [lambda t: t.pop(), lambda t: t.append(("fill", 1)), lambda t: t.pop(0)])
def test_a_trace_that_is_not_what_was_launched(spoil):
    columns = pytest.importorskip("columns")
    names = {"ours": ["fill"], "theirs": ["fused"]}
    turns = columns.turns_of(list(names), 2)
    trace = trace_of(turns, names)
    spoil(trace)
    with pytest.raises(columns.Unexpected):
        columns.Reader(trace, "marker").times(turns, names)


def test_period():
    columns = pytest.importorskip("columns")
    assert columns.period([("a", 1), ("b", 2), ("a", 3), ("b", 4)], 2) == ["a", "b"]
    for trace in ([], [("a", 1), ("b", 1)]):
        with pytest.raises(columns.Unexpected):
            columns.period(trace, 2)


def test_prepared_calls_are_made_outside_the_clock():
    columns = pytest.importorskip("columns")
    made, called = [], []

    def calls():
        while True:
            made.append(len(made))
            yield lambda: called.append(len(made))

    assert columns.prepared_us(calls(), 4) > 0
    assert called == [4] * 4


def test_engine_cases():
    stages, run = pytest.importorskip("stages"), pytest.importorskip("run")
    usual, quick = (stages.engine_cases(run.Plan(scale, False)) for scale in ("usual", "quick"))
    names = {str(c) for c in usual}
    assert len(usual) == len(names) == 32 and len(quick) == 12
    assert {"decode 64 x 65536, pages", "draft-extend variable 48 x 3000, both tables"} < names
    scheduled = [c for c in usual if c.schedule]
    assert len(scheduled) == 9 and all(c.wide == (c.shape.mode != "decode") for c in scheduled)
    assert {c.shape.width for c in usual} == {8263, 65607}


# ---- Aims -----------------------------------------------------------------------------------------------------------


def row(stage, peer, metric, median, **more):
    point = {"mode": "draft-extend", "form": "static", "pool_size": 1}
    point.update(requests=64, context=8192, width=131072)
    numbers = {"median": median, "p10": 0.9 * median, "p90": 1.1 * median, "samples": [median]}
    return {"stage": stage, "peer": peer, "metric": metric, **numbers, **point, **more}


def engine_rows(ours=1.0, schedule=0.5, new=12.0, same=6.0):
    """Of what an engine sees: SGLang's kernel takes 2 us warm and 3 cold, its call 60."""
    rows = []
    for mode, requests, context in (
        ("decode", 1, 300),
        ("target-verify", 48, 3000),
        ("draft-extend", 8, 300),
    ):
        for column, us in (("warm", 2.0), ("code", 2.5), ("cold", 3.0)):
            mine = us * ours * (0.5 if mode == "target-verify" else 1)
            times = {"SGLang": us, "draftmeta": mine}
            times.update({"draftmeta, schedule": mine + schedule, "SGLang, schedule": us + 3.5})
            where = {"mode": mode, "requests": requests, "context": context, "width": 8263}
            where.update(tables="both tables", column=column)
            rows += [row("columns", peer, "gpu_us", time, **where) for peer, time in times.items()]
    for pointers, us in (("new", new), ("same", same)):
        for peer, host in (("SGLang", 60.0), ("draftmeta", us)):
            where = {"pointers": pointers, "tables": "both tables", "context": 300}
            rows.append(row("python", peer, "host_us", host, **where))
    return rows


def data_of(tmp_path, rows, skipped=()):
    meta = {"gpu": "none: made-up numbers", "commit": "none", "seed": 1, "schedule": "none"}
    content = {"meta": meta, "checks": 0, "failures": [], "skipped": list(skipped), "rows": rows}
    (tmp_path / "results.json").write_text(json.dumps(content))
    return results.Data(tmp_path / "results.json")


def test_aims_met(tmp_path):
    data = data_of(tmp_path, engine_rows())
    of_engine = [b for b in bars.all_bars(data) if b.stage in bars.ENGINE_STAGES]
    assert len(of_engine) == 10 and {b.word for b in of_engine} == {"met"}
    assert bars.failing(data) == []


VERIFY, MANY, ONE = "verify at 48 x 3000", "8 requests or more", "1 request"


@pytest.mark.parametrize(
    "change, missed",
    [
        ({"ours": 1.04}, []),  # within 5%
        ({"ours": 1.08}, [VERIFY, MANY] * 2),  # 1 request may take 1.1
        ({"ours": 1.2}, [VERIFY, MANY, ONE] * 2),
        ({"schedule": 1.0}, ["that a schedule adds"] * 2),
        ({"new": 18.1}, ["new pointers"]),
        ({"same": 9.1}, ["same pointers"]),
    ],
)
def test_aims_missed(tmp_path, change, missed):
    data = data_of(tmp_path, engine_rows(**change))
    names = [b.name for b in bars.failing(data)]
    assert len(names) == len(missed) and all(n.endswith(m) for n, m in zip(names, missed))
    assert bars.summary(data).count("MISSED") == len(missed)


def test_a_tick_is_not_a_miss():
    assert bars.within(0.53, 0.5) and not bars.within(0.54, 0.5)  # 32 ns, which is more than 5%
    assert bars.within(10.5, 10) and not bars.within(10.51, 10)


def test_strict_wants_what_was_asked_for(tmp_path):
    assert [b.word for b in bars.failing(data_of(tmp_path, []))] == ["not measured"] * 10
    assert bars.failing(data_of(tmp_path, [], skipped=["columns", "python"])) == []
    slow = [row("cpu", p, "host_us", us, outputs="lengths") for p, us in (("draftmeta cpu", 1), ("NumPy", 2))]
    assert bars.failing(data_of(tmp_path, engine_rows() + slow)) == []  # an aim of the wider comparison


def test_missed_points_are_named(tmp_path):
    text = bars.summary(data_of(tmp_path, engine_rows(ours=1.2)))
    assert "decode 1 x 300, both tables: 3.60 us, SGLang's 3.00" in text


# ---- The report -----------------------------------------------------------------------------------------------------


def sweep_rows():
    rows = []
    for stage, pool_size, slow in (("fused", 1, 1), ("kpool", 4, 0.2)):
        for requests in (1, 8, 64, 256, 1024):
            for context, width in ((8192, 131072), (65536, 131072), (65536, 1048576)):
                for form, factor in (("static", 1), ("variable", 1.4)):
                    point = {"pool_size": pool_size, "requests": requests, "context": context, "width": width}
                    point.update(form=form, nodes=1, bytes=requests * context)
                    ours = 2 + requests * context / 2e6
                    theirs = 2.2 + slow * factor * requests * width / 1e6
                    rows += [row(stage, "draftmeta", "graph_us", ours, **point)]
                    rows += [row(stage, "SGLang", "graph_us", theirs, **point)]
    return rows


def synthetic():
    """Made-up numbers of every kind: they say nothing of any machine."""
    rows = [row("roofline", "copy", "graph_us", 1 + n / 1e6, bytes=n) for n in (1 << 12, 1 << 20, 1 << 28)]
    rows += [row("roofline", "empty", "graph_us", 1.0, bytes=0), *engine_rows(), *sweep_rows()]
    for stage, slow in (("host", 60.0), ("step", 110.0)):
        rows += [row(stage, "draftmeta C", "host_us", 4.0), row(stage, "draftmeta Python", "host_us", 5.0)]
        rows += [row(stage, "SGLang", "host_us", slow)]
    rows += [row("host", "draftmeta C", "host_us", 4.0, pool_size=4)]
    rows += [row("host", "SGLang", "host_us", 62.0, pool_size=4)]
    rows += [row("step", "draftmeta", "graph_us", 3.0, nodes=1)]
    rows += [row("step", "SGLang", "graph_us", 30.0, nodes=5)]
    seed = {"draftmeta C": 4.0, "draftmeta Python": 5.0}
    seed.update({"Triton in place": 70.0, "draftmeta C, waiting": 12.0})
    rows += [row("seed", peer, "wall_us", us, config="the seed's") for peer, us in seed.items()]
    cpu = {"draftmeta cpu": 1.0, "torch CPU": 50.0, "NumPy": 4.0}
    return rows + [row("cpu", peer, "host_us", us, outputs="lengths") for peer, us in cpu.items()]


def test_report(tmp_path):
    pytest.importorskip("matplotlib")
    import plots
    import report

    data_of(tmp_path, synthetic())
    data = report.write(tmp_path / "results.json", tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text()
    assert text.count("<svg") == len(plots.PLOTS) and "MISSED" in text
    assert len((tmp_path / "report/results.csv").read_text().splitlines()) == len(synthetic()) + 1
    found = {b.name: b for b in bars.all_bars(data)}
    assert len(found) == 22 and all(b.met is not None for b in found.values())
    assert not found["64 requests on the CPU: NumPy / draftmeta's cpu backend"].met
    assert found["host time of SGLang's call / draftmeta C's"].value == 15


def test_report_shows_three_columns_cold_first(tmp_path):
    pytest.importorskip("matplotlib")
    import page

    tables = page.markdown(data_of(tmp_path, engine_rows()))
    line = "| decode 1 x 300, both tables | 2.00 / 2.50 / 3.00 | 2.00 / 2.50 / 3.00 | 2.70 to 3.30 | 1.00 | met |"
    assert line in tables
    line = "| target verify 48 x 3000, both tables | 5.50 / 6.00 / 6.50 | 1.50 / 1.75 / 2.00 | 1.00 / 1.25 / 1.50 |"
    assert line in tables
    aims = [line for line in tables.splitlines() if "GPU time" in line]
    assert "cold GPU time" in aims[0] and not any("graph" in line for line in aims)


LONELY = row("columns", "draftmeta", "gpu_us", 2.0, column="cold", tables="pages")


@pytest.mark.parametrize("rows", [[], [LONELY]])
def test_report_of_little(tmp_path, rows):
    """A run that was stopped early still has its page."""
    pytest.importorskip("matplotlib")
    import report

    data_of(tmp_path, rows)
    report.write(tmp_path / "results.json", tmp_path / "report")
    assert "not measured" in (tmp_path / "report/report.html").read_text()


def test_figures_alone(tmp_path):
    pytest.importorskip("matplotlib")
    import report

    data_of(tmp_path, engine_rows())
    assert report.main([str(tmp_path / "results.json"), "--docs", str(tmp_path / "figures")]) == 0
    assert {p.name for p in (tmp_path / "figures").glob("*.png")} == {"summary.png", "columns.png"}


def test_report_names_a_file_that_is_not_there(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    import report

    with pytest.raises(SystemExit) as stopped:
        report.main([str(tmp_path / "none.json")])
    assert stopped.value.code == 2 and "there is no" in capsys.readouterr().err


def test_ratio_of_calls_is_within_rounds():
    ours, theirs = (
        row("host", "any", "host_us", 0, samples=samples) for samples in ([2, 2, 4], [30, 60, 60])
    )
    assert results.ratio(((), ours, theirs)) == 15  # and not 60 / 2


# ---- The command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["--wheels", "/no/such/folder"], "--wheels: there is no /no/such/folder"),
        (["--library", "/no/such.so"], "--library: there is no /no/such.so"),
        (["--only", "nothing"], "invalid choice"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_wrong_arguments(arguments, error, capsys):
    run = pytest.importorskip("run")
    with pytest.raises(SystemExit) as stopped:
        run.arguments(["--device", "cpu", *arguments])
    assert stopped.value.code == 2 and error in capsys.readouterr().err


def test_scales():
    run = pytest.importorskip("run")
    for scale, flags in (("quick", ["--quick"]), ("usual", []), ("full", ["--full"])):
        options = run.arguments(["--device", "cpu", *flags])
        assert options.scale == scale and options.minutes == run.MINUTES[scale]


@pytest.mark.parametrize(
    "failures, strict, status",
    [
        ([], True, 0),
        ([{"kind": "failure", "stage": "columns", "at": "decode"}], False, 0),
        ([{"kind": "failure", "stage": "columns", "at": "decode"}], True, 1),
        ([{"kind": "failure", "stage": "vllm", "at": "stage"}], True, 0),
        ([{"kind": "mismatch", "stage": "vllm", "at": "stage"}], False, 1),
    ],
)
def test_exit_status(tmp_path, failures, strict, status):
    run = pytest.importorskip("run")
    measured = results.Results(tmp_path / "results.json")
    measured.failures = failures
    assert run.status_of(measured, data_of(tmp_path, engine_rows()), strict) == status


def test_strict_does_not_pass_a_run_that_was_cut_short(tmp_path):
    run = pytest.importorskip("run")
    measured, data = results.Results(tmp_path / "results.json"), data_of(tmp_path, engine_rows())
    measured.skipped = ["vllm", "fused: one point", "python"]  # by choice, or of the wider comparison
    assert run.status_of(measured, data, strict=True) == 0
    measured.skipped.append("columns: decode 1 x 300, pages")
    assert run.status_of(measured, data, strict=True) == 1

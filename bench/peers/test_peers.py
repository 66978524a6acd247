"""The parts of the comparison that need no GPU: pytest bench/peers

Without PyTorch the implementations are skipped, without matplotlib the report."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


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


# ---- The report -----------------------------------------------------------------------------------------------------


def row(stage, peer, metric, median, **more):
    point = {
        "mode": "draft-extend",
        "form": "static",
        "pool_size": 1,
        "requests": 64,
        "context": 8192,
        "width": 131072,
    }
    return {
        "stage": stage,
        "peer": peer,
        "metric": metric,
        "median": median,
        "samples": [median],
        **point,
        **more,
    }


def synthetic():
    """Made-up numbers of every kind: they say nothing of any machine."""
    rows = [row("roofline", "copy", "graph_us", 1 + n / 1e6, bytes=n) for n in (1 << 12, 1 << 20, 1 << 28)]
    rows += [row("roofline", "empty", "graph_us", 1.0, bytes=0)]
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
    for stage in ("host", "step"):
        rows += [row(stage, "draftmeta C", "host_us", 4.0), row(stage, "draftmeta Python", "host_us", 5.0)]
        rows += [row(stage, "SGLang", "host_us", 60.0 if stage == "host" else 110.0)]
    rows += [
        row("host", "draftmeta C", "host_us", 4.0, pool_size=4),
        row("host", "SGLang", "host_us", 62.0, pool_size=4),
    ]
    rows += [
        row("step", "draftmeta", "graph_us", 3.0, nodes=1),
        row("step", "SGLang", "graph_us", 30.0, nodes=5),
    ]
    seed = {
        "draftmeta C": 4.0,
        "draftmeta Python": 5.0,
        "Triton in place": 70.0,
        "draftmeta C, waiting": 12.0,
    }
    rows += [row("seed", peer, "wall_us", us, config="the seed's") for peer, us in seed.items()]
    cpu = {"draftmeta cpu": 1.0, "torch CPU": 50.0, "NumPy": 4.0}
    rows += [row("cpu", peer, "host_us", us, outputs="lengths") for peer, us in cpu.items()]
    meta = {"gpu": "none: made-up numbers", "commit": "none", "seed": 1, "schedule": "none"}
    return {"meta": meta, "checks": 0, "failures": [], "skipped": [], "rows": rows}


def test_report(tmp_path):
    pytest.importorskip("matplotlib")
    import report

    (tmp_path / "results.json").write_text(json.dumps(synthetic()))
    report.write(tmp_path / "results.json", tmp_path / "report")
    text = (tmp_path / "report/report.html").read_text()
    assert text.count("<svg") == len(report.PLOTS) and "MISSED" in text
    assert len((tmp_path / "report/results.csv").read_text().splitlines()) == len(synthetic()["rows"]) + 1
    bars = {b["name"]: b for b in report.all_bars(report.Data(tmp_path / "results.json"))}
    assert len(bars) == 12 and all(b["met"] is not None for b in bars.values())
    assert not bars["64 requests on the CPU: NumPy / draftmeta's cpu backend"]["met"]
    assert bars["host time of SGLang's call / draftmeta C's"]["value"] == 15


def test_report_of_nothing(tmp_path):
    """A run that was stopped early still has its page."""
    pytest.importorskip("matplotlib")
    import report

    (tmp_path / "results.json").write_text(json.dumps({**synthetic(), "rows": []}))
    report.write(tmp_path / "results.json", tmp_path / "report")
    assert "not measured" in (tmp_path / "report/report.html").read_text()


def test_ratio_of_calls_is_within_rounds():
    pytest.importorskip("matplotlib")
    import report

    ours, theirs = (
        row("host", "any", "host_us", 0, samples=samples) for samples in ([2, 2, 4], [30, 60, 60])
    )
    assert report.ratio((None, ours, theirs)) == 15  # and not 60 / 2

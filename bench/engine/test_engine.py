"""The parts of the engine's run that need neither a GPU nor SGLang: pytest bench/engine

Without PyTorch those that compare tensors are skipped."""

import json
import os
import sys
import types
import zipfile
from multiprocessing.connection import Client

import pytest

from . import drive, packages, plugin, report, run, shadow, steps, trace
from .plans import PLANS, Prompts

# ---- Packages ----


def make_wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "x")


def test_site_has_what_is_wanted(tmp_path):
    flashinfer = ["flashinfer/jit.py", "flashinfer/data/csrc/a.cu", "flashinfer/data/cutlass/b.h"]
    make_wheel(tmp_path / "flashinfer_python-1-py3-none-any.whl", flashinfer)
    make_wheel(tmp_path / "sglang-1-py3-none-any.whl", ["sglang/srt/a.py", "sglang/test/b.py"])
    make_wheel(tmp_path / "other-1-py3-none-any.whl", ["sglang/test/kept.py"])
    packages.pack_site(tmp_path / "site.tar.xz", tmp_path)
    packages.unpack(tmp_path / "site.tar.xz", tmp_path / "site")
    found = sorted(
        str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*") if p.is_file()
    )
    assert found == [
        "flashinfer/data/csrc/a.cu",
        "flashinfer/jit.py",
        "sglang/srt/a.py",
        "sglang/test/kept.py",
    ]


def test_packing_leaves_out_by_ending(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("kernel.so", "kernel.o", "kernel.o.d"):
        (tmp_path / "in/deep" / name).write_text(name)
    packages.pack(tmp_path / "in", tmp_path / "jit.tar.xz", preset=1, left_out=run.JIT_LEFT_OUT)
    packages.unpack(tmp_path / "jit.tar.xz", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/deep").iterdir()] == ["kernel.so"]


def test_stub(tmp_path, monkeypatch):
    assert packages.add_stub(tmp_path, "absent_here.display")
    assert not packages.add_stub(tmp_path, "absent_here.display")
    monkeypatch.syspath_prepend(str(tmp_path))
    from absent_here.display import Anything

    assert Anything().__class__.__name__ == "Anything"


def test_wheels_are_pinned():
    assert all(wheel.count("==") == 1 for wheel in packages.WHEELS)
    names = {wheel.split("==")[0].replace("-", "_") for wheel in packages.WHEELS}
    assert names >= set(packages.LEFT_OUT)


def test_draftmeta_is_found(tmp_path):
    with pytest.raises(SystemExit, match="--draftmeta"):
        packages.find_draftmeta(None, tmp_path)
    make_wheel(tmp_path / "draftmeta-1-cp311-abi3-linux_x86_64.whl", ["draftmeta/__init__.py"])
    wheel = packages.find_draftmeta(None, tmp_path)
    assert packages.find_draftmeta(tmp_path, tmp_path / "elsewhere") == wheel
    assert (packages.install_draftmeta(wheel, tmp_path / "own") / "draftmeta/__init__.py").exists()
    assert packages.find_draftmeta(tmp_path / "own", tmp_path) == tmp_path / "own"


# ---- Steps ----


def test_program_takes_modes_in_turns():
    state, did = steps.State(), []
    program = steps.Program(state, lambda: did.append("start"), did.append)
    program.load(7, [steps.Segment("A", 2, 3), steps.Segment("D", 1, 2, "path")])
    seen = []
    for requests in (3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7):  # a batch of another size does not count
        program.before_step(requests)
        seen.append(state.mode + "c" * state.counting + "t" * state.tracing)
    assert seen == ["A", "A", "A", "Ac", "Ac", "Ac", "D", "Dct", "Dct", "D", "D"]
    assert did == ["start", "path"] and not program.segments


def test_gate_holds_until_all_are_there():
    class Request:
        def __init__(self, rid):
            self.rid = rid

    state = steps.State(gate=3)
    gate, first, second, third = steps.Gate(state, Request), Request("a"), Request("b"), Request("c")
    assert gate.admit(None) is None
    assert gate.admit([third, "flush"]) == ["flush"]
    assert gate.admit([]) == []
    assert gate.admit([second, first]) == [first, second, third]
    state.gate = 0
    assert gate.admit([third, first]) == [third, first]


# ---- Tensors ----


def step_tensors(torch, bs=2, per=2):
    kv = torch.tensor([70, 5], dtype=torch.int32)
    return {
        "cache_seqlens": kv,
        "cu_seqlens_k": torch.tensor([0, 70, 75], dtype=torch.int32),
        "seqlens_expanded": torch.arange(bs * per, dtype=torch.int32),
        "page_table_1": torch.arange(bs * per * 128, dtype=torch.int32).view(bs * per, 128),
        "real_page_table": torch.arange(bs * per * 2, dtype=torch.int32).view(bs * per, 2),
    }


def test_equal_steps():
    torch = pytest.importorskip("torch")
    theirs = step_tensors(torch)
    ours = shadow.poisoned(theirs)
    for name, tensor in theirs.items():
        page = {"page_table_1": 1, "real_page_table": 64}.get(name)
        live = page and shadow.live_cells(theirs["cache_seqlens"], 2, tensor.shape[1], page)
        ours[name].copy_(tensor if live is None else torch.where(live, tensor, ours[name]))
    comparison = shadow.Comparison()
    comparison.step("here", theirs, ours, 2, 2, 64)
    result = comparison.take()
    assert sum(result["checked"].values()) == 5 and not result["differing"] and not comparison.checked


@pytest.mark.parametrize(
    "name, at", [("seqlens_expanded", (3,)), ("page_table_1", (1, 69)), ("real_page_table", (2, 0))]
)
def test_a_difference_is_seen(name, at):
    torch = pytest.importorskip("torch")
    theirs = step_tensors(torch)
    ours = {key: tensor.clone() for key, tensor in theirs.items()}
    ours[name][at] += 1
    comparison = shadow.Comparison()
    comparison.step("here", {name: theirs[name], "cache_seqlens": theirs["cache_seqlens"]}, ours, 2, 2, 64)
    assert f"here: {name}" in comparison.differing
    assert (
        any(f"{name}{list(at)}" in example for example in comparison.examples) or name != "seqlens_expanded"
    )


def test_a_write_behind_the_live_cells_is_seen():
    torch = pytest.importorskip("torch")
    theirs = step_tensors(torch)
    live = shadow.live_cells(theirs["cache_seqlens"], 2, 128, 1)
    ours = torch.where(live, theirs["page_table_1"], shadow.POISON)
    ours[3, 5] = theirs["page_table_1"][3, 5]  # the second request has 5 KV tokens
    comparison = shadow.Comparison()
    comparison.table("table", theirs["page_table_1"], ours, live)
    assert comparison.examples == ["table[3, 5]: 389, draftmeta's is 389"]


def test_weights():
    torch = pytest.importorskip("torch")
    from . import weights

    model = torch.nn.Module()
    model.o_proj = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
    model.input_layernorm = torch.nn.LayerNorm(64)
    model.eh_proj = torch.nn.Linear(8, 4, bias=False)
    weights.fill(model)
    assert model.o_proj.bias.eq(0).all() and model.input_layernorm.weight.eq(1).all()
    assert 0.05 < model.o_proj.weight.float().std() < 0.13  # 0.7 / 8
    assert model.eh_proj.weight[1].tolist() == pytest.approx([0, 1, 0, 0, 0, 0.2, 0, 0])


# ---- Traces ----


def event(cat, name, ts, dur, correlation=None, tid=1):
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": ts,
        "dur": dur,
        "tid": tid,
        "args": {"correlation": correlation},
    }


def synthetic_trace():
    """A draft refresh whose fill has no CUDA call, a verify refresh whose fill has one, and a replay of a graph."""
    return [
        event("user_annotation", "metadata: draft", 0, 100),
        event("cuda_runtime", "cudaLaunchKernel", 50, 5, 1),
        event("cuda_runtime", "cudaMemcpyAsync", 60, 5, 2),
        event("user_annotation", "metadata: verify", 200, 100),
        event("cuda_driver", "cuLaunchKernel", 210, 5, 3),
        event("cuda_runtime", "cudaLaunchKernel", 220, 5, 4),
        event("cuda_runtime", "cudaGraphLaunch", 350, 5, 5),
        event("cuda_runtime", "cudaLaunchKernel", 55, 5, 6, tid=2),  # another thread's
        event("kernel", "draftmeta_fill_tables", 1000, 3.5, 99),
        event("kernel", "void (anonymous namespace)::topk_plan<256>(int)", 1010, 1.5, 1),
        event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 1020, 1, 2),
        event("kernel", "other", 1025, 50, 6),
        event("kernel", "draftmeta_fill_tables", 1100, 4.5, 3),
        event("kernel", "void (anonymous namespace)::topk_plan<256>(int)", 1110, 1.5, 4),
        event("kernel", "attention", 1200, 90, 5),
    ]


def test_trace(tmp_path):
    path = tmp_path / "trace.json"
    noise = [
        event("cpu_op", "aten::add", 0, 1),
        event("user_annotation", "other", 0, 1),
        {"ph": "M", "name": "x"},
    ]
    path.write_text(json.dumps({"traceEvents": synthetic_trace() + noise}))
    seen = trace.summarise(trace.reduce(path))
    assert list(seen) == ["draft", "verify"]
    assert seen["draft"]["operations"] == 3 and seen["draft"]["us"] == 6 and seen["draft"]["fills_us"] == 3.5
    assert (
        seen["verify"]["operations"] == 2 and seen["verify"]["us"] == 6 and seen["verify"]["fills_us"] == 4.5
    )
    assert seen["draft"]["launched"]["topk_plan"] == [1, 1.5]
    assert len(json.loads(path.read_text())["traceEvents"]) == len(synthetic_trace())


def test_other_streams_do_not_part_a_fill_from_its_refresh():
    events = [dict(e, args={**e["args"], "stream": 7}) for e in synthetic_trace()]
    copy = event("gpu_memcpy", "Memcpy DtoH", 1005, 1, 8)
    copy["args"]["stream"] = 9
    events += [copy, event("cuda_runtime", "cudaMemcpyAsync", 500, 1, 8)]
    assert trace.summarise(events)["draft"]["fills_us"] == 3.5


def test_short_names():
    assert (
        trace.short("void at::native::vectorized_elementwise_kernel<4, at::F<int>>(int)")
        == "vectorized_elementwise_kernel"
    )
    assert trace.short("Memcpy DtoD (Device -> Device)") == "Memcpy DtoD (Device -> Device)"


# ---- The report ----


def tokens(differing=0, uses=None, checked=0, wrong=0):
    comparison = {
        "checked": {"x": checked} if checked else {},
        "differing": {"x": wrong} if wrong else {},
        "examples": [],
    }
    counts = {"requests": 158, "tokens": 6436, "differing": differing, "distinct": 900}
    return {**counts, "uses": uses or {}, "comparison": comparison}


def token_result(plan="eagle", **changed):
    every = {
        "A": tokens(),
        "A again": tokens(),
        "B": tokens(uses={"fused_dsa_decode_metadata": 9}),
        "C": tokens(uses={"dsa_step_metadata": 9}),
        "D": tokens(uses={"fill_many": 9}),
        "S": tokens(checked=50),
    }
    return {"plan": plan, "done": True, "tokens": every | changed}


def seen(us, fills_us):
    return {
        "seen": 12,
        "operations": 4,
        "us": us,
        "fills": 1,
        "fills_us": fills_us,
        "launched": {"plan": [2, 1.4]},
    }


def time_result(plan, us, host=60.0):
    kinds = PLANS[plan].kinds
    gpu = {mode: {kind: seen(us, us / 2) for kind in kinds} for mode in PLANS[plan].modes}
    times = {
        mode: {kind: [host if mode == "D" else 200.0] * 3 for kind in kinds} for mode in PLANS[plan].modes
    }
    uses = {"fused_dsa_decode_metadata": 1, "dsa_step_metadata": 1, "fill_many": 1}
    shape = {"gpu": gpu, "host_us": times, "uses": uses}
    shadowed = {"checked": {"x": 7}, "differing": {}, "examples": []}
    return {"plan": plan, "done": True, "tokens": {}, "shapes": {"7 x 300": shape}, "shadow": shadowed}


def test_all_is_well():
    results = [token_result(), time_result("eagle-times", 6.0), time_result("plain-times", 5.0)]
    assert report.status(results, strict=True) == 0
    assert {bar.state for bar in report.bars(results)} == {"met"}
    text = report.write(results, ["IPython.display"])
    assert (
        "| eagle-times, 7 x 300: GPU operations / us | 12 / 18.0 | 12 / 18.0 | 12 / 18.0 | 12 / 18.0 |"
        in text
    )
    assert "| eagle | B | 158 | 6436 | 0 |" in text and "IPython.display" in text and "WRONG" not in text


def test_a_missed_bar_fails_only_if_strict():
    results = [time_result("eagle-times", 7.0)]
    assert [bar.state for bar in report.bars(results)].count("MISSED") == 3  # both fills, and D's 21 us
    assert report.status(results, strict=False) == 0 and report.status(results, strict=True) == 1


def test_slow_host_is_a_missed_bar():
    states = [bar.state for bar in report.bars([time_result("eagle-times", 6.0, host=90.0)])]
    assert states[-3:] == ["MISSED"] * 3


def test_a_trace_without_fills_is_a_fault():
    result = time_result("plain-times", 5.0)
    result["shapes"]["7 x 300"]["gpu"]["C"]["decode"]["fills"] = 0
    result["shapes"]["7 x 300"]["gpu"]["B"] = {}
    assert report.faults([result]) == [
        "plain-times, 7 x 300, B: there is no decode refresh in the trace",
        "plain-times, 7 x 300, C: there is no fill of decode refreshes in the trace",
    ]


def test_a_bar_that_was_not_measured_is_missed_if_its_plan_ran():
    result = time_result("eagle-times", 6.0)
    assert not report.missed([result])
    result["shapes"]["7 x 300"]["host_us"]["D"] = {}
    assert len(report.missed([result])) == 3 and report.status([result], strict=True) == 1
    assert not report.missed([token_result()])


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"C": tokens(differing=2, uses={"dsa_step_metadata": 1})}, "tokens of C differ in 2 of 158"),
        ({"S": tokens(checked=5, wrong=1)}, "tensors differ 1 times: x"),
        ({"S": tokens()}, "no tensors were compared"),
        ({"D": tokens(uses={"dsa_step_metadata": 1})}, "draftmeta was not in use"),
        ({"B": {**tokens(uses={"fused_dsa_": 1}), "distinct": 3}}, "they show nothing"),
    ],
)
def test_what_is_wrong_is_said(changed, said):
    results = [token_result(**changed)]
    assert report.status(results, strict=False) == 1
    assert said in report.write(results, [])


def test_a_skipped_plan_is_no_pass():
    results = [token_result(), {"plan": "plain", "skipped": "20 s were left"}]
    assert report.status(results, strict=True) == 3
    assert "SKIPPED: plain: 20 s were left" in report.write(results, [])


# ---- The run ----


def options(tmp_path, *arguments):
    return run.options_of(["--site", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])


def a_run(tmp_path, *arguments, limit=None):
    workplace = run.Workplace(tmp_path)
    workplace.logs.mkdir()
    return run.Run(options(tmp_path, *arguments), workplace, run.Clock(limit, 0))


def play(runner, monkeypatch, *outcomes):
    """In place of an engine: writes a log and a result, and gives a status."""
    left = list(outcomes)

    def start(name, log, seconds):
        text, result, status = left.pop(0)
        log.write_text(text)
        runner.result_path(name).write_text(json.dumps({"plan": name, **result}))
        return status

    monkeypatch.setattr(runner, "start", start)
    return left


def test_unknown_plan(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        options(tmp_path, "--plan", "eagle,wings")
    assert status.value.code == 2 and "wings" in capsys.readouterr().err


def test_a_missing_module_is_replaced_and_said(tmp_path, monkeypatch, capsys):
    runner = a_run(tmp_path, "--plan", "plain")
    log = "warned of: No module named 'helion'\nModuleNotFoundError: No module named 'absent.part'\n"
    left = play(runner, monkeypatch, (log, {}, 1), ("drive: 1 s done", {"done": True}, 0))
    assert runner.all()[0]["done"] and not left
    assert runner.workplace.stubs == ["absent.part"] and "absent.part" in capsys.readouterr().out
    assert (runner.workplace.site / "absent/part/__init__.py").exists()


def test_the_same_missing_module_twice_is_a_failure(tmp_path, monkeypatch):
    runner = a_run(tmp_path, "--plan", "plain")
    log = "ModuleNotFoundError: No module named 'absent'\n"
    left = play(runner, monkeypatch, (log, {}, 1), (log, {}, -9))
    results = runner.all()
    assert not left and report.status(results, strict=False) == 1 and results[0]["error"] == "exit status -9"


def test_no_time_left(tmp_path, monkeypatch, capsys):
    runner = a_run(tmp_path, "--plan", "plain,eagle", limit=30)
    play(runner, monkeypatch)
    assert report.status(runner.all(), strict=False) == 3
    assert capsys.readouterr().out.count("SKIPPED") == 2


def test_cut_short(tmp_path, monkeypatch):
    runner = a_run(tmp_path, "--plan", "plain", limit=100)
    play(runner, monkeypatch, ("", {"tokens": {"A": tokens()}}, None))
    results = runner.all()
    assert (
        "cut short" in results[0]["skipped"] and results[0]["tokens"] and report.status(results, False) == 3
    )


def test_an_engine_is_ended_in_time(tmp_path, monkeypatch):
    runner = a_run(tmp_path, "--plan", "plain")
    monkeypatch.setattr(sys, "executable", "/bin/sleep")  # which fails at its arguments, at once
    assert runner.start("plain", tmp_path / "log", 30) != 0
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nsleep 60 & wait\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    assert runner.start("plain", tmp_path / "log", 0.2) is None


def test_set_up_makes_a_plugin(tmp_path, monkeypatch):
    make_wheel(tmp_path / "draftmeta-1-cp311-abi3-linux_x86_64.whl", ["draftmeta/__init__.py"])
    make_wheel(tmp_path / "sglang-1-py3-none-any.whl", ["sglang/__init__.py"])
    workplace = run.Workplace(tmp_path / "work")
    workplace.set_up(options(tmp_path, "--wheels", str(tmp_path)))
    assert (workplace.site / "IPython/display/__init__.py").exists()
    monkeypatch.syspath_prepend(str(workplace.plugin))
    from importlib.metadata import entry_points

    (found,) = entry_points(group="sglang.srt.plugins", name="draftmeta_engine")
    assert found.value == "engine.plugin:register"
    path = workplace.environment()["PYTHONPATH"].split(os.pathsep)
    assert path[:2] == [str(workplace.plugin), str(workplace.draftmeta)]


def test_results_are_saved(tmp_path, capsys):
    workplace = run.Workplace(tmp_path / "work")
    for folder in (workplace.logs, workplace.jit):
        folder.mkdir(parents=True)
    chosen = options(tmp_path, "--save-jit")
    run.save(chosen, workplace, "a GPU", [token_result()])
    assert {p.name for p in chosen.out.iterdir()} == {
        "report.md",
        "results.json",
        "logs.tar.xz",
        "jit.tar.xz",
    }
    assert "a GPU" in capsys.readouterr().out


# ---- The drive ----


class FakeHooks:
    """What the plugin's server needs of the hooks."""

    def __init__(self):
        self.state, self.comparison = steps.State(), shadow.Comparison()
        self.program = steps.Program(self.state, lambda: None, lambda path: None)

    def uses(self):
        return self.state.uses.copy()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv(plugin.SOCKET, str(tmp_path / "socket"))
    hooks = FakeHooks()
    plugin.Server(hooks).start()
    return hooks, Client(str(tmp_path / "socket"))


def test_server(server):
    hooks, connection = server

    def ask(command, **arguments):
        connection.send((command, arguments))
        return connection.recv()

    assert ask("set", mode="C", gate=3) == (None, None) and hooks.state.mode == "C" and hooks.state.gate == 3
    hooks.state.times["A", "draft"].append(1000)
    hooks.state.uses["fill_many"] += 2
    answer, error = ask("collect")
    assert not error and answer["times"] == [["A", "draft", [1000]]] and answer["uses"] == {"fill_many": 2}
    assert ask("collect")[0]["uses"] == {}
    assert ask("program", requests=7, segments=[steps.Segment("A", 1, 1)]) == (None, None)
    assert ask("collect")[0]["left"] == 1
    assert "do_nothing" in ask("nothing")[1]


class FakeEngine:
    """Answers from the prompt alone, and runs the plugin's program as a scheduler would."""

    def __init__(self, hooks):
        self.hooks = hooks

    def generate(self, input_ids, sampling_params, rid):
        for _ in range(max(p["max_new_tokens"] for p in sampling_params)):
            self.hooks.program.before_step(len(input_ids))
            if self.hooks.state.counting:
                self.hooks.state.times[self.hooks.state.mode, "draft"].append(5000)
        return [{"output_ids": [ids[0]] * p["max_new_tokens"]} for ids, p in zip(input_ids, sampling_params)]

    def shutdown(self):
        pass


def a_drive(plan, server, tmp_path, monkeypatch):
    hooks, connection = server
    module = types.ModuleType("sglang")
    module.Engine = lambda **arguments: FakeEngine(hooks)
    monkeypatch.setitem(sys.modules, "sglang", module)
    monkeypatch.setattr(drive, "connect", lambda address: connection)
    return drive.Drive(PLANS[plan], tmp_path / "result.json", True)


def test_drive_compares(server, tmp_path, monkeypatch):
    a_drive("eagle", server, tmp_path, monkeypatch).run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["done"] and list(result["tokens"]) == ["A", "A again", "B", "C", "D", "S"]
    assert {entry["differing"] for entry in result["tokens"].values()} == {0}


def test_drive_measures(server, tmp_path, monkeypatch):
    monkeypatch.setattr(drive.trace, "reduce", lambda path: synthetic_trace())
    a_drive("eagle-times", server, tmp_path, monkeypatch).run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["shapes"]) == ["7 x 300", "48 x 3000"]
    assert result["shapes"]["7 x 300"]["host_us"]["D"]["draft"] == [5.0, 5.0, 5.0]
    assert result["shapes"]["7 x 300"]["gpu"]["C"]["draft"]["fills_us"] == 3.5
    assert report.write([result], [])


def test_a_program_that_does_not_end_is_an_error(server, tmp_path, monkeypatch):
    driven = a_drive("plain-times", server, tmp_path, monkeypatch)
    monkeypatch.setattr(
        FakeEngine, "generate", lambda engine, input_ids, **more: [{"output_ids": []}] * len(input_ids)
    )
    with pytest.raises(RuntimeError, match="were not run"):
        driven.run()


def test_no_plugin(tmp_path):
    with pytest.raises(RuntimeError, match="Failed to execute"):
        drive.connect(str(tmp_path / "absent"))


def test_prompts_are_the_same_every_time():
    first, second = Prompts(), Prompts()
    assert first.requests == second.requests and first.new_tokens == second.new_tokens
    assert [len(p) for p in first.requests[:3]] == [5, 17, 63] and len(first.requests) == 64


@pytest.mark.parametrize("plan", PLANS.values(), ids=str)
def test_plans(plan):
    arguments = plan.engine_arguments()
    assert ("dsa_topk_backend" in arguments) != plan.times
    assert ("speculative_algorithm" in arguments) == plan.speculative == ("D" in plan.modes)
    assert os.path.exists(os.path.join(arguments["model_path"], "config.json"))
    assert run.options_of(["--plan", plan.name]).plans == [plan.name]

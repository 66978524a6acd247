#!/usr/bin/env python3
"""draftmeta beside its peers: one command on a machine with an NVIDIA GPU.

    python bench/peers/run.py                                   # fetches the peers from PyPI
    python bench/peers/run.py --wheels build/peers/wheels       # or takes them from fetch.py's folder

Every implementation is checked against a reference before it is timed. Writes results.json, and calls report.py, which
draws everything else from that. --device cpu tries all of it without a GPU; its times mean nothing. Exit status: 0, or
1 where an output was wrong, or with --strict where an aim of what an engine sees was missed."""

import argparse
import datetime
import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import bars
import columns
import ffi
import fetch
import peers
import report
import stages
import timing
import torch
from inputs import TOPK, Batch, Outputs, Pool, Shape, check, poison, traffic
from peers import FULL_SET
from results import Results
from stages import K

BATCHES = 4  # inputs take turns
KNOWN_CALLS = 8  # of a stream: draftmeta launches what repeats one of these as a graph
MINUTES = {"quick": 1.5, "usual": 3.5, "full": 9}
PROBE = """
import sys, torch
import deep_gemm
for tokens in map(int, sys.argv[2:]):
    lens = torch.full((tokens, 1), 1000, dtype=torch.int32, device="cuda")
    deep_gemm.get_paged_mqa_logits_metadata(lens, 64, int(sys.argv[1]))
torch.cuda.synchronize()
"""


class Plan:
    """What is measured: what an engine sees, that and the wider comparison, or all of it; or just enough to try the code."""

    def __init__(self, scale, tiny):
        full = scale == "full"
        self.engine(scale == "quick")
        self.requests = [1, 8, 64, 256, 1024] + ([3, 32, 128, 512] if full else [])
        self.contexts = [8 * K, 64 * K] + ([K, 900 * K] if full else [])
        self.widths = [128 * K, K * K]
        self.some = [1, 8, 64, 256, 1024] if full else [1, 64, 1024]
        self.steps, self.expands, self.seeds = [8, 64, 256], [3, 32, 256, 1024], [32, 256, 1024]
        self.rounds, self.pool_rows, self.cpu_requests = timing.ROUNDS, 1024, 64
        self.calls, self.wall_calls, self.turns = 20, 300, (12, 0.05)
        self.copies = [1 << n for n in range(12, 31, 2)]
        if tiny:
            self.shrink()

    def engine(self, quick):
        """Requests and contexts of what an engine asks. usual_only: only with the tables that a mode has there."""
        self.engine_points = [(1, 300), (8, 300), (48, 3000)]
        self.schedule_points = [(8, 300)] if quick else self.engine_points
        self.large_points = [] if quick else [(256, 4 * K), (64, 64 * K)]
        self.usual_only, self.samples, self.python_point = quick, 60 if quick else 200, (8, 300)

    def shrink(self):
        self.engine_points = self.schedule_points = [(1, 300)]
        self.large_points, self.samples, self.python_point = [], 1, (2, 300)
        self.requests, self.contexts, self.widths = [1, 3], [K], [2 * K, 4 * K]
        self.some, self.steps, self.expands, self.seeds = [1, 3], [3], [3], [5]
        self.rounds, self.pool_rows, self.copies, self.cpu_requests = 1, 8, [4096], 8
        self.calls, self.wall_calls, self.turns = 4, 1, (1, 0)

    def sweep(self, requests):
        """Coarse first, so that a run that is cut short still covers the range."""
        pairs = [(c, w) for c in self.contexts for w in self.widths if c <= w]
        return [Shape(r, c, w, variable) for r in requests for c, w in pairs for variable in (False, True)]


class Run:
    def __init__(self, options):
        self.options, self.start = options, time.monotonic()
        on_gpu = options.device == "cuda"
        self.device, self.clock = options.device, timing.Cuda() if on_gpu else timing.Host()
        self.plan = Plan(options.scale, not on_gpu)
        self.slots = torch.cuda.get_device_properties(0).multi_processor_count if on_gpu else 132
        self.folder = Path(tempfile.mkdtemp(prefix="draftmeta-peers-"))
        os.environ["TRITON_CACHE_DIR"] = str(self.folder / "triton")  # so that first calls compile
        self.results = Results(Path(options.out) / "results.json")
        self.schedules, self.engine_pools = None, {}
        self.load_peers()
        self.load_draftmeta()
        self.allocate()
        self.gpu_times = columns.Device() if on_gpu else columns.Host()

    # ---- Setting up ----

    def load_peers(self):
        self.wheels = self.options.wheels
        if not self.wheels:
            self.wheels = self.folder / "wheels"
            fetch.fetch(self.wheels)
        self.found = fetch.unpack(self.wheels, self.folder / "peers")
        tvm = self.found.get(("apache_tvm_ffi", "0.1.11"))
        if tvm:
            sys.path.insert(0, str(tvm))
        self.probes = {
            v: self.start_probe(v)
            for v in peers.DEEP_GEMM
            if ("sgl_deep_gemm", v) in self.found and self.options.scale != "quick"
        }
        self.sglang = peers.SGLang(self.found["sglang", "0.5.23"])

    def start_probe(self, version):
        """Another process tries DeepGEMM and leaves compiled kernels in its cache, while this one goes on."""
        if self.device != "cuda":
            return None
        path = os.pathsep.join([str(self.found["sgl_deep_gemm", version])] + [p for p in sys.path if p])
        tokens = {r * 4 for r in self.plan.steps}
        tokens |= {r * n for r, _ in self.plan.schedule_points for n in (1, 4)}
        command = [sys.executable, "-c", PROBE, str(self.slots), *map(str, sorted(tokens))]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=pipe, stderr=pipe, text=True
        )

    def probe(self, version):
        process = self.probes.get(version)
        if process is None:
            return False
        try:
            error = process.communicate(timeout=90)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            error = "it took more than 90 seconds"
        if process.returncode != 0:
            last = (error.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            self.results.fail("step", f"sgl-deep-gemm {version}", "loading", RuntimeError(last))
        return process.returncode == 0

    def load_draftmeta(self):
        self.unpack_package()
        try:
            self.python = peers.DraftmetaPython()
        except peers.Missing as error:
            self.python = None
            print(f"without draftmeta's Python package: {error}")
        path = self.options.library or (self.python and self.python.package.library_path())
        path = path or ffi.ROOT / "build/cuda/lib/libdraftmeta.so"
        backend = "cuda" if self.device == "cuda" else "cpu"
        self.library = ffi.Library(path, backend)
        self.cpu_library = self.library if backend == "cpu" else ffi.Library(path, "cpu")
        self.c = peers.Draftmeta(self.library, self.clock)
        self.timer = ffi.HostTimer(Path(self.options.out))

    def unpack_package(self):
        """draftmeta's own wheel, where the folder has one, goes before what is installed, and over the library that is
        named."""
        for wheel in sorted(Path(self.wheels).glob("draftmeta-*.whl"))[-1:]:
            with zipfile.ZipFile(wheel) as source:
                source.extractall(self.folder / "package")
            if self.options.library:
                shutil.copy(self.options.library, self.folder / "package/draftmeta/libdraftmeta.so")
            sys.path.insert(0, str(self.folder / "package"))

    def need_drop_ins(self):
        if not self.python:
            raise peers.Missing(
                "this needs draftmeta's Python package, installed or as a wheel beside the others"
            )
        self.drop_ins = self.python.drop_ins()

    def allocate(self):
        plan = self.plan
        rows = 5 * max(plan.requests)
        self.pool = Pool(plan.pool_rows, max(plan.widths), self.device, self.options.seed)
        self.outputs = Outputs(rows, max(plan.requests), max(plan.widths), self.slots, self.device)

    def engine_pool(self, shape):
        """As an engine has it: as wide as the tables."""
        if shape.width not in self.engine_pools:
            rows = max([65] + [r + 1 for r, c in self.plan.large_points if c <= 8 * K])
            self.engine_pools[shape.width] = Pool(rows, shape.width, self.device, self.options.seed)
        return self.engine_pools[shape.width]

    def batches(self, shape):
        return [Batch(shape, self.pool, self.device, self.options.seed + i) for i in range(BATCHES)]

    def describe_machine(self):
        def version(name):
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return None

        gpu = torch.cuda.get_device_name() if self.device == "cuda" else None
        meta = {"gpu": gpu, "multiprocessors": self.slots, "cpu": cpu_name(), "cores": os.cpu_count()}
        meta.update(driver=output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
        meta.update(python=platform.python_version(), system=platform.platform(), cuda=torch.version.cuda)
        meta.update({name: version(name) for name in ("torch", "triton", "numpy")}, seed=self.options.seed)
        meta.update(torch_threads=torch.get_num_threads(), draftmeta=self.library.version)
        meta.update(
            commit=self.options.commit or git_commit(),
            scale=self.options.scale,
            topk=TOPK,
            kpool=stages.KPOOL,
        )
        meta.update(date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
        meta.update(sweep=len(self.plan.sweep(self.plan.requests)), batches=BATCHES, rounds=self.plan.rounds)
        meta.update(peers=[f"{name} {number}" for name, number in self.found])
        return meta

    # ---- Checking and timing ----

    def seconds_left(self):
        return self.options.minutes * 60 - (time.monotonic() - self.start)

    def checked(self, stage, peer, shape, calls, batches, out, keys, block=1, pool=None, rule=None):
        """Whether every call writes what the reference says; what does not is not timed. rule: schedule_rule's, if it is
        another."""
        try:
            for call, batch in zip(calls, batches):
                poison({key: out[key] for key in keys})
                call()
                self.clock.sync()
                check(shape, batch, pool or self.pool, out, keys, block, *(rule or self.schedule_rule()))
                self.results.checks += 1
            return True
        except Exception as error:  # a peer that fails must not end the run
            self.results.fail(stage, peer, shape, error)
            return False

    def schedule_rule(self):
        """(slots, whether the last slots get the remainder)"""
        return self.slots, self.schedules is None or self.schedules.variant == ffi.SCHEDULE_SM90

    def implementations(self, shape, batches, out):
        """Calls by peer, for one shape of the fused metadata."""
        ours = [self.c.call(self.c.describe(shape, b, self.pool, out)) for b in batches]
        theirs = [self.sglang.bind(shape, b, self.pool, out) for b in batches]
        return {"draftmeta": ours, "SGLang": theirs}

    def good(self, stage, shape, batches, out, calls):
        result = {}
        for peer, functions in calls.items():
            keys, block = (peers.keys_of(shape), self.sglang.block) if peer == "SGLang" else (FULL_SET, 1)
            if self.checked(stage, peer, shape, functions, batches, out, keys, block):
                result[peer] = functions
        return result

    def fused_point(self, stage, shape):
        batches, out = self.batches(shape), self.outputs.view(shape)
        calls = self.good(stage, shape, batches, out, self.implementations(shape, batches, out))
        self.add_graph_times(stage, shape, {**calls, "empty": [self.empty]}, bytes=traffic(shape, batches[0]))

    def add_graph_times(self, stage, shape, calls, **more):
        def failed(peer, error):
            self.results.fail(stage, peer, shape, error)

        times = timing.graph_times(self.clock, calls, self.plan.rounds, failed)
        for peer, (samples, nodes) in times.items():
            self.results.add(stage, peer, "graph_us", samples, shape, nodes=nodes, **more)

    def empty(self):
        peers.empty_kernel[(132,)](self.outputs.schedule, num_warps=8)

    def timers(self, calls, descs):
        """Functions of a number of calls that return microseconds a call; draftmeta's own runs in a loop in C."""
        timers = {peer: functools.partial(timing.calls_us, functions) for peer, functions in calls.items()}
        if "draftmeta" in timers:
            stream = self.clock.stream()
            timers["draftmeta C"] = lambda n: self.timer.us(self.library, descs, stream, n)
            different = ffi.different(descs, KNOWN_CALLS + self.plan.calls)
            timers["draftmeta C, no repeats"] = lambda n: self.timer.us(self.library, different, stream, n)
            del timers["draftmeta"]
        if self.device == "cuda":
            timers["a launch"] = self.launch_us
        return timers

    def add_host_times(self, stage, shape, calls, descs, **more):
        timers, row = self.timers(calls, descs), min(
            2, self.plan.rounds
        )  # the first after a long wait is slower
        samples = timing.host_times(self.clock, timers, self.plan.calls, self.plan.rounds, row)
        for peer, values in samples.items():
            self.results.add(stage, peer, "host_us", values, shape, **more)

    def launch_us(self, calls):
        """The empty kernel, with three pointers, by the driver."""
        kernel = peers.empty_kernel[(132,)](self.outputs.schedule, num_warps=8).function
        return self.timer.launch_us(self.clock.driver, kernel, 132, 256, self.clock.stream(), calls)

    def add_python(self, stage, shape, batches, out, calls, keys, schedule=None):
        """draftmeta by its Python package, if that is here."""
        if self.python:
            fills = [self.python.bind(shape, b, self.pool, out, keys, schedule) for b in batches]
            if self.checked(
                stage, "draftmeta Python", shape, fills, batches, out, [k for k in keys if k in out]
            ):
                calls["draftmeta Python"] = fills

    # ---- All of it ----

    def stages_wanted(self):
        if self.options.only:
            return self.options.only
        return [s.__name__ for s in stages.ENGINE] if self.options.scale == "quick" else list(stages.STAGES)

    def stages_before(self, wanted):
        """What the wanted ones need."""
        before = [stages.first_calls] if any(s.__name__ in wanted for s in stages.WIDER) else []
        schedules = any(name in wanted for name in stages.NEED_SCHEDULES) and self.options.scale != "quick"
        return before + [stages.load_schedules] * schedules

    def run(self):
        self.results.meta = self.describe_machine()
        wanted = self.stages_wanted()
        self.results.skipped += [name for name in stages.STAGES if name not in wanted]
        chosen = [stage for name, stage in stages.STAGES.items() if name in wanted]
        for stage in self.stages_before(wanted) + chosen:
            if self.seconds_left() < 0:
                self.results.skipped.append(f"{stage.__name__}: no time was left")
                continue
            self.run_stage(stage)
        return self.results

    def run_stage(self, stage):
        name, start = stage.__name__, time.monotonic()
        print(f"{name} ...", flush=True)
        try:
            stage(self)
        except Exception as error:  # the other stages' numbers are worth having
            self.results.fail(name, "-", "stage", error)
        seconds = round(time.monotonic() - start, 1)
        self.results.meta.setdefault("seconds", {})[name] = seconds
        print(f"{name}: {seconds} s, {len(self.results.rows)} rows", flush=True)
        self.results.write()


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def git_commit():
    return output_of("git", "-C", str(ffi.ROOT), "describe", "--always", "--dirty", "--exclude", "*")


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheels", help="a folder of the peers' wheels; none is fetched then")
    parser.add_argument("--library", help="libdraftmeta.so [the Python package's, else that of build/cuda]")
    parser.add_argument("--out", default="build/peers", help="where everything is written [%(default)s]")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--quick", action="store_const", dest="scale", const="quick", help="what an engine sees, fewer cases"
    )
    scale.add_argument("--full", action="store_const", dest="scale", const="full", help="the whole sweep")
    parser.add_argument("--minutes", type=float, help="when to stop starting things [3.5; quick 1.5, full 9]")
    parser.add_argument(
        "--only", action="append", choices=stages.STAGES, help="a stage; may be repeated [all]"
    )
    parser.add_argument(
        "--strict", action="store_true", help="a missed aim of what an engine sees is an error"
    )
    parser.add_argument("--commit", help="what the report says of draftmeta's source [git's name of it]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the code")
    parser.set_defaults(scale="usual")
    options = parser.parse_args(given)
    options.minutes = options.minutes or MINUTES[options.scale]
    for name in ("wheels", "library"):
        path = getattr(options, name)
        if path and not Path(path).exists():
            parser.error(f"--{name}: there is no {path}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no NVIDIA GPU here; --device cpu tries the code")
    return options


def status_of(results, data, strict):
    if any(f["kind"] == "mismatch" for f in results.failures):
        return 1
    if not strict:
        return 0
    broken = [f for f in results.failures if f["stage"] in bars.ENGINE_STAGES]
    cut = [what for what in results.skipped if what.split(":")[0] in bars.ENGINE_STAGES and ":" in what]
    failing = bars.failing(data)
    for bar in failing:
        print(f"--strict: {bar.word}: {bar.name}")
    for failure in broken:
        print(f"--strict: {failure['stage']} failed: {failure['at']}")
    for what in cut:
        print(f"--strict: there was no time for {what}")
    return 1 if failing or broken or cut else 0


def main():
    options = arguments()
    with torch.inference_mode():
        results = Run(options).run()
    print(f"{results.checks} checks, {len(results.failures)} failures, {len(results.skipped)} left out")
    data = report.write(results.path, Path(options.out) / "report")
    return status_of(results, data, options.strict)


if __name__ == "__main__":
    sys.exit(main())

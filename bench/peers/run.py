#!/usr/bin/env python3
"""draftmeta beside its peers: one command on a machine with an NVIDIA GPU.

    python bench/peers/run.py                                   # fetches the peers from PyPI
    python bench/peers/run.py --wheels build/peers/wheels       # or takes them from fetch.py's folder

Every implementation is checked against a reference before it is timed. Writes results.json, and calls report.py, which
draws everything else from that. --device cpu tries all of it without a GPU; its times mean nothing."""

import argparse
import collections
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch

import ffi
import fetch
import peers
import report
import seed as seed_versions
import timing
from inputs import PAGE, TOPK, Batch, Mismatch, Outputs, Pool, Shape, check, poison, traffic
from peers import FULL_SET, LENGTHS

K = 1024
KPOOL = 4
BATCHES = 4  # inputs take turns
KNOWN_CALLS = 8  # of a stream: draftmeta launches what repeats one of these as a graph
PROBE = """
import sys, torch
import deep_gemm
for tokens in map(int, sys.argv[2:]):
    lens = torch.full((tokens, 1), 1000, dtype=torch.int32, device="cuda")
    deep_gemm.get_paged_mqa_logits_metadata(lens, 64, int(sys.argv[1]))
torch.cuda.synchronize()
"""


class Plan:
    """What is measured: everything, the quick part, or just enough to try the code."""

    def __init__(self, quick, tiny):
        self.requests = [1, 8, 64, 256, 1024] + ([] if quick else [3, 32, 128, 512])
        self.contexts = [8 * K, 64 * K] if quick else [8 * K, 64 * K, K, 900 * K]
        self.widths = [128 * K, K * K]
        self.some = [1, 64, 1024] if quick else [1, 8, 64, 256, 1024]
        self.steps, self.expands, self.seeds = [8, 64, 256], [3, 32, 256, 1024], [32, 256, 1024]
        self.rounds, self.pool_rows, self.cpu_requests = timing.ROUNDS, 1024, 64
        self.calls, self.wall_calls, self.turns = 20, 300, (12, 0.05)
        self.copies = [1 << n for n in range(12, 31, 2)]
        if tiny:
            self.requests, self.contexts, self.widths = [1, 3], [K], [2 * K, 4 * K]
            self.some, self.steps, self.expands, self.seeds = [1, 3], [3], [3], [5]
            self.rounds, self.pool_rows, self.copies, self.cpu_requests = 1, 8, [4096], 8
            self.calls, self.wall_calls, self.turns = 4, 1, (1, 0)

    def sweep(self, requests):
        """Coarse first, so that a run that is cut short still covers the range."""
        pairs = [(c, w) for c in self.contexts for w in self.widths if c <= w]
        return [Shape(r, c, w, variable) for r in requests for c, w in pairs for variable in (False, True)]


class Results:
    """Rows of raw numbers and what they belong to, written after every stage."""

    def __init__(self, path, meta):
        self.path, self.meta = Path(path), meta
        self.rows, self.failures, self.skipped, self.checks = [], [], [], 0

    def add(self, stage, peer, metric, samples, shape=None, **more):
        row = {"stage": stage, "peer": peer, "metric": metric, "median": float(np.median(samples))}
        if shape:
            row.update(mode=shape.mode, form=shape.form, pool_size=shape.pool_size, requests=shape.requests)
            row.update(context=shape.context, width=shape.width)
        row.update(more, samples=[round(float(s), 4) for s in samples])
        self.rows.append(row)

    def fail(self, stage, peer, what, error):
        kind = "mismatch" if isinstance(error, Mismatch) else "failure"
        self.failures.append(
            {"kind": kind, "stage": stage, "peer": peer, "at": str(what), "error": str(error)[:500]}
        )
        print(f"  {kind}: {stage}, {peer}, {what}: {error}", flush=True)
        if kind == "failure":
            traceback.print_exc()

    def write(self):
        names = ("meta", "checks", "failures", "skipped", "rows")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({name: getattr(self, name) for name in names}))


class Run:
    def __init__(self, options):
        self.options, self.start = options, time.monotonic()
        on_gpu = options.device == "cuda"
        self.device, self.clock = options.device, timing.Cuda() if on_gpu else timing.Host()
        self.plan = Plan(options.quick, not on_gpu)
        self.slots = torch.cuda.get_device_properties(0).multi_processor_count if on_gpu else 132
        self.folder = Path(tempfile.mkdtemp(prefix="draftmeta-peers-"))
        os.environ["TRITON_CACHE_DIR"] = str(self.folder / "triton")  # so that first calls compile
        self.results = Results(Path(options.out) / "results.json", {})
        self.schedules = None
        self.load_peers()
        self.load_draftmeta()
        self.allocate()

    # ---- Setting up ----

    def load_peers(self):
        wheels = self.options.wheels
        if not wheels:
            wheels = self.folder / "wheels"
            fetch.fetch(wheels)
        self.found = fetch.unpack(wheels, self.folder / "peers")
        tvm = self.found.get(("apache_tvm_ffi", "0.1.11"))
        if tvm:
            sys.path.insert(0, str(tvm))
        self.probes = {
            v: self.start_probe(v) for v in ("0.2.5", "0.2.0") if ("sgl_deep_gemm", v) in self.found
        }
        self.sglang = peers.SGLang(self.found["sglang", "0.5.23"])

    def start_probe(self, version):
        """Another process tries DeepGEMM and leaves compiled kernels in its cache, while this one goes on."""
        if self.device != "cuda":
            return None
        path = os.pathsep.join([str(self.found["sgl_deep_gemm", version])] + [p for p in sys.path if p])
        tokens = sorted({r * 4 for r in self.plan.steps})
        command = [sys.executable, "-c", PROBE, str(self.slots), *map(str, tokens)]
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

    def allocate(self):
        plan = self.plan
        rows = 5 * max(plan.requests)
        self.pool = Pool(plan.pool_rows, max(plan.widths), self.device, self.options.seed)
        self.outputs = Outputs(rows, max(plan.requests), max(plan.widths), self.slots, self.device)

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
            commit=self.options.commit or git_commit(), quick=self.options.quick, topk=TOPK, kpool=KPOOL
        )
        meta.update(date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
        meta.update(sweep=len(self.plan.sweep(self.plan.requests)), batches=BATCHES, rounds=self.plan.rounds)
        meta.update(peers=[f"{name} {number}" for name, number in self.found])
        return meta

    # ---- Checking and timing ----

    def seconds_left(self):
        return self.options.minutes * 60 - (time.monotonic() - self.start)

    def checked(self, stage, peer, shape, calls, batches, out, keys, block=1, pool=None):
        """Whether every call writes what the reference says; what does not is not timed."""
        try:
            for call, batch in zip(calls, batches):
                poison({key: out[key] for key in keys})
                call()
                self.clock.sync()
                check(shape, batch, pool or self.pool, out, keys, block, *self.schedule_rule())
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
            keys, block = (self.sglang.keys(shape), self.sglang.block) if peer == "SGLang" else (FULL_SET, 1)
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

    # ---- Stages ----

    def first_calls(self):
        """What the first call of a batch size costs; all kernels are compiled here, none while something is timed."""
        self.empty()
        small = (min(self.plan.contexts), min(self.plan.widths))
        forms = [{}, {"variable": True}]
        shapes = [Shape(r, *small, **form) for form in forms for r in self.plan.requests]
        shapes += [Shape(r, *small, pool_size=KPOOL, **form) for form in forms for r in self.plan.some]
        shapes += [Shape(r, *small, mode=m) for m in ("target-verify", "decode") for r in self.plan.some]
        for shape in shapes:
            out, batch = self.outputs.view(shape), Batch(shape, self.pool, self.device, self.options.seed)
            for peer, calls in self.implementations(shape, [batch], out).items():
                self.results.add(
                    "first", peer, "first_us", [timing.first_call_us(self.clock, calls[0])], shape
                )

    def load_schedules(self):
        """Waits for the probes, so that nothing else runs while something is timed."""
        self.schedules = peers.Schedules(self.found, self.probe)
        self.results.meta["schedule"] = self.schedules.name

    def roofline(self):
        n = max(self.plan.copies)
        source, target = (torch.zeros(n, dtype=torch.uint8, device=self.device) for _ in range(2))
        for size in self.plan.copies:
            copies = [functools.partial(target[:size].copy_, source[:size])]
            self.add_graph_times("roofline", None, {"copy": copies, "empty": [self.empty]}, bytes=2 * size)

    def fused(self):
        """SGLang's fused draft extend, static and variable."""
        for shape in self.plan.sweep(self.plan.requests):
            if self.seconds_left() < 0.35 * 60 * self.options.minutes:  # the other stages need some
                self.results.skipped.append(f"fused: {shape}")
                continue
            self.fused_point("fused", shape)

    def kpool(self):
        pairs = [(c, w) for c in self.plan.contexts[:2] for w in self.plan.widths]
        for variable in (False, True):
            for requests in self.plan.some:
                for context, width in pairs:
                    self.fused_point("kpool", Shape(requests, context, width, variable, pool_size=KPOOL))

    def modes(self):
        """Target verify and decode."""
        for mode in ("target-verify", "decode"):
            for requests in self.plan.some:
                self.fused_point(
                    "modes", Shape(requests, self.plan.contexts[0], self.plan.widths[0], mode=mode)
                )

    def host(self):
        context, width = self.plan.contexts[0], self.plan.widths[0]
        for form in ({}, {"variable": True}, {"pool_size": KPOOL}):
            for requests in self.plan.some:
                shape = Shape(requests, context, width, **form)
                batches, out = self.batches(shape), self.outputs.view(shape)
                calls = self.good("host", shape, batches, out, self.implementations(shape, batches, out))
                self.add_python("host", shape, batches, out, calls, FULL_SET)
                descs = [self.c.describe(shape, b, self.pool, out) for b in batches]
                self.add_host_times("host", shape, calls, descs)

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

    def step(self):
        """All that a replayed step computes before its graph, in one launch here."""
        keys = FULL_SET + ["context_lens", "schedule"]
        schedule = (self.schedules.variant, self.slots)
        for mode in ("draft-extend", "target-verify"):
            for requests in self.plan.steps:
                shape = Shape(requests, self.plan.contexts[0], self.plan.widths[0], mode=mode)
                batches, out = self.batches(shape), self.outputs.view(shape)
                descs = [self.c.describe(shape, b, self.pool, out, keys, schedule) for b in batches]
                of = self.schedules.of
                theirs = [self.sglang.bind_step(shape, b, self.pool, out, of, self.slots) for b in batches]
                calls = {}
                if self.checked(
                    "step", "draftmeta", shape, list(map(self.c.call, descs)), batches, out, keys
                ):
                    calls["draftmeta"] = [self.c.call(d) for d in descs]
                if self.checked("step", "SGLang", shape, theirs, batches, out, keys, self.sglang.block):
                    calls["SGLang"] = theirs
                self.add_graph_times("step", shape, calls)
                self.add_python("step", shape, batches, out, calls, keys, schedule)
                self.add_host_times("step", shape, calls, descs)

    def expand(self):
        """The expanded lengths alone: FlagGems' form of it, and SGLang's own."""
        for requests in self.plan.expands:
            shape = Shape(requests, 32 * K, 32 * K, variable=True)
            batches, keys = self.batches(shape), LENGTHS[:1]
            for batch in batches:
                batch.seq_lens = batch.seq_lens.to(torch.int32)
            out = self.outputs.view(dataclasses.replace(shape, width=min(self.plan.widths)))
            descs = [self.c.describe(shape, b, self.pool, out, keys) for b in batches]
            into = out["seqlens_expanded"]
            calls = {
                "draftmeta": [self.c.call(d) for d in descs],
                "FlagGems' form": [
                    peers.bind_expand(
                        shape, b.extend_lens, b.seq_lens, seed_versions.starts_of(b.extend_lens), into
                    )
                    for b in batches
                ],
            }
            calls = {
                p: c for p, c in calls.items() if self.checked("expand", p, shape, c, batches, out, keys)
            }
            sglang = [
                functools.partial(self.sglang.expand, b.extend_lens, b.seq_lens, b.total, shape.most_tokens)
                for b in batches
            ]
            copied = [lambda f=f, b=b: into[: b.total].copy_(f()) for f, b in zip(sglang, batches)]
            if self.checked("expand", "SGLang", shape, copied, batches, out, keys):
                calls["SGLang"] = sglang
            self.add_graph_times("expand", shape, calls)
            self.add_python("expand", shape, batches, out, calls, keys)
            self.add_host_times("expand", shape, calls, descs)

    def vllm(self):
        """vLLM's flattening of a ragged batch; both get a block table in pages."""
        context, width = self.plan.contexts[0], self.plan.widths[0]
        for requests in self.plan.some:
            shape = Shape(requests, context, width, variable=True)
            batches, out = self.batches(shape), self.outputs.view(shape)
            tables = [(self.pool.view(width)[b.pool_indices, ::PAGE] // PAGE).contiguous() for b in batches]
            flatten = peers.VLLMFlatten(shape.rows, width // PAGE, self.device)
            keys = ["seqlens_expanded", "page_table"]
            descs = [peers.describe_flatten(shape, b, t, out) for b, t in zip(batches, tables)]
            calls = {}
            if self.checked("vllm", "draftmeta", shape, list(map(self.c.call, descs)), batches, out, keys):
                calls["draftmeta"] = [self.c.call(d) for d in descs]
            theirs = {"seqlens_expanded": flatten.seq_lens, "page_table": flatten.table}
            flat = [flatten.bind(b, t) for b, t in zip(batches, tables)]
            if self.checked("vllm", "vLLM", shape, flat, batches, theirs, keys, block=None):
                calls["vLLM"] = flat
            self.add_graph_times("vllm", shape, calls)
            self.add_host_times("vllm", shape, calls, descs)

    def seed(self):
        config = seed_versions.CONFIG
        self.seed_point("the seed's", config["extend_lens"], config["seq_lens"])
        for requests in self.plan.seeds:
            rng = np.random.default_rng([self.options.seed, requests])
            q, kv = rng.integers(1, 6, requests), rng.integers(16 * K, 32 * K, requests)
            self.seed_point(f"{requests} requests", q.tolist(), kv.tolist())

    def seed_point(self, config, extend_list, seq_list):
        shape = Shape(len(extend_list), 32 * K, 32 * K, variable=True)
        batch = Batch(shape, self.pool, self.device, 0)
        batch.replace_lengths(extend_list, seq_list)
        extend, seq = batch.extend_lens, batch.seq_lens
        out = {name: torch.zeros(batch.total, dtype=torch.int32, device=self.device) for name in LENGTHS}
        into, starts, stream = list(out.values()), seed_versions.starts_of(extend), self.clock.stream()
        desc = self.c.describe(shape, batch, self.pool, out, LENGTHS)
        calls = {
            "draftmeta": self.c.call(desc),
            "draftmeta C, waiting": lambda: self.library.fill_and_wait(extend, seq, TOPK, *into, stream),
            "Python loop": lambda: seed_versions.python_loop(extend_list, seq_list, TOPK, *into),
            "Triton and copy": lambda: seed_versions.triton_copy(extend, seq, TOPK, *into),
            "Triton in place": lambda: seed_versions.triton_in_place(extend, seq, TOPK, *into),
            "Triton, its kernel alone": lambda: seed_versions.launch(
                extend, seq, starts, batch.total, TOPK, *into
            ),
        }
        calls = {
            p: [c] for p, c in calls.items() if self.checked("seed", p, shape, [c], [batch], out, LENGTHS)
        }
        self.add_python("seed", shape, [batch], out, calls, LENGTHS)
        alone = ("draftmeta", "Triton, its kernel alone")
        self.add_graph_times("seed", shape, {p: calls[p] for p in alone if p in calls}, config=config)
        timers, samples = self.timers(calls, [desc]), collections.defaultdict(list)
        for _ in range(min(self.plan.rounds, 7)):
            for peer, timer in timers.items():
                long = peer == "Python loop" and len(extend_list) > 10
                count = self.plan.wall_calls // (6 if long else 1) or 1
                samples[peer].append(timing.wall_us(self.clock, timer, count))
        for peer, values in samples.items():
            self.results.add("seed", peer, "wall_us", values, shape, config=config)

    def cpu(self):
        """The same metadata by the CPU's operators, for 64 requests, beside the cpu backend."""
        requests = self.plan.cpu_requests
        pool = Pool(requests, self.plan.widths[0], "cpu", self.options.seed)
        for context in self.plan.contexts[:2]:
            for keys, name in ((LENGTHS, "lengths"), (FULL_SET, "full set")):
                self.cpu_point(Shape(requests, context, self.plan.widths[0], variable=True), pool, keys, name)

    def cpu_point(self, shape, pool, keys, outputs):
        batch = Batch(shape, pool, "cpu", self.options.seed)
        out = Outputs(shape.rows, shape.requests, shape.width, self.slots, "cpu").view(shape)
        out = {key: out[key] for key in keys}
        desc = ffi.describe(**peers.fields_of(shape, batch, pool, out, keys))
        calls = {
            "draftmeta cpu": lambda: self.cpu_library.fill(desc, None),
            "torch CPU": peers.torch_on_cpu(shape, batch, pool, out),
            "NumPy": peers.numpy_on_cpu(shape, batch, pool, out),
        }
        if self.python:
            calls["draftmeta cpu, Python"] = self.python.bind(shape, batch, pool, out, keys)
        calls = {
            p: c
            for p, c in calls.items()
            if self.checked("cpu", p, shape, [c], [batch], out, keys, None, pool)
        }
        timers = {p: functools.partial(timing.calls_us, [c]) for p, c in calls.items()}
        if "draftmeta cpu" in timers:
            timers["draftmeta cpu"] = lambda n: self.timer.us(self.cpu_library, [desc], None, n)
        if "torch CPU" in calls:
            timers["torch CPU, one thread"] = functools.partial(one_thread, calls["torch CPU"])
        samples = timing.host_times(timing.Host(), timers, 8, self.plan.rounds, *self.plan.turns)
        for peer, values in samples.items():
            self.results.add("cpu", peer, "host_us", values, shape, outputs=outputs)

    # ---- All of it ----

    def run(self):
        self.results.meta = self.describe_machine()
        first = [self.first_calls, self.load_schedules]
        stages = first + [self.roofline, self.seed, self.fused, self.host, self.kpool, self.step]
        for stage in stages + [self.modes, self.expand, self.vllm, self.cpu]:
            name = stage.__name__
            wanted = not self.options.only or name in self.options.only or stage in first
            if self.seconds_left() < 0 or not wanted:
                self.results.skipped.append(name)
                continue
            start = time.monotonic()
            try:
                stage()
            except Exception as error:  # the other stages' numbers are worth having
                self.results.fail(name, "-", "stage", error)
            self.results.meta.setdefault("seconds", {})[name] = round(time.monotonic() - start, 1)
            print(f"{name}: {time.monotonic() - start:.1f} s, {len(self.results.rows)} rows", flush=True)
            self.results.write()
        return self.results


def one_thread(call, count):
    """torch's own choice of threads is not always its fastest for small arrays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    us = timing.calls_us([call], count)
    torch.set_num_threads(threads)
    return us


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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheels", help="a folder of the peers' wheels; none is fetched then")
    parser.add_argument("--library", help="libdraftmeta.so [the Python package's, else that of build/cuda]")
    parser.add_argument("--out", default="build/peers", help="where everything is written [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--minutes", type=float, default=5, help="when to stop starting things [%(default)s]")
    parser.add_argument("--only", action="append", help="a stage; may be repeated [all]")
    parser.add_argument("--commit", help="what the report says of draftmeta's source [git's name of it]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the code")
    return parser.parse_args()


def main():
    options = arguments()
    with torch.inference_mode():
        results = Run(options).run()
    print(f"{results.checks} checks, {len(results.failures)} failures, {len(results.skipped)} left out")
    report.write(results.path, Path(options.out) / "report")
    return 1 if any(f["kind"] == "mismatch" for f in results.failures) else 0


if __name__ == "__main__":
    sys.exit(main())

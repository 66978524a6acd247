"""The stages: each measures one thing and adds its rows to the results."""

import collections
import dataclasses
import functools
import itertools

import ffi
import numpy as np
import peers
import seed as seed_versions
import timing
import torch
from columns import prepared_us
from inputs import PAGE, TOPK, Batch, Outputs, Places, Pool, Shape, sizes_of
from peers import FULL_SET, LENGTHS
from results import COLUMNS, OURS, THEIRS

K = 1024
KPOOL = 4
RESERVE_S = 70  # for the stages after the sweep


# ---- What an engine sees --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """What an engine asks for."""

    shape: Shape
    wide: bool  # page_table_1 and the page table; else the latter alone
    schedule: bool = False  # with and without

    @property
    def tables(self):
        return "both tables" if self.wide else "pages"

    def __str__(self):
        shape = self.shape
        form = f" {shape.form}" if shape.mode == "draft-extend" else ""
        return f"{shape.mode}{form} {shape.requests} x {shape.context}, {self.tables}"


def engine_shape(mode, form, requests, context):
    """4 tokens a request; 1 in decode; 1 to 4 where they vary. Tables are as wide as a captured graph's."""
    tokens = 1 if mode == "decode" else 3 if form == "variable" else 4
    width = (8 * K if context <= 8 * K else context) + 71
    return Shape(requests, context, width, form == "variable", tokens, mode=mode)


FORMS = (
    ("decode", "static"),
    ("target-verify", "static"),
    ("draft-extend", "static"),
    ("draft-extend", "variable"),
)


def engine_cases(plan):
    """Both tables, and pages alone; a schedule with the tables that the mode has: decode, without speculation, has
    no page_table_1. Where much is live, pages alone."""
    cases = []
    for wide in (True, False):
        for requests, context in plan.engine_points:
            for mode, form in FORMS:
                usual = wide == (mode != "decode")
                schedule = usual and form == "static" and (requests, context) in plan.schedule_points
                cases.append(Case(engine_shape(mode, form, requests, context), wide, schedule))
    large = [Case(engine_shape(*form, *point), False) for point in plan.large_points for form in FORMS]
    return [c for c in cases if not plan.usual_only or c.wide == (c.shape.mode != "decode")] + large


def columns(run):
    """GPU time of SGLang's kernels and of draftmeta as SGLang calls it: warm, among other code, cold."""
    run.need_drop_ins()
    for case in engine_cases(run.plan):
        if run.seconds_left() < 0:
            run.results.skipped.append(f"columns: {case}")
            continue
        try:
            column_case(run, case)
        except Exception as error:  # the other cases' numbers are worth having
            run.results.fail("columns", "-", case, error)


def column_case(run, case):
    shape, pool = case.shape, run.engine_pool(case.shape)
    batch = Batch(shape, pool, run.device, run.options.seed)
    sides = {}
    for peer, bind, keys, block in sides_of(run, case):
        out = Places(sizes_of(shape, case.wide, run.slots), run.device).take()
        call = bind(shape, batch, pool, out)
        rule = run.schedule_rule() if peer.startswith(THEIRS) else (run.slots, True)
        if run.checked("columns", peer, shape, [call], [batch], out, keys, block, pool, rule):
            sides[peer] = call
    times = run.gpu_times.times(sides, run.plan.samples)
    for peer, columns_of in times.items():
        for column, us in columns_of.items():
            run.results.add("columns", peer, "gpu_us", us, shape, column=column, tables=case.tables)
    medians = {peer: [np.median(of[c]) for c in COLUMNS] for peer, of in times.items()}
    told = [f"{peer} {' / '.join(f'{us:.2f}' for us in medians[peer])}" for peer in medians]
    print(f"  {case}: {'; '.join(told)}", flush=True)


def sides_of(run, case):
    """(peer, how it is bound, what it writes, SGLang's block) of each."""
    keys = peers.keys_of(case.shape, case.wide)
    yield THEIRS, run.sglang.bind, keys, run.sglang.block
    yield OURS, run.drop_ins.bind, keys, 1
    if case.schedule:
        more = [*keys, "context_lens", "schedule"]
        bind = functools.partial(run.drop_ins.bind_step, slots=run.slots)
        yield f"{OURS}, schedule", bind, more, 1
        if run.schedules:
            theirs = functools.partial(run.sglang.bind_step, schedule_of=run.schedules.of, slots=run.slots)
            yield f"{THEIRS}, schedule", theirs, more, run.sglang.block


def python(run):
    """What a call from Python costs the host: SGLang's functions and their drop-ins, with outputs at the same addresses
    and at new ones."""
    run.need_drop_ins()
    for mode, form in FORMS:
        requests, context = run.plan.python_point
        python_case(run, Case(engine_shape(mode, form, requests, context), mode != "decode"))


def at_new_places(bind, shape, batch, pool, places):
    while True:
        yield bind(shape, batch, pool, places.take())


def python_case(run, case):
    shape, pool = case.shape, run.engine_pool(case.shape)
    batch = Batch(shape, pool, run.device, run.options.seed)
    timers = {}
    for peer, bind, keys, block in sides_of(run, case):
        places = Places(sizes_of(shape, case.wide, run.slots), run.device)
        out = places.take()
        same = bind(shape, batch, pool, out)
        if not run.checked("python", peer, shape, [same], [batch], out, keys, block, pool):
            continue
        timers[peer, "same"] = functools.partial(prepared_us, itertools.repeat(same))
        timers[peer, "new"] = functools.partial(prepared_us, at_new_places(bind, shape, batch, pool, places))
    samples = timing.host_times(run.clock, timers, run.plan.calls, run.plan.rounds, min(2, run.plan.rounds))
    for (peer, pointers), us in samples.items():
        run.results.add("python", peer, "host_us", us, shape, pointers=pointers, tables=case.tables)
    told = [f"{peer}, {pointers} {np.median(us):.1f}" for (peer, pointers), us in samples.items()]
    print(f"  {case}: {'; '.join(told)} us", flush=True)


# ---- The wider comparison -------------------------------------------------------------------------------------------


def first_calls(run):
    """What the first call of a batch size costs; all kernels are compiled here, none while something is timed."""
    run.empty()
    small = (min(run.plan.contexts), min(run.plan.widths))
    forms = [{}, {"variable": True}]
    shapes = [Shape(r, *small, **form) for form in forms for r in run.plan.requests]
    shapes += [Shape(r, *small, pool_size=KPOOL, **form) for form in forms for r in run.plan.some]
    shapes += [Shape(r, *small, mode=m) for m in ("target-verify", "decode") for r in run.plan.some]
    for shape in shapes:
        out, batch = run.outputs.view(shape), Batch(shape, run.pool, run.device, run.options.seed)
        for peer, calls in run.implementations(shape, [batch], out).items():
            run.results.add("first", peer, "first_us", [timing.first_call_us(run.clock, calls[0])], shape)


def load_schedules(run):
    """Waits for the probes, so that nothing else runs while something is timed."""
    run.schedules = peers.Schedules(run.found, run.probe)
    run.results.meta["schedule"] = run.schedules.name


def roofline(run):
    n = max(run.plan.copies)
    source, target = (torch.zeros(n, dtype=torch.uint8, device=run.device) for _ in range(2))
    for size in run.plan.copies:
        copies = [functools.partial(target[:size].copy_, source[:size])]
        run.add_graph_times("roofline", None, {"copy": copies, "empty": [run.empty]}, bytes=2 * size)


def fused(run):
    """SGLang's fused draft extend, static and variable."""
    for shape in run.plan.sweep(run.plan.requests):
        if run.seconds_left() < RESERVE_S:
            run.results.skipped.append(f"fused: {shape}")
            continue
        run.fused_point("fused", shape)


def kpool(run):
    pairs = [(c, w) for c in run.plan.contexts[:2] for w in run.plan.widths]
    for variable in (False, True):
        for requests in run.plan.some:
            for context, width in pairs:
                run.fused_point("kpool", Shape(requests, context, width, variable, pool_size=KPOOL))


def modes(run):
    """Target verify and decode."""
    for mode in ("target-verify", "decode"):
        for requests in run.plan.some:
            run.fused_point("modes", Shape(requests, run.plan.contexts[0], run.plan.widths[0], mode=mode))


def host(run):
    context, width = run.plan.contexts[0], run.plan.widths[0]
    for form in ({}, {"variable": True}, {"pool_size": KPOOL}):
        for requests in run.plan.some:
            shape = Shape(requests, context, width, **form)
            batches, out = run.batches(shape), run.outputs.view(shape)
            calls = run.good("host", shape, batches, out, run.implementations(shape, batches, out))
            run.add_python("host", shape, batches, out, calls, FULL_SET)
            descs = [run.c.describe(shape, b, run.pool, out) for b in batches]
            run.add_host_times("host", shape, calls, descs)


def step(run):
    """All that a replayed step computes before its graph, in one launch here."""
    keys = FULL_SET + ["context_lens", "schedule"]
    schedule = (run.schedules.variant, run.slots)
    for mode in ("draft-extend", "target-verify"):
        for requests in run.plan.steps:
            shape = Shape(requests, run.plan.contexts[0], run.plan.widths[0], mode=mode)
            batches, out = run.batches(shape), run.outputs.view(shape)
            descs = [run.c.describe(shape, b, run.pool, out, keys, schedule) for b in batches]
            of = run.schedules.of
            theirs = [run.sglang.bind_step(shape, b, run.pool, out, of, run.slots) for b in batches]
            calls = {}
            if run.checked("step", "draftmeta", shape, list(map(run.c.call, descs)), batches, out, keys):
                calls["draftmeta"] = [run.c.call(d) for d in descs]
            if run.checked("step", "SGLang", shape, theirs, batches, out, keys, run.sglang.block):
                calls["SGLang"] = theirs
            run.add_graph_times("step", shape, calls)
            run.add_python("step", shape, batches, out, calls, keys, schedule)
            run.add_host_times("step", shape, calls, descs)


def expand(run):
    """The expanded lengths alone: FlagGems' form of it, and SGLang's own."""
    for requests in run.plan.expands:
        shape = Shape(requests, 32 * K, 32 * K, variable=True)
        batches, keys = run.batches(shape), LENGTHS[:1]
        for batch in batches:
            batch.seq_lens = batch.seq_lens.to(torch.int32)
        out = run.outputs.view(dataclasses.replace(shape, width=min(run.plan.widths)))
        descs = [run.c.describe(shape, b, run.pool, out, keys) for b in batches]
        into = out["seqlens_expanded"]
        calls = {
            "draftmeta": [run.c.call(d) for d in descs],
            "FlagGems' form": [
                peers.bind_expand(
                    shape, b.extend_lens, b.seq_lens, seed_versions.starts_of(b.extend_lens), into
                )
                for b in batches
            ],
        }
        calls = {p: c for p, c in calls.items() if run.checked("expand", p, shape, c, batches, out, keys)}
        sglang = [
            functools.partial(run.sglang.expand, b.extend_lens, b.seq_lens, b.total, shape.most_tokens)
            for b in batches
        ]
        copied = [lambda f=f, b=b: into[: b.total].copy_(f()) for f, b in zip(sglang, batches)]
        if run.checked("expand", "SGLang", shape, copied, batches, out, keys):
            calls["SGLang"] = sglang
        run.add_graph_times("expand", shape, calls)
        run.add_python("expand", shape, batches, out, calls, keys)
        run.add_host_times("expand", shape, calls, descs)


def vllm(run):
    """vLLM's flattening of a ragged batch; both get a block table in pages."""
    context, width = run.plan.contexts[0], run.plan.widths[0]
    for requests in run.plan.some:
        shape = Shape(requests, context, width, variable=True)
        batches, out = run.batches(shape), run.outputs.view(shape)
        tables = [(run.pool.view(width)[b.pool_indices, ::PAGE] // PAGE).contiguous() for b in batches]
        flatten = peers.VLLMFlatten(shape.rows, width // PAGE, run.device)
        keys = ["seqlens_expanded", "page_table"]
        descs = [peers.describe_flatten(shape, b, t, out) for b, t in zip(batches, tables)]
        calls = {}
        if run.checked("vllm", "draftmeta", shape, list(map(run.c.call, descs)), batches, out, keys):
            calls["draftmeta"] = [run.c.call(d) for d in descs]
        theirs = {"seqlens_expanded": flatten.seq_lens, "page_table": flatten.table}
        flat = [flatten.bind(b, t) for b, t in zip(batches, tables)]
        if run.checked("vllm", "vLLM", shape, flat, batches, theirs, keys, block=None):
            calls["vLLM"] = flat
        run.add_graph_times("vllm", shape, calls)
        run.add_host_times("vllm", shape, calls, descs)


def seed(run):
    config = seed_versions.CONFIG
    seed_point(run, "the seed's", config["extend_lens"], config["seq_lens"])
    for requests in run.plan.seeds:
        rng = np.random.default_rng([run.options.seed, requests])
        q, kv = rng.integers(1, 6, requests), rng.integers(16 * K, 32 * K, requests)
        seed_point(run, f"{requests} requests", q.tolist(), kv.tolist())


def seed_point(run, config, extend_list, seq_list):
    shape = Shape(len(extend_list), 32 * K, 32 * K, variable=True)
    batch = Batch(shape, run.pool, run.device, 0)
    batch.replace_lengths(extend_list, seq_list)
    extend, seq = batch.extend_lens, batch.seq_lens
    out = {name: torch.zeros(batch.total, dtype=torch.int32, device=run.device) for name in LENGTHS}
    into, starts, stream = list(out.values()), seed_versions.starts_of(extend), run.clock.stream()
    desc = run.c.describe(shape, batch, run.pool, out, LENGTHS)
    calls = {
        "draftmeta": run.c.call(desc),
        "draftmeta C, waiting": lambda: run.library.fill_and_wait(extend, seq, TOPK, *into, stream),
        "Python loop": lambda: seed_versions.python_loop(extend_list, seq_list, TOPK, *into),
        "Triton and copy": lambda: seed_versions.triton_copy(extend, seq, TOPK, *into),
        "Triton in place": lambda: seed_versions.triton_in_place(extend, seq, TOPK, *into),
        "Triton, its kernel alone": lambda: seed_versions.launch(
            extend, seq, starts, batch.total, TOPK, *into
        ),
    }
    calls = {p: [c] for p, c in calls.items() if run.checked("seed", p, shape, [c], [batch], out, LENGTHS)}
    run.add_python("seed", shape, [batch], out, calls, LENGTHS)
    alone = ("draftmeta", "Triton, its kernel alone")
    run.add_graph_times("seed", shape, {p: calls[p] for p in alone if p in calls}, config=config)
    timers, samples = run.timers(calls, [desc]), collections.defaultdict(list)
    for _ in range(min(run.plan.rounds, 7)):
        for peer, timer in timers.items():
            long = peer == "Python loop" and len(extend_list) > 10
            count = run.plan.wall_calls // (6 if long else 1) or 1
            samples[peer].append(timing.wall_us(run.clock, timer, count))
    for peer, values in samples.items():
        run.results.add("seed", peer, "wall_us", values, shape, config=config)


def cpu(run):
    """The same metadata by the CPU's operators, for 64 requests, beside the cpu backend."""
    requests = run.plan.cpu_requests
    pool = Pool(requests, run.plan.widths[0], "cpu", run.options.seed)
    for context in run.plan.contexts[:2]:
        for keys, name in ((LENGTHS, "lengths"), (FULL_SET, "full set")):
            cpu_point(run, Shape(requests, context, run.plan.widths[0], variable=True), pool, keys, name)


def cpu_point(run, shape, pool, keys, outputs):
    batch = Batch(shape, pool, "cpu", run.options.seed)
    out = Outputs(shape.rows, shape.requests, shape.width, run.slots, "cpu").view(shape)
    out = {key: out[key] for key in keys}
    desc = ffi.describe(**peers.fields_of(shape, batch, pool, out, keys))
    calls = {
        "draftmeta cpu": lambda: run.cpu_library.fill(desc, None),
        "torch CPU": peers.torch_on_cpu(shape, batch, pool, out),
        "NumPy": peers.numpy_on_cpu(shape, batch, pool, out),
    }
    if run.python:
        calls["draftmeta cpu, Python"] = run.python.bind(shape, batch, pool, out, keys)
    calls = {
        p: c for p, c in calls.items() if run.checked("cpu", p, shape, [c], [batch], out, keys, None, pool)
    }
    timers = {p: functools.partial(timing.calls_us, [c]) for p, c in calls.items()}
    if "draftmeta cpu" in timers:
        timers["draftmeta cpu"] = lambda n: run.timer.us(run.cpu_library, [desc], None, n)
    if "torch CPU" in calls:
        timers["torch CPU, one thread"] = functools.partial(one_thread, calls["torch CPU"])
    samples = timing.host_times(timing.Host(), timers, 8, run.plan.rounds, *run.plan.turns)
    for peer, values in samples.items():
        run.results.add("cpu", peer, "host_us", values, shape, outputs=outputs)


def one_thread(call, count):
    """torch's own choice of threads is not always its fastest for small arrays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    us = timing.calls_us([call], count)
    torch.set_num_threads(threads)
    return us


# ---- In order -------------------------------------------------------------------------------------------------------

ENGINE = (columns, python)
WIDER = (roofline, seed, fused, host, kpool, step, modes, expand, vllm, cpu)
STAGES = {stage.__name__: stage for stage in (*ENGINE, *WIDER)}
NEED_SCHEDULES = ("columns", "step")

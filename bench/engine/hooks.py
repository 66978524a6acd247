"""Puts draftmeta into a running SGLang 0.5.17: its functions are replaced by ones that ask for the mode at every call.

The engine captures its graphs once and replays them in all modes: the buffers, and so the graphs, are the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import draftmeta
import draftmeta.sglang as drop_ins
import sglang.kernels.ops.attention.dsa_metadata as fused
import torch
from sglang.srt.layers.attention import dsa_backend
from sglang.srt.layers.attention.dsa import dsa_backend_mtp_precompute
from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.managers.scheduler_components.request_receiver import SchedulerRequestReceiver
from sglang.srt.model_loader import loader

from . import weights
from .shadow import Comparison, outputs_of, poisoned
from .steps import Gate, Program, State
from .trace import PREFIX

if TYPE_CHECKING:
    from torch import Tensor

Backend = dsa_backend.DeepseekSparseAttnBackend
MultiStep = dsa_backend.DeepseekSparseAttnMultiStepBackend
KINDS = {"decode": "decode", "target_verify": "verify", "draft_extend": "extend"}
MOST_BOUND = 256  # draft steps


class Hooks:
    def __init__(self) -> None:
        self.state, self.comparison = State(), Comparison()
        self.tracer = Tracer()
        self.program = Program(self.state, self.tracer.start, self.tracer.stop)
        self.variant = "sm100" if dsa_backend.is_sm100_supported() else "sm90"
        self.draft_fills = DraftFills(self.variant)

    def install(self) -> None:
        loader.initialize_dummy_weights = weights.fill
        self.switch_fused("fused_dsa_decode_metadata", lambda arguments: 1)
        self.switch_fused("fused_dsa_target_verify_metadata", lambda arguments: arguments["next_n"])
        self.switch_fused("fused_dsa_draft_extend_metadata", lambda arguments: arguments["max_extend_len"])
        self.switch_expand()
        self.switch_steps()
        self.switch_draft()
        self.time_refreshes(Backend, lambda batch: KINDS[mode_of(batch.forward_mode)])
        self.time_refreshes(MultiStep, lambda batch: "draft")
        self.follow_steps()
        self.hold_requests()

    def uses(self) -> Counter[str]:
        """How often each of draftmeta's functions was called."""
        return Counter(drop_ins.calls()) + self.state.uses

    # ---- B: the functions that draftmeta.sglang replaces ----

    def switch_fused(self, name: str, per_request: Callable[[dict[str, Any]], int]) -> None:
        theirs, ours, state = getattr(fused, name), getattr(drop_ins, name), self.state

        def call(**arguments: Any) -> Any:
            if state.mode not in "AS":
                return ours(**arguments)
            theirs(**arguments)
            if state.mode == "S":
                outputs = outputs_of(arguments)
                copies = poisoned(outputs)
                ours(**(arguments | copies))
                sizes = arguments["bs"], per_request(arguments), arguments["real_page_size"]
                self.comparison.step(name, outputs, copies, *sizes)

        setattr(fused, name, call)

    def switch_expand(self) -> None:
        """The lengths of tokens, for steps that are not replayed."""
        theirs, ours, state = dsa_backend.seqlens_expand_triton, drop_ins.seqlens_expand_triton, self.state

        def call(*arguments: Any, **named: Any) -> Tensor:
            if state.mode not in "AS":
                return ours(*arguments, **named)
            result = theirs(*arguments, **named)
            if state.mode == "S":
                self.comparison.same("seqlens_expand_triton", result, ours(*arguments, **named))
            return result

        dsa_backend.seqlens_expand_triton = call
        dsa_backend_mtp_precompute.seqlens_expand_triton = call

    # ---- C: a replayed step in one launch ----

    def switch_steps(self) -> None:
        theirs, state = Backend._apply_cuda_graph_metadata, self.state

        def apply(backend: Any, **arguments: Any) -> Any:
            metadata = backend.decode_cuda_graph_metadata.get(arguments["bs"])
            if metadata is None or state.mode in "AB":
                return theirs(backend, **arguments)
            mode = mode_of(arguments["forward_mode"])
            inputs = arguments["bs"], arguments["req_pool_indices"], arguments["seq_lens"]
            step = step_arguments(backend, metadata, mode, *inputs, self.variant)
            if state.mode == "S":
                theirs(backend, **arguments)
                return self.shadow_step(mode, step)
            drop_ins.dsa_step_metadata(mode, **step)
            finish([backend], step["bs"], step["bs"] * step["next_n"])

        Backend._apply_cuda_graph_metadata = apply

    def shadow_step(self, mode: str, step: dict[str, Any]) -> None:
        outputs = outputs_of(step)
        copies = poisoned(outputs)
        drop_ins.dsa_step_metadata(mode, **(step | copies))
        sizes = step["bs"], step["next_n"], step["physical_page_size"]
        self.comparison.step(f"whole {KINDS[mode]}", outputs, copies, *sizes)

    # ---- D: the draft backends in one launch ----

    def switch_draft(self) -> None:
        theirs, state = MultiStep.init_forward_metadata_out_graph, self.state

        def init(multi: Any, forward_batch: Any, in_capture: bool = False) -> Any:
            if in_capture or state.mode not in "DS":
                return theirs(multi, forward_batch, in_capture)
            bs = forward_batch.batch_size
            inputs = forward_batch.req_pool_indices, forward_batch.seq_lens
            if state.mode == "S":
                theirs(multi, forward_batch, in_capture)
                return self.shadow_draft(multi.attn_backends, bs, *inputs)
            self.draft_fills.fill(multi.attn_backends, bs, *inputs)
            finish(multi.attn_backends, bs, bs)
            state.uses["fill_many"] += 1

        MultiStep.init_forward_metadata_out_graph = init

    def shadow_draft(self, backends: list[Any], bs: int, pool: Tensor, seq_lens: Tensor) -> None:
        steps = [draft_arguments(backend, bs, pool, seq_lens, self.variant) for backend in backends]
        outputs = [outputs_of(step) for step in steps]
        copies = [poisoned(tensors) for tensors in outputs]
        draftmeta.fill_many([draft_fill(step | copy) for step, copy in zip(steps, copies)])
        for i, (theirs, ours) in enumerate(zip(outputs, copies)):
            self.comparison.step(f"draft backend {i}", theirs, ours, bs, 1, steps[i]["physical_page_size"])

    # ---- What is measured ----

    def time_refreshes(self, backend: Any, kind_of: Callable[[Any], str]) -> None:
        """The host time of a refresh, or its range in a trace."""
        inner, state = backend.init_forward_metadata_out_graph, self.state

        def init(this: Any, forward_batch: Any, in_capture: bool = False) -> Any:
            if in_capture or not state.counting:
                return inner(this, forward_batch, in_capture)
            kind = kind_of(forward_batch)
            if state.tracing:
                with torch.profiler.record_function(PREFIX + kind):
                    return inner(this, forward_batch, in_capture)
            start = time.perf_counter_ns()
            inner(this, forward_batch, in_capture)
            state.times[state.mode, kind].append(time.perf_counter_ns() - start)

        backend.init_forward_metadata_out_graph = init

    def follow_steps(self) -> None:
        run_batch, program = Scheduler.run_batch, self.program

        def run(scheduler: Any, batch: Any, *more: Any, **named: Any) -> Any:
            if batch.forward_mode.is_decode():
                program.before_step(len(batch.reqs))
            return run_batch(scheduler, batch, *more, **named)

        Scheduler.run_batch = run

    def hold_requests(self) -> None:
        pull, gate = SchedulerRequestReceiver._pull_raw_reqs, Gate(self.state, TokenizedGenerateReqInput)
        SchedulerRequestReceiver._pull_raw_reqs = lambda receiver: gate.admit(pull(receiver))


class Tracer:
    """PyTorch's profiler over a few steps, everything before them done."""

    def __init__(self) -> None:
        self.profiler: Any = None

    def start(self) -> None:
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self.profiler = torch.profiler.profile(activities=activities)
        self.profiler.start()

    def stop(self, path: str) -> None:
        torch.cuda.synchronize()
        self.profiler.stop()
        self.profiler.export_chrome_trace(path)


class DraftFills:
    """The draft backends' metadata in one launch, bound once for each place that its inputs lie at."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.bound: dict[tuple[int, int, int], list[draftmeta.Fill]] = {}

    def fill(self, backends: list[Any], bs: int, pool: Tensor, seq_lens: Tensor) -> None:
        key = bs, pool.data_ptr(), seq_lens.data_ptr()
        fills = self.bound.get(key)
        if fills is None:
            steps = [draft_arguments(backend, bs, pool, seq_lens, self.variant) for backend in backends]
            fills = [draft_fill(step) for step in steps]
            if len(self.bound) == MOST_BOUND:
                del self.bound[next(iter(self.bound))]
            self.bound[key] = fills
        draftmeta.fill_many(fills)


def mode_of(forward_mode: Any) -> str:
    if forward_mode.is_decode_or_idle():
        return "decode"
    return "target_verify" if forward_mode.is_target_verify() else "draft_extend"


def step_arguments(
    backend: Any, metadata: Any, mode: str, bs: int, pool: Tensor, seq_lens: Tensor, variant: str
) -> dict[str, Any]:
    """What dsa_step_metadata takes, from an attention backend's buffers."""
    decode = mode == "decode"
    return {
        "seq_lens": seq_lens[:bs],
        "req_pool_indices": pool[:bs],
        "req_to_token": backend.req_to_token,
        "cache_seqlens": metadata.cache_seqlens_int32,
        "cu_seqlens_k": metadata.cu_seqlens_k,
        "page_table_1": metadata.page_table_1,
        "dsa_cache_seqlens": metadata.dsa_cache_seqlens_int32,
        "dsa_cu_seqlens_k": metadata.dsa_cu_seqlens_k,
        "real_page_table": metadata.real_page_table,
        "bs": bs,
        "max_len": backend._graph_page_table_width(metadata),
        "dsa_index_topk": backend.dsa_index_topk,
        "physical_page_size": backend.real_page_size,
        "next_n": 1 if decode else backend.speculative_num_draft_tokens,
        "seqlens_expanded": None if decode else metadata.dsa_seqlens_expanded,
        "paged_mqa_ctx_lens_2d": metadata.paged_mqa_ctx_lens_2d,
        "paged_mqa_schedule_metadata": metadata.paged_mqa_schedule_metadata,
        "schedule_variant": variant,
    }


def draft_arguments(backend: Any, bs: int, pool: Tensor, seq_lens: Tensor, variant: str) -> dict[str, Any]:
    metadata = backend.decode_cuda_graph_metadata[bs]
    return step_arguments(backend, metadata, "decode", bs, pool, seq_lens, variant)


def draft_fill(step: dict[str, Any]) -> draftmeta.Fill:
    """A decode step as a fill, of which fill_many takes several."""
    context = step["paged_mqa_ctx_lens_2d"]
    repeats = context.data_ptr() == step["cache_seqlens"].data_ptr()
    same = ("seq_lens", "req_pool_indices", "req_to_token", "cache_seqlens", "cu_seqlens_k", "page_table_1")
    return draftmeta.Fill(
        **{name: step[name] for name in same + ("dsa_cache_seqlens", "dsa_cu_seqlens_k")},
        num_requests=step["bs"],
        extend_len=1,
        topk=step["dsa_index_topk"],
        page_size=step["physical_page_size"],
        page_table=step["real_page_table"],
        context_lens=None if repeats else context,
        schedules=[draftmeta.Schedule(step["paged_mqa_schedule_metadata"], step["schedule_variant"])],
        borrow=True,
    )


def finish(backends: list[Any], bs: int, tokens: int) -> None:
    """What SGLang refreshes at a step besides, as it does: the top-k plan, and FlashMLA's metadata where that runs."""
    flashmla = None
    for backend in backends:
        metadata = backend.decode_cuda_graph_metadata[bs]
        backend.set_dsa_prefill_impl(forward_batch=None)
        backend._refresh_topk_v2_plan(metadata)
        if backend.dsa_decode_impl == "flashmla_kv":
            if flashmla is None:
                lengths = metadata.dsa_cache_seqlens_int32[:tokens]
                flashmla = backend._compute_flashmla_metadata(cache_seqlens=lengths, seq_len_q=1)
            metadata.flashmla_metadata.slice(slice(0, tokens + 1)).copy_(flashmla)
        backend.forward_metadata = metadata

"""The implementations side by side. Each binds a shape, a batch and the outputs into a call without arguments, as an
engine would hold them, so that a call's time is the implementation's own.

vLLM's and the CPU's versions are written from the formulas; SGLang, DeepGEMM and FlagGems are run as published.
"""

import functools
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the CPU's versions do not need it
    triton = None

import ffi
from inputs import PAGE, TOPK

LENGTHS = ["seqlens_expanded", "dsa_cache_seqlens"]
FULL_SET = LENGTHS + ["dsa_cu_seqlens_k", "cache_seqlens", "cu_seqlens_k", "page_table"]
SGLANG_BLOCK = 128  # KV tokens: SGLang writes its page tables in whole blocks


class Missing(Exception):
    """A peer that is not here."""


# ---- SGLang -------------------------------------------------------------------------------------------------------


def import_without_packages(folder, module):
    """Imports one module of a package whose __init__ files, which would import the whole package, are passed over."""
    parents = module.split(".")[:-1]
    for i in range(len(parents)):
        name = ".".join(parents[: i + 1])
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(Path(folder, *parents[: i + 1]))]
            sys.modules[name] = package
    return importlib.import_module(module)


def keys_of(shape, wide=False):
    """What SGLang's fused functions, and so their drop-ins, write."""
    keys = [k for k in FULL_SET if shape.mode != "decode" or k != "seqlens_expanded"]
    return keys + ["page_table_1"] * wide


def arguments_of(shape, batch, pool, out):
    """Of SGLang's fused functions, and of their drop-ins, but for the extend lengths."""
    common = {k: out[k] for k in ("cache_seqlens", "cu_seqlens_k", "dsa_cache_seqlens", "dsa_cu_seqlens_k")}
    common.update(seq_lens=batch.seq_lens, req_pool_indices=batch.pool_indices)
    common.update(req_to_token=pool.view(shape.width), bs=shape.requests)
    common.update(page_table_1=out.get("page_table_1"), real_page_table=out["page_table"])
    common.update(dsa_index_topk=TOPK, physical_page_size=PAGE)
    common["max_len" if shape.mode == "decode" else "max_seqlen_k"] = shape.width
    if shape.pool_size > 1:
        common["index_kpool"] = shape.pool_size
    if shape.mode != "decode":
        common["seqlens_expanded"] = out["seqlens_expanded"]
    if shape.mode == "target-verify":
        common["next_n"] = shape.tokens
    if shape.mode == "draft-extend":
        common.update(total_len=batch.total, max_extend_len=shape.most_tokens, max_total_len=shape.rows)
        common["static_extend_len"] = not shape.variable
    return common


def bind_function(function, shape, batch, pool, out):
    arguments = arguments_of(shape, batch, pool, out)
    if shape.mode == "draft-extend":
        arguments["extend_seq_lens"] = batch.extend_lens
    return functools.partial(function, **arguments)


class SGLang:
    """The fused kernels. Differences that are known: a live prefix is written up to a multiple of 128 KV tokens; with
    fewer tokens than total_len the variable form writes values of request 0 behind them, so it is given the true total
    here; decode writes no seqlens_expanded."""

    block = SGLANG_BLOCK

    def __init__(self, folder):
        dsa = "sglang.kernels.ops.attention.dsa"
        plain = import_without_packages(folder, f"{dsa}.metadata")
        self.plain = {
            "draft-extend": plain.fused_dsa_draft_extend_metadata,
            "target-verify": plain.fused_dsa_target_verify_metadata,
            "decode": plain.fused_dsa_decode_metadata,
        }
        parts = {"draft-extend": "draft_extend", "target-verify": "verify", "decode": "decode"}
        self.kpool = {}
        for mode, part in parts.items():
            module = import_without_packages(folder, f"{dsa}.kpool_metadata.{part}")
            self.kpool[mode] = getattr(module, f"{self.plain[mode].__name__}_kpool")
        self.expand = import_without_packages(
            folder, "sglang.kernels.ops.attention.pad"
        ).seqlens_expand_triton

    def bind(self, shape, batch, pool, out):
        function = (self.kpool if shape.pool_size > 1 else self.plain)[shape.mode]
        return bind_function(function, shape, batch, pool, out)

    def bind_step(self, shape, batch, pool, out, schedule_of, slots):
        """What a replayed step runs before its graph, for a pool of 1, without the top-k plan and FlashMLA's: lengths by
        torch.full, the fused kernel, the schedule into a new tensor and a copy of it, a copy of the context lengths.
        """
        function, arguments = self.plain[shape.mode], arguments_of(shape, batch, pool, out)
        device = batch.seq_lens.device
        lens = out["cache_seqlens" if shape.mode == "decode" else "seqlens_expanded"].view(-1, 1)
        context_lens, schedule = out["context_lens"].view(-1, 1), out["schedule"].view(slots + 1, 2)
        extends = shape.mode == "draft-extend"

        def step():
            if extends:
                arguments["extend_seq_lens"] = torch.full(
                    (shape.requests,), shape.tokens, dtype=torch.int32, device=device
                )
            function(**arguments)
            schedule.copy_(schedule_of(lens, PAGE, slots))
            context_lens.copy_(lens)

        return step


# ---- FlagGems -----------------------------------------------------------------------------------------------------


if triton:

    @triton.jit
    def expand_kernel(extend_lens, seq_lens, starts, out, BLOCK: tl.constexpr):
        """FlagGems' seqlens_expand, written from its description, for 5.0.2 on PyPI does not have it: a program per
        request, given the prefix of the query lengths; one output."""
        request = tl.program_id(0)
        q = tl.load(extend_lens + request)
        first = tl.load(seq_lens + request) - q + 1
        j = tl.arange(0, BLOCK)
        tl.store(out + tl.load(starts + request) + j, tl.maximum(first + j, 0), mask=j < q)

    @triton.jit
    def empty_kernel(unused):
        """With 8 warps on 132 blocks: what a graph's node costs."""


def bind_expand(shape, extend_lens, seq_lens, starts, out):
    block = triton.next_power_of_2(shape.most_tokens)
    return lambda: expand_kernel[(shape.requests,)](extend_lens, seq_lens, starts, out, BLOCK=block)


# ---- The schedule -------------------------------------------------------------------------------------------------


DEEP_GEMM = ("0.2.5", "0.1.5.post1")  # for torch 2.14 and later, and for 2.11


class Schedules:
    """DeepGEMM's get_paged_mqa_logits_metadata: of the first of its versions that loads and computes here; else FlagGems'
    Triton kernel for the same."""

    def __init__(self, found, probe):
        self.name, self.variant = None, ffi.SCHEDULE_SM90
        for version in DEEP_GEMM:
            folder = found.get(("sgl_deep_gemm", version))
            if folder and self.name is None and probe(version):
                sys.path.insert(0, str(folder))
                self.of = importlib.import_module("deep_gemm").get_paged_mqa_logits_metadata
                self.name = f"sgl-deep-gemm {version}"
        if self.name is None:
            self.use_flag_gems(found)

    def use_flag_gems(self, found):
        folder = found.get(("flag_gems", "5.0.2"))
        if not folder:
            raise Missing("neither sgl-deep-gemm nor flag_gems is here")
        module = import_without_packages(folder, "flag_gems.ops.get_paged_mqa_logits_metadata")
        self.of, self.name = (
            module.get_paged_mqa_logits_metadata,
            "FlagGems 5.0.2 (DeepGEMM does not load here)",
        )
        self.variant = ffi.SCHEDULE_SMXX


# ---- vLLM ---------------------------------------------------------------------------------------------------------


class VLLMFlatten:
    """The ragged path of its indexer's metadata, by torch operators: every token becomes a request of one token. It
    copies whole rows of the block table and sets the lengths' tail; draftmeta writes the live columns."""

    def __init__(self, rows, columns, device):
        def zeros(*shape):
            return torch.zeros(*shape, dtype=torch.int32, device=device)

        self.counter = torch.arange(rows, dtype=torch.int32, device=device)
        self.seq_lens, self.decode_lens, self.table = zeros(rows), zeros(rows), zeros(rows, columns)

    def bind(self, batch, block_table):
        """For the flattened form the query lengths' prefix is there already, as in the engine."""
        seq_lens, q, total = batch.seq_lens.to(torch.int32), batch.extend_lens, batch.total
        starts = torch.cumsum(q, 0, dtype=torch.int32) - q
        columns = block_table.shape[1]

        def call():
            base = torch.repeat_interleave(seq_lens - q - starts, q, output_size=total)
            self.seq_lens[:total] = base + self.counter[:total] + 1
            self.seq_lens[total:] = 0
            rows = torch.repeat_interleave(block_table, q, dim=0, output_size=total)
            self.table[:total, :columns] = rows
            self.decode_lens[:total] = 1

        return call


# ---- The CPU ------------------------------------------------------------------------------------------------------


def torch_on_cpu(shape, batch, pool, out):
    """By torch's operators: the lengths, or with a page table the full set; its rows up to the longest request."""
    slots, rows = pool.view(shape.width), batch.pool_indices

    def call():
        q, kv = batch.extend_lens, batch.seq_lens.to(torch.int32)
        ends = torch.cumsum(q, 0)
        request = torch.repeat_interleave(q)
        total = len(request)
        e = (kv - ends + 1)[request] + torch.arange(total)
        e.clamp_(min=0)
        s = e.clamp(max=TOPK)
        out["seqlens_expanded"][:total] = e
        out["dsa_cache_seqlens"][:total] = s
        if "page_table" not in out:
            return
        out["dsa_cu_seqlens_k"][0] = 0
        out["dsa_cu_seqlens_k"][1 : total + 1] = torch.cumsum(s, 0)
        out["cache_seqlens"][:] = kv
        out["cu_seqlens_k"][0] = 0
        out["cu_seqlens_k"][1:] = torch.cumsum(kv, 0)
        pages = slots[rows, : int(kv.max()) : PAGE] // PAGE
        out["page_table"][:total, : pages.shape[1]] = pages[request]

    return call


def numpy_on_cpu(shape, batch, pool, out):
    """The same by NumPy's."""
    slots, rows = pool.view(shape.width).numpy(), batch.pool_indices.numpy()
    out = {name: buffer.numpy() for name, buffer in out.items()}
    q, seq_lens = batch.extend_lens.numpy(), batch.seq_lens.numpy()

    def call():
        kv = seq_lens.astype(np.int32)
        ends = np.cumsum(q)
        request = np.repeat(np.arange(len(q)), q)
        total = len(request)
        e = np.maximum((kv - ends + 1)[request] + np.arange(total), 0)
        s = np.minimum(e, TOPK)
        out["seqlens_expanded"][:total] = e
        out["dsa_cache_seqlens"][:total] = s
        if "page_table" not in out:
            return
        out["dsa_cu_seqlens_k"][0] = 0
        np.cumsum(s, out=out["dsa_cu_seqlens_k"][1 : total + 1])
        out["cache_seqlens"][:] = kv
        out["cu_seqlens_k"][0] = 0
        np.cumsum(kv, out=out["cu_seqlens_k"][1:])
        pages = slots[rows, : kv.max() : PAGE] // PAGE
        out["page_table"][:total, : pages.shape[1]] = pages[request]

    return call


# ---- draftmeta ----------------------------------------------------------------------------------------------------


def fields_of(shape, batch, pool, out, keys):
    """The descriptor's fields, but for a schedule, by their names in dm_fill_desc."""
    fields = {
        "num_requests": shape.requests,
        "seq_lens": batch.seq_lens,
        "topk": TOPK,
        "pool_size": shape.pool_size,
    }
    if shape.variable:
        fields["extend_lens"] = batch.extend_lens
    else:
        fields["extend_len"] = 1 if shape.mode == "decode" else shape.tokens
    if shape.mode == "target-verify":
        fields["seq_len_bias"] = shape.tokens
    if "page_table" in keys:
        fields.update(
            req_to_token=pool.view(shape.width), req_pool_indices=batch.pool_indices, page_size=PAGE
        )
    fields.update({key: out[key] for key in keys if key != "schedule"})
    return fields


def describe_flatten(shape, batch, block_table, out):
    """What vLLM's flattening needs of a descriptor."""
    fields = {"num_requests": shape.requests, "seq_lens": batch.seq_lens, "extend_lens": batch.extend_lens}
    fields.update(block_table=block_table, page_size=PAGE)
    return ffi.describe(seqlens_expanded=out["seqlens_expanded"], page_table=out["page_table"], **fields)


class Draftmeta:
    """By its C interface."""

    block = 1

    def __init__(self, library, clock):
        self.library, self.clock = library, clock

    def describe(self, shape, batch, pool, out, keys=FULL_SET, schedule=None):
        wanted = (out["schedule"], *schedule) if schedule else None
        return ffi.describe(wanted, **fields_of(shape, batch, pool, out, keys))

    def call(self, desc):
        """For captures and checks; on the stream that is current when it is called."""
        return lambda: self.library.fill(desc, self.clock.stream())


class DraftmetaPython:
    """By its Python package."""

    def __init__(self):
        try:
            self.package = importlib.import_module("draftmeta")
        except ImportError as error:
            raise Missing(f"the Python package draftmeta: {error}") from error

    def drop_ins(self):
        return DropIns(importlib.import_module("draftmeta.sglang"))

    def bind(self, shape, batch, pool, out, keys=FULL_SET, schedule=None):
        fields = fields_of(shape, batch, pool, out, keys)
        if schedule:
            name = {ffi.SCHEDULE_SM90: "sm90", ffi.SCHEDULE_SMXX: "smxx"}[schedule[0]]
            fields["schedules"] = [self.package.Schedule(out["schedule"], name, "token", schedule[1])]
        return self.package.Fill(**fields)


class DropIns:
    """draftmeta.sglang, as SGLang calls it: its own functions' names and arguments."""

    def __init__(self, module):
        self.step = module.dsa_step_metadata
        self.functions = {
            mode: getattr(module, f"fused_dsa_{mode.replace('-', '_')}_metadata")
            for mode in ("draft-extend", "target-verify", "decode")
        }

    def bind(self, shape, batch, pool, out):
        return bind_function(self.functions[shape.mode], shape, batch, pool, out)

    def bind_step(self, shape, batch, pool, out, slots):
        """The same with context lengths and a schedule."""
        arguments = arguments_of(shape, batch, pool, out)
        for name in ("total_len", "max_extend_len", "max_total_len", "static_extend_len"):
            arguments.pop(name, None)
        if shape.mode != "decode":
            arguments["max_len"] = arguments.pop("max_seqlen_k")
        arguments["next_n"] = shape.tokens
        arguments["paged_mqa_ctx_lens_2d"] = out["context_lens"].view(-1, 1)
        arguments["paged_mqa_schedule_metadata"] = out["schedule"].view(slots + 1, 2)
        return functools.partial(self.step, shape.mode.replace("-", "_"), **arguments)

"""draftmeta.sglang against a naive reference, and against SGLang's own kernels where they are at hand.

The latter need an unpacked wheel of SGLang 0.5.23 in DRAFTMETA_SGLANG and triton, and on the host TRITON_INTERPRET=1.
"""

import os
import random
import re
import subprocess
import sys

import pytest
from engines import POISON, ceil_div, ints, load, poisoned, schedule, torch

from draftmeta import Error
from draftmeta import sglang as dsa

pytestmark = pytest.mark.usefixtures("device")

ROWS, WIDTH = 9, 300


class Step:
    """Inputs, and poisoned outputs, of a step with the given query lengths."""

    def __init__(self, lengths, queries, page=64, topk=100, kpool=1, seed=1, dtype=torch.int64):
        draw = random.Random(seed)
        self.queries, self.page, self.topk, self.kpool = queries, page, topk, kpool
        self.lengths = lengths
        self.bs, self.tokens = len(lengths), sum(queries)
        self.seq_lens = ints(*lengths, dtype=dtype)
        self.pool = ints(*(draw.randrange(ROWS) for _ in lengths), dtype=torch.int64)
        pages = torch.randperm(
            ROWS * WIDTH, generator=torch.Generator("cpu").manual_seed(seed), device="cpu"
        )[: ROWS * ceil_div(WIDTH, 64)].view(ROWS, -1)
        slots = pages.to(self.pool.device).repeat_interleave(64, 1)[:, :WIDTH] * 64 + torch.arange(WIDTH) % 64
        self.req_to_token = slots.int().contiguous()
        self.outputs = dict(
            cache_seqlens=poisoned(self.bs + 1),
            cu_seqlens_k=poisoned(self.bs + 2),
            page_table_1=poisoned(self.tokens + 1, WIDTH + 3),
            seqlens_expanded=poisoned(self.tokens + 1),
            dsa_cache_seqlens=poisoned(self.tokens + 1),
            dsa_cu_seqlens_k=poisoned(self.tokens + 2),
            real_page_table=poisoned(self.tokens + 1, ceil_div(WIDTH, page) + 2),
        )

    def arguments(self, *without):
        given = dict(
            seq_lens=self.seq_lens,
            req_pool_indices=self.pool,
            req_to_token=self.req_to_token,
            bs=self.bs,
            dsa_index_topk=self.topk,
        )
        return given | {name: out for name, out in self.outputs.items() if name not in without}

    def expected(self, columns=WIDTH, bias=0, expanded=True, wide=True, rounded=False):
        """What a kernel makes of the outputs. rounded: it goes on to whole blocks of 128 columns, as SGLang's do."""
        want = {name: torch.full_like(out, POISON) for name, out in self.outputs.items()}
        prefix_k = prefix_dsa = t = 0
        want["cu_seqlens_k"][0] = want["dsa_cu_seqlens_k"][0] = 0
        for r, (length, q) in enumerate(zip(self.lengths, self.queries)):
            kv = length + bias
            prefix_k += kv
            want["cache_seqlens"][r], want["cu_seqlens_k"][r + 1] = kv, prefix_k
            for j in range(q):
                e = max(0, kv - q + 1 + j)
                kept = min(e - e % self.kpool, self.topk) + e % self.kpool
                prefix_dsa += kept
                want["seqlens_expanded"][t] = e if expanded else POISON
                want["dsa_cache_seqlens"][t], want["dsa_cu_seqlens_k"][t + 1] = kept, prefix_dsa
                live = min(ceil_div(kv, 128) * 128 if rounded else kv, columns)
                row = self.req_to_token[self.pool[r], :live]
                if wide:
                    want["page_table_1"][t, :live] = row
                if self.page > 1:
                    want["real_page_table"][t, : ceil_div(live, self.page)] = row[:: self.page] // self.page
                t += 1
        return want

    def check(self, **how):
        for name, want in self.expected(**how).items():
            assert torch.equal(self.outputs[name], want), name


# Every residue of the pool, lengths below the queries, at a page's and a block's border, and at the table's end.
LENGTHS = [1, 65, 128, 129, 300, 64, 7]


def decode(step, module=dsa, suffix="", columns=WIDTH, **more):
    function = getattr(module, "fused_dsa_decode_metadata" + suffix)
    function(**step.arguments("seqlens_expanded"), max_len=columns, physical_page_size=step.page, **more)


def verify(step, module=dsa, suffix="", columns=WIDTH, **more):
    function = getattr(module, "fused_dsa_target_verify_metadata" + suffix)
    n = step.queries[0]
    function(**step.arguments(), max_seqlen_k=columns, physical_page_size=step.page, next_n=n, **more)


def extend(step, module=dsa, suffix="", columns=WIDTH, **more):
    function = getattr(module, "fused_dsa_draft_extend_metadata" + suffix)
    queries = ints(*step.queries)
    sizes = dict(total_len=step.tokens, max_extend_len=max(step.queries), max_total_len=step.tokens + 5)
    function(
        **step.arguments(),
        extend_seq_lens=queries,
        max_seqlen_k=columns,
        physical_page_size=step.page,
        **(sizes | more),
    )


@pytest.mark.parametrize("page", [1, 16, 64])
@pytest.mark.parametrize("columns", [WIDTH, 130])
def test_decode(page, columns):
    step = Step(LENGTHS, [1] * 7, page)
    decode(step, columns=columns)
    step.check(expanded=False, columns=columns)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_target_verify(n):
    lengths = [max(0, length - n) for length in LENGTHS]
    step = Step(lengths, [n] * 7)
    context = poisoned(7, n)
    verify(step, paged_mqa_ctx_lens_2d=context)
    step.check(bias=n)
    assert context.tolist() == [[length + n] * n for length in lengths]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_draft_extend(dtype):
    step = Step(LENGTHS, [2, 0, 5, 1, 3, 1, 9], dtype=dtype)
    extend(step)
    step.check()


def test_draft_extend_of_one_length_needs_no_tensor():
    step = Step(LENGTHS, [3] * 7)
    function = dsa.fused_dsa_draft_extend_metadata
    sizes = dict(total_len=21, max_extend_len=3, max_total_len=21)
    function(
        **step.arguments(),
        extend_seq_lens=None,
        max_seqlen_k=WIDTH,
        physical_page_size=64,
        static_extend_len=True,
        **sizes,
    )
    step.check()


def test_draft_extend_drops_what_is_beyond_total_len():
    step, whole = Step(LENGTHS, [2, 3, 1, 1, 1, 1, 1]), Step(LENGTHS, [2, 3, 1, 1, 1, 1, 1])
    extend(step, total_len=4)
    extend(whole)
    for name in ("seqlens_expanded", "dsa_cache_seqlens", "page_table_1", "real_page_table"):
        assert torch.equal(step.outputs[name][:4], whole.outputs[name][:4]), name
        assert (step.outputs[name][4:] == POISON).all(), name
    assert torch.equal(step.outputs["dsa_cu_seqlens_k"][:5], whole.outputs["dsa_cu_seqlens_k"][:5])
    assert (step.outputs["dsa_cu_seqlens_k"][5:] == POISON).all()
    assert torch.equal(step.outputs["cache_seqlens"], whole.outputs["cache_seqlens"])


def test_tokens_behind_the_last_have_no_length():
    step = Step(LENGTHS, [2, 3, 1, 1, 1, 1, 1])
    outputs = {name: step.outputs[name] for name in ("seqlens_expanded", "dsa_cache_seqlens")}
    step.queries = [1, 3, 1, 1, 1, 1, 1]
    extend(step, total_len=10)
    assert all(out[9] == 0 and out[10] == POISON for out in outputs.values())
    assert step.outputs["dsa_cu_seqlens_k"][10] == step.outputs["dsa_cu_seqlens_k"][9]


@pytest.mark.parametrize("kpool", [2, 4, 64])
def test_kpool(kpool):
    step = Step(LENGTHS, [1] * 7, topk=64, kpool=kpool)
    decode(step, suffix="_kpool", index_kpool=kpool)
    step.check(expanded=False)
    step = Step(LENGTHS, [3] * 7, topk=64, kpool=kpool)
    verify(step, suffix="_kpool", index_kpool=kpool, columns=WIDTH)
    step.check(bias=3)
    step = Step(LENGTHS, [4, 2, 70, 1, 1, 0, 7], topk=64, kpool=kpool)
    extend(step, suffix="_kpool", index_kpool=kpool)
    step.check()


def test_no_requests_and_no_tokens():
    step = Step([], [])
    decode(step)
    step.check()
    step = Step([], [])
    dsa.fused_dsa_target_verify_metadata(
        **step.arguments(), max_seqlen_k=WIDTH, physical_page_size=64, next_n=2
    )
    step.check()
    step = Step([5, 6], [0, 0])
    extend(step, max_extend_len=1)
    step.check()


def test_the_wide_table_may_be_left_out():
    step = Step(LENGTHS, [1] * 7)
    arguments = step.arguments("seqlens_expanded") | dict(page_table_1=None)
    dsa.fused_dsa_decode_metadata(**arguments, max_len=WIDTH, real_page_size=64)
    step.check(expanded=False, wide=False)


def test_seqlens_expand():
    got = dsa.seqlens_expand_triton(ints(2, 3, 5), ints(10, 15, 3), 12, 5)
    assert got.tolist() == [9, 10, 13, 14, 15, 0, 0, 1, 2, 3, 0, 0]
    assert got.dtype == torch.int32


def test_wrong_arguments():
    step = Step(LENGTHS, [1] * 7)
    with pytest.raises(ValueError, match="real_page_table must be given"):
        arguments = step.arguments("seqlens_expanded") | dict(real_page_table=None)
        dsa.fused_dsa_decode_metadata(**arguments, max_len=WIDTH, physical_page_size=64)
    with pytest.raises(ValueError, match="physical_page_size is None"):
        dsa.fused_dsa_decode_metadata(**step.arguments("seqlens_expanded"), max_len=WIDTH)
    with pytest.raises(ValueError, match="8 rows: at least 14"):
        step.queries = [2] * 7
        verify(step)
    with pytest.raises(ValueError, match="has 0 tokens"):
        dsa.fused_dsa_target_verify_metadata(
            **step.arguments(), max_seqlen_k=1, physical_page_size=64, next_n=0
        )
    with pytest.raises(ValueError, match="mode is 'prefill'"):
        dsa.dsa_step_metadata(
            "prefill", **step.arguments("seqlens_expanded"), max_len=1, physical_page_size=1
        )
    step.outputs["cache_seqlens"] = poisoned(3)
    with pytest.raises(Error, match="cache_seqlens"):
        decode(step)


# ---- A whole step ----


def whole_step(step, mode, n, **more):
    without = ("seqlens_expanded",) if mode == "decode" else ()
    sizes = dict(max_len=WIDTH, physical_page_size=step.page, next_n=n, index_kpool=step.kpool)
    dsa.dsa_step_metadata(mode, **step.arguments(*without), **sizes, **more)


@pytest.mark.parametrize("variant", ["sm90", "sm100"])
@pytest.mark.parametrize("mode, n", [("decode", 1), ("target_verify", 3), ("draft_extend", 3)])
def test_a_whole_step(mode, n, variant):
    step = Step([1, 600, 3000, 0, 300], [n] * 5, topk=512)
    entries, bias = poisoned(14, 2), n if mode == "target_verify" else 0
    by_request = mode == "target_verify" and variant == "sm100"
    context = poisoned(5, n) if by_request else poisoned(5 * n, 1)
    whole_step(
        step,
        mode,
        n,
        paged_mqa_ctx_lens_2d=context,
        paged_mqa_schedule_metadata=entries,
        schedule_variant=variant,
    )
    step.check(bias=bias, expanded=mode != "decode")
    totals = [length + bias for length in step.lengths]
    each = [max(0, total - n + 1 + j) for total in totals for j in range(n)]
    assert context.flatten().tolist() == ([t for t in totals for _ in range(n)] if by_request else each)
    assert torch.equal(entries, schedule(totals if by_request else each, n if by_request else 1, 13, variant))


@pytest.mark.parametrize("mode, n", [("decode", 1), ("target_verify", 3)])
def test_context_lengths_may_be_a_view_of_what_they_repeat(mode, n):
    step = Step([600, 3000], [n, n])
    entries, bias = poisoned(5, 2), n if mode == "target_verify" else 0
    view = step.outputs["cache_seqlens" if mode == "decode" else "seqlens_expanded"][: 2 * n].view(-1, 1)
    whole_step(step, mode, n, paged_mqa_ctx_lens_2d=view, paged_mqa_schedule_metadata=entries)
    step.check(expanded=mode != "decode", bias=bias)
    assert torch.equal(entries, schedule(view.flatten().tolist(), 1, 4, "sm90"))


# ---- Layouts ----

NAMES = ("fused_dsa_decode_metadata", "fused_dsa_target_verify_metadata", "fused_dsa_draft_extend_metadata")


def binds():
    return {name: function.binds for name, function in dsa._calls.functions.items()}


def anew(step):
    """The same buffers elsewhere, as an engine allocates them at each step."""
    step.before = {name: out for name, out in step.outputs.items()}
    step.outputs = {name: torch.full_like(out, POISON) for name, out in step.outputs.items()}


def test_other_buffers_of_the_same_layout_bind_nothing():
    steps = [(decode, [1] * 7, 0), (verify, [3] * 7, 3), (extend, [2, 0, 5, 1, 3, 1, 9], 0)]
    for name, (run, queries, bias) in zip(NAMES, steps):
        step = Step([max(0, length - bias) for length in LENGTHS], queries)
        run(step)
        bound, called = binds(), dsa.calls()[name]
        for _ in range(5):
            anew(step)
            run(step)
            step.check(bias=bias, expanded=run is not decode)
        assert binds() == bound
        assert dsa.calls()[name] == called + 5


def test_other_inputs_of_the_same_layout_bind_nothing():
    decode(Step(LENGTHS, [1] * 7))
    bound = binds()
    for seed in range(5):
        step = Step([(length + seed) % WIDTH for length in LENGTHS], [1] * 7, seed=seed)
        decode(step)
        step.check(expanded=False)
    assert binds() == bound


def test_the_buffers_before_are_left_alone():
    step = Step(LENGTHS, [1] * 7)
    decode(step)
    anew(step)
    for out in step.before.values():
        out.fill_(POISON)
    decode(step)
    assert all((out == POISON).all() for out in step.before.values())


def test_a_whole_step_of_new_buffers_binds_nothing():
    for n, repeated in ((3, True), (3, False), (1, True)):
        mode, bias = ("target_verify", n) if n > 1 else ("decode", 0)
        for turn in range(4):
            step, entries = Step([600, 3000], [n, n]), poisoned(5, 2)
            lengths = step.outputs["cache_seqlens" if n == 1 else "seqlens_expanded"][: 2 * n].view(-1, 1)
            context = lengths if repeated else poisoned(2 * n, 1)
            whole_step(step, mode, n, paged_mqa_ctx_lens_2d=context, paged_mqa_schedule_metadata=entries)
            bound = binds() if turn == 0 else bound
            step.check(expanded=n > 1, bias=bias)
            assert torch.equal(context, lengths)
            assert torch.equal(entries, schedule(lengths.flatten().tolist(), 1, 4, "sm90"))
        assert binds() == bound


def test_expanded_lengths_bind_once():
    def expanded(*lengths):
        got = dsa.seqlens_expand_triton(ints(2, 3, 5), ints(*lengths), 10, 5)
        assert got.tolist() == [max(0, k - q + 1 + j) for k, q in zip(lengths, (2, 3, 5)) for j in range(q)]
        return got

    kept = [expanded(10, 15, 3)]
    bound = binds()
    kept += [expanded(10 + i, 15, i) for i in range(10)]
    assert binds() == bound


def test_what_is_used_is_not_dropped():
    """A layout between twice as many others as are kept; bs and topk count as layout."""
    function = dsa._calls.functions["fused_dsa_decode_metadata"]
    often, once = Step(LENGTHS, [1] * 7, topk=99), Step(LENGTHS, [1] * 7, topk=98)
    decode(once)
    decode(often)
    other = Step(LENGTHS, [1] * 7)
    for i in range(2 * dsa._bound.LIMIT):
        other.topk = 1000 + i
        decode(other)
        if i % 500 == 0:
            decode(often)
    before = function.binds
    anew(often)
    decode(often)
    often.check(expanded=False)
    assert function.binds == before
    assert function.kept == dsa._bound.LIMIT
    decode(once)
    assert function.binds == before + 1


def test_another_type_at_the_same_address():
    step, memory = Step(LENGTHS, [1] * 7), torch.zeros(7, dtype=torch.int64)
    for dtype in (torch.int64, torch.int32):
        step.seq_lens = memory.view(dtype)[:7].copy_(ints(*LENGTHS))
        decode(step)
        step.check(expanded=False)


def test_other_strides_at_the_same_address():
    step, memory = Step(LENGTHS, [1] * 7), poisoned(8 * (WIDTH + 40))
    for gap in (3, 40):
        step.outputs["page_table_1"] = memory.fill_(POISON).view(8, WIDTH + 40)[:, : WIDTH + 3]
        if gap == 3:
            step.outputs["page_table_1"] = memory[: 8 * (WIDTH + 3)].view(8, WIDTH + 3)
        decode(step)
        step.check(expanded=False)


def test_another_shape_at_the_same_address():
    step = Step(LENGTHS, [1] * 7)
    decode(step)
    step.outputs["cache_seqlens"] = step.outputs["cache_seqlens"][:3]
    with pytest.raises(Error, match="cache_seqlens"):
        decode(step)


def test_buffers_are_not_kept():
    import weakref

    dead = []
    for seed in range(8):
        step = Step(LENGTHS, [1] * 7, seed=seed)
        decode(step)
        step.check(expanded=False)
        dead += [weakref.ref(step.seq_lens), weakref.ref(step.outputs["page_table_1"])]
        del step
    assert not any(ref() is not None for ref in dead)


SAYS = """
import torch
from draftmeta import sglang
for _ in range(2):
    sglang.seqlens_expand_triton(torch.ones(1).int(), torch.ones(1).int(), 1, 1)
    print(sglang.calls())
"""


@pytest.mark.parametrize("verbose", ["1", "0"])
def test_it_says_that_it_is_in_use(verbose):
    environment = os.environ | {"DRAFTMETA_VERBOSE": verbose}
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, env=environment)
    said = re.findall(
        r"^draftmeta.sglang.seqlens_expand_triton is in use, on cpu:0, process \d+$", done.stderr, re.M
    )
    assert len(said) == int(verbose)
    assert done.stdout.splitlines() == [f"{{'seqlens_expand_triton': {n}}}" for n in (1, 2)]


# ---- Against SGLang ----

KERNELS = "sglang/kernels/ops/attention/"


def peer(name):
    if name == "":
        return load("DRAFTMETA_SGLANG", KERNELS + "dsa/metadata.py")
    folder = KERNELS + "dsa/kpool_metadata/"
    scan = load("DRAFTMETA_SGLANG", folder + "scan.py")
    return load(
        "DRAFTMETA_SGLANG",
        folder + name,
        **{"sglang__kernels__ops__attention__dsa__kpool_metadata__scan": scan},
    )


CASES = [
    ("", "", decode, [1] * 7, 0, {}),
    ("", "", verify, [3] * 7, 3, {}),
    ("", "", extend, [2, 0, 5, 1, 3, 1, 9], 0, {}),
    ("", "", extend, [3] * 7, 0, dict(static_extend_len=True)),
    ("decode.py", "_kpool", decode, [1] * 7, 0, dict(index_kpool=4)),
    ("verify.py", "_kpool", verify, [3] * 7, 3, dict(index_kpool=4)),
    ("draft_extend.py", "_kpool", extend, [2, 0, 5, 1, 3, 1, 9], 0, dict(index_kpool=4)),
]


@pytest.mark.parametrize("file, suffix, run, queries, bias, more", CASES)
@pytest.mark.parametrize("page", [1, 64])
def test_as_sglang_does(file, suffix, run, queries, bias, more, page):
    theirs = peer(file)
    lengths = [max(0, length - bias) for length in LENGTHS]
    steps = [Step(lengths, queries, page, kpool=more.get("index_kpool", 1)) for _ in range(2)]
    run(steps[0], **more, suffix=suffix)
    run(steps[1], theirs, **more, suffix=suffix)
    how = dict(bias=bias, expanded=run is not decode)
    steps[0].check(**how)
    steps[1].check(**how, rounded=True)


def test_expanded_as_sglang_does():
    theirs = load("DRAFTMETA_SGLANG", KERNELS + "pad.py")
    arguments = ints(2, 3, 5), ints(10, 15, 3), 10, 5
    assert torch.equal(dsa.seqlens_expand_triton(*arguments), theirs.seqlens_expand_triton(*arguments))

"""draftmeta.vllm against the formulas of vLLM 0.33's indexer, written in PyTorch, and against its own kernel where it is
at hand: that needs an unpacked wheel in DRAFTMETA_VLLM and triton, and on the host TRITON_INTERPRET=1.
"""

import types

import pytest
from engines import POISON, ceil_div, ints, load, poisoned, schedule, torch

from draftmeta import vllm as indexer

pytestmark = pytest.mark.usefixtures("device")

CAPACITY, WIDTH, BLOCK = 40, 9, 64


def local(lengths, world, rank, part):
    """vLLM's get_dcp_local_seq_lens, for one rank."""
    base = lengths // part // world * part
    return base + torch.clip(lengths - base * world - rank * part, 0, part)


class Batch:
    """A decode batch of vLLM's: requests of these lengths, of which the last so many tokens are new."""

    def __init__(self, lengths, queries, tokens=None):
        self.queries = queries
        self.requests, self.live = len(lengths), sum(queries)
        self.tokens = self.live if tokens is None else tokens
        self.seq_lens = ints(*lengths)
        self.start_loc = torch.tensor([sum(queries[:r]) for r in range(self.requests + 1)], dtype=torch.int32)
        self.block_table = torch.arange(self.requests * WIDTH, dtype=torch.int32).view(-1, WIDTH) + 100
        self.lengths, self.table = poisoned(CAPACITY), poisoned(CAPACITY, WIDTH)
        self.ones, self.indices, self.per_request = (poisoned(CAPACITY) for _ in range(3))

    def global_lengths(self):
        want = torch.zeros(CAPACITY, dtype=torch.int32)
        for r, q in enumerate(self.queries):
            tokens = torch.arange(self.start_loc[r], self.start_loc[r] + q)
            want[tokens] = (self.seq_lens[r] - q + 1 + torch.arange(q)).clamp(min=0).int()
        return want

    def owners(self):
        return [r for r, q in enumerate(self.queries) for _ in range(q)]

    def check(self, ratio=1, world=1, rank=0, part=1, zeroed=True):
        assert torch.equal(self.lengths, local(self.global_lengths(), world, rank, part) // ratio)
        want = torch.full_like(self.table, POISON)
        if zeroed:
            want[: self.tokens] = 0
        for t, r in enumerate(self.owners()):
            live = min(ceil_div(int(self.seq_lens[r]), BLOCK * world), WIDTH)
            want[t, :live] = self.block_table[r, :live]
        assert torch.equal(self.table, want)
        assert (self.ones[: self.tokens] == 1).all() and (self.ones[self.tokens :] == POISON).all()

    def check_indices(self):
        padding = range(self.requests, self.requests + self.tokens - self.live)
        assert self.indices[: self.tokens].tolist() == self.owners() + list(padding)
        assert (self.indices[self.tokens :] == POISON).all()


def uniform(batch, **more):
    more = dict(block_size=BLOCK) | more
    indexer.prepare_uniform_decode(
        batch.seq_lens,
        batch.lengths,
        batch.block_table,
        batch.table,
        batch.ones,
        batch.tokens,
        batch.queries[0],
        **more,
    )


def ragged(batch, **more):
    indexer.prepare_ragged_decode(
        batch.seq_lens,
        batch.start_loc,
        batch.block_table,
        batch.lengths,
        batch.table,
        batch.ones,
        batch.requests,
        batch.tokens,
        block_size=BLOCK,
        **more,
    )


def varlen(batch, **more):
    indexer.prepare_varlen_decode(
        batch.start_loc,
        batch.seq_lens,
        batch.block_table,
        batch.lengths,
        batch.table,
        batch.ones,
        batch.indices,
        batch.per_request,
        batch.requests,
        batch.tokens,
        block_size=BLOCK,
        **more,
    )


LENGTHS = [10, 576, 64, 65, 0, 300]


@pytest.mark.parametrize("n", [1, 2, 6])
def test_uniform(n):
    batch = Batch(LENGTHS, [n] * 6)
    uniform(batch)
    batch.check(zeroed=False)


def test_native():
    """The lengths [requests, n] of kernels that take several tokens to a request; there is no table then."""
    batch = Batch(LENGTHS, [3] * 6)
    lengths = poisoned(6, 3)
    indexer.prepare_uniform_decode(batch.seq_lens, lengths, None, None, None, 18, 3)
    assert lengths.tolist() == [[max(0, length - 2 + j) for j in range(3)] for length in LENGTHS]


def test_ragged():
    """The example of vLLM's comments: [10, 7, 12] with [3, 1, 4] new tokens, and a padding request."""
    batch = Batch([10, 7, 12, 0], [3, 1, 4, 0])
    ragged(batch)
    assert batch.lengths[:8].tolist() == [8, 9, 10, 7, 9, 10, 11, 12]
    batch.check()


@pytest.mark.parametrize("padding", [0, 5])
def test_varlen(padding):
    queries = [3, 5, 1, 2, 0, 7]
    batch = Batch(LENGTHS, queries, sum(queries) + padding)
    varlen(batch)
    batch.check()
    batch.check_indices()
    assert batch.per_request.tolist() == queries + [POISON] * (CAPACITY - 6)


@pytest.mark.parametrize("run", [uniform, ragged, varlen])
@pytest.mark.parametrize("ratio, world, part", [(4, 1, 1), (1, 2, 1), (1, 3, 16), (4, 2, 64)])
def test_compression_and_context_parallelism(run, ratio, world, part):
    for rank in range(world):
        batch = Batch(LENGTHS, [4] * 6)
        everything, entries = poisoned(CAPACITY), poisoned(9, 2)
        run(
            batch,
            compress_ratio=ratio,
            dcp_world_size=world,
            dcp_rank=rank,
            cp_kv_cache_interleave_size=part,
            global_seq_lens=everything,
            schedule_metadata=entries,
        )
        batch.check(ratio, world, rank, part, zeroed=run is not uniform)
        assert torch.equal(everything[:24], batch.global_lengths()[:24])
        assert torch.equal(entries, schedule(batch.lengths[:24].tolist(), 1, 8, "sm90"))


def test_ranks_are_localised_token_by_token():
    """vLLM's example: rank 1 of 2 has 4, 4 and 5 of 8, 9 and 10 tokens."""
    batch = Batch([10], [3])
    uniform(batch, dcp_world_size=2, dcp_rank=1)
    assert batch.lengths[:3].tolist() == [4, 4, 5]


def test_schedule_of_long_requests():
    batch = Batch([100000, 3000, 7], [2] * 3)
    entries = poisoned(133, 2)
    uniform(batch, schedule_metadata=entries, compress_ratio=4)
    assert torch.equal(entries, schedule(batch.lengths[:6].tolist(), 1, 132, "sm90"))


def test_more_queries_than_tokens():
    batch = Batch([10, 20], [3, 3], tokens=4)
    varlen(batch)
    assert batch.lengths.tolist() == [8, 9, 10, 18] + [0] * (CAPACITY - 4)


@pytest.mark.parametrize("run", [uniform, ragged, varlen])
def test_other_buffers_of_the_same_layout_bind_nothing(run):
    function = indexer._calls.functions[f"prepare_{run.__name__}_decode"]
    run(Batch(LENGTHS, [2] * 6))
    bound, called = function.binds, function.calls
    kept = []
    for i in range(5):
        batch = Batch([length + i for length in LENGTHS[:1]] + LENGTHS[1:], [2] * 6)
        run(batch)
        batch.check(zeroed=run is not uniform)
        kept.append(batch)
    assert (function.binds, function.calls) == (bound, called + 5)
    assert indexer.calls()[f"prepare_{run.__name__}_decode"] == called + 5


def test_lengths_to_the_end_of_other_buffers():
    """The zeros behind the tokens are a fill of their own, somewhere inside of the buffer."""
    for _ in range(3):
        guarded = poisoned(CAPACITY + 8)
        batch = Batch(LENGTHS, [2] * 6)
        batch.lengths = guarded[4:-4]
        uniform(batch)
        batch.check(zeroed=False)
        assert (guarded[:4] == POISON).all() and (guarded[-4:] == POISON).all()


@pytest.mark.parametrize("padding", [0, 5])
def test_as_vllm_does(padding):
    triton = pytest.importorskip("triton")
    utilities = types.ModuleType("vllm.triton_utils")
    utilities.triton, utilities.tl = triton, triton.language
    theirs = load(
        "DRAFTMETA_VLLM", "vllm/v1/attention/ops/metadata.py", vllm=utilities, vllm__triton_utils=utilities
    )
    queries, lengths = [3, 5, 1, 2, 0, 4], [10, 576, 64, 65, 0, 300]
    ours, batch = (Batch(lengths, queries, 15 + padding) for _ in range(2))
    varlen(ours)
    grid = (max(6, batch.tokens + ceil_div(CAPACITY - batch.tokens, 256)),)
    theirs._indexer_decode_metadata_kernel[grid](
        batch.start_loc,
        batch.seq_lens,
        batch.block_table,
        batch.lengths,
        batch.table,
        batch.ones,
        batch.indices,
        batch.per_request,
        batch.requests,
        batch.tokens,
        CAPACITY,
        WIDTH,
        WIDTH,
        BLOCK_COLS=WIDTH,
    )
    for name in ("lengths", "ones", "indices", "per_request"):
        assert torch.equal(getattr(ours, name), getattr(batch, name)), name
    for t in range(batch.tokens):  # behind the last live page we write zeros
        live = (ours.table[t] != 0).sum()
        assert torch.equal(ours.table[t, :live], batch.table[t, :live])
        assert live == (ceil_div(lengths[ours.owners()[t]], BLOCK) if t < 15 else 0)
    assert (batch.table[15 : batch.tokens] == 0).all()

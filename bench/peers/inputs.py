"""What every implementation is given, what it writes into, and what it must have written.

One pool and one set of output buffers serve all shapes: a shape is a view of them. The reference is written from the
contract in include/draftmeta.h with NumPy; the tables, which may hold gigabytes, are compared where they are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from results import Mismatch

PAGE, TOPK, POISON = 64, 2048, -7
SCHEDULE_SPLIT = 256


@dataclass(frozen=True)
class Shape:
    requests: int
    context: int  # KV tokens of a request: half of this to all of it
    width: int  # columns of req_to_token that a page table may show
    variable: bool = False  # 1 .. tokens + 1 new tokens a request, else tokens
    tokens: int = 4
    pool_size: int = 1  # k: tokens pooled into one index key
    mode: str = "draft-extend"  # or target-verify, decode

    @property
    def form(self):
        return "variable" if self.variable else "static"

    @property
    def most_tokens(self):
        """Of one request."""
        return self.tokens + self.variable

    @property
    def rows(self):
        return self.requests * self.most_tokens


class Pool:
    """req_to_token: pages in random order, slots adjacent within a page. Rows keep one stride for all widths."""

    def __init__(self, rows, width, device, seed):
        generator = torch.Generator(device=device).manual_seed(seed)
        count = -(-width // PAGE)
        pages = torch.randint(0, 2**25, (rows, count), dtype=torch.int32, device=device, generator=generator)
        slots = torch.empty(rows, count * PAGE, dtype=torch.int32, device=device)
        within = torch.arange(PAGE, dtype=torch.int32, device=device)
        torch.add((pages * PAGE)[:, :, None], within, out=slots.view(rows, count, PAGE))
        self.slots = slots[:, :width].contiguous()

    def view(self, width):
        return self.slots[:, :width]


class Batch:
    """One set of inputs on the device, with the host's copies."""

    def __init__(self, shape, pool, device, seed):
        rng = np.random.default_rng([seed, shape.requests, shape.context, shape.variable])
        r, n = shape.requests, shape.tokens
        self.kv = rng.integers(max(shape.context // 2, n + 1), shape.context + 1, r)
        self.kv -= n if shape.mode == "target-verify" else 0  # which does not count them yet
        self.q = rng.integers(1, n + 2, r) if shape.variable else np.full(r, n)
        self.rows = rng.permutation(len(pool.slots))[:r]
        self.total = int(self.q.sum())
        self.seq_lens = torch.tensor(self.kv, dtype=torch.int64, device=device)
        self.extend_lens = torch.tensor(self.q, dtype=torch.int32, device=device)
        self.pool_indices = torch.tensor(self.rows, dtype=torch.int64, device=device)

    def replace_lengths(self, extend_lens, seq_lens):
        """With given ones, as int32."""
        self.q, self.kv, self.total = np.array(extend_lens), np.array(seq_lens), sum(extend_lens)
        self.extend_lens = torch.tensor(extend_lens, dtype=torch.int32, device=self.extend_lens.device)
        self.seq_lens = torch.tensor(seq_lens, dtype=torch.int32, device=self.extend_lens.device)


class Outputs:
    """Buffers for the largest shape."""

    def __init__(self, rows, requests, width, slots, device):
        def make(n):
            return torch.full((n,), POISON, dtype=torch.int32, device=device)

        self.tokens = {name: make(rows) for name in ("seqlens_expanded", "dsa_cache_seqlens", "context_lens")}
        self.dsa_cu_seqlens_k = make(rows + 1)
        self.cache_seqlens = make(requests)
        self.cu_seqlens_k = make(requests + 1)
        self.schedule = make(2 * (slots + 1))
        self.table = make(rows * (width // PAGE))

    def view(self, shape):
        rows, columns = shape.rows, shape.width // PAGE
        view = {name: buffer[:rows] for name, buffer in self.tokens.items()}
        view["dsa_cu_seqlens_k"] = self.dsa_cu_seqlens_k[: rows + 1]
        view["cache_seqlens"] = self.cache_seqlens[: shape.requests]
        view["cu_seqlens_k"] = self.cu_seqlens_k[: shape.requests + 1]
        view["schedule"] = self.schedule
        view["page_table"] = self.table[: rows * columns].view(rows, columns)
        return view


def sizes_of(shape, wide, slots):
    """How large an engine's outputs are, by name: numbers, or rows and columns. wide: with page_table_1."""
    rows, columns = shape.rows, -(-shape.width // PAGE)
    sizes = {name: (rows,) for name in ("seqlens_expanded", "dsa_cache_seqlens", "context_lens")}
    sizes.update(dsa_cu_seqlens_k=(rows + 1,), page_table=(rows, columns), schedule=(2 * (slots + 1),))
    sizes.update(cache_seqlens=(shape.requests,), cu_seqlens_k=(shape.requests + 1,))
    if wide:
        sizes["page_table_1"] = (rows, shape.width)
    return sizes


class Places:
    """Outputs at addresses that come again only after LIMIT sets, as where an engine allocates them for each step."""

    STEP, LIMIT = 128, 4096  # numbers between two addresses, which torch aligns like this; sets

    def __init__(self, sizes, device):
        self.sizes, self.next = sizes, 0
        self.buffers = {}
        for name, size in sizes.items():
            length = int(np.prod(size)) + self.STEP * self.LIMIT
            self.buffers[name] = torch.full((length,), POISON, dtype=torch.int32, device=device)

    def take(self):
        first = self.next % self.LIMIT * self.STEP
        self.next += 1
        return {n: self.buffers[n][first : first + int(np.prod(s))].view(s) for n, s in self.sizes.items()}


def clipped(e, topk, k):
    return np.minimum(e, topk) if k <= 1 else np.minimum(e - e % k, topk) + e % k


def exclusive(values):
    return np.concatenate([[0], np.cumsum(values)])


def lengths(shape, batch):
    """(kv, q) per request: what a step's mode makes of the inputs."""
    if shape.mode == "decode":
        return batch.kv, np.ones_like(batch.q)
    return batch.kv + (shape.tokens if shape.mode == "target-verify" else 0), batch.q


def reference(shape, batch, topk=TOPK):
    """Every output but the tables, by name."""
    kv, q = lengths(shape, batch)
    request = np.repeat(np.arange(len(q)), q)
    within = np.arange(len(request)) - np.repeat(exclusive(q)[:-1], q)
    e = np.maximum(0, kv[request] - q[request] + 1 + within)
    s = clipped(e, topk, shape.pool_size)
    return {
        "seqlens_expanded": e,
        "dsa_cache_seqlens": s,
        "dsa_cu_seqlens_k": exclusive(s),
        "cache_seqlens": kv,
        "cu_seqlens_k": exclusive(kv),
        "context_lens": e,
        "token_to_req": request,
    }


def schedule(lens, slots, last_gets_more):
    """DeepGEMM's work schedule over single tokens; the remainder goes to the last slots (SM90) or the first."""
    ends = np.cumsum(-(-lens // SCHEDULE_SPLIT))
    quotient, rest = divmod(int(ends[-1]), slots)
    i = np.arange(slots + 1)
    start = i * quotient + (np.maximum(0, i - (slots - rest)) if last_gets_more else np.minimum(i, rest))
    token = np.searchsorted(ends, start, side="right")
    offset = start - np.concatenate([[0], ends])[token]
    return np.stack([token, np.where(token < len(lens), offset, 0)], 1)


def compare(name, got, want):
    got = got.cpu().numpy().reshape(-1)[: want.size]
    differ = np.flatnonzero(got != want.reshape(-1))
    if len(differ):
        i = differ[0]
        raise Mismatch(f"{name}[{i}]: expected {want.reshape(-1)[i]}, got {got[i]} ({len(differ)} differ)")


def compare_table(name, page, table, source, kv, request, block, chunk=512):
    """Live columns hold pages; the others are untouched, except up to the end of a block of KV tokens."""
    for first in range(0, len(request), chunk):
        r = request[first : first + chunk]
        rows, want = table[first : first + len(r)], source[r]
        slot = torch.arange(table.shape[1], device=table.device)[None, :] * page
        length = kv[r][:, None]
        bad = (slot < length) & (rows != want)
        if block:
            bad |= (slot >= -(-length // block) * block) & (rows != POISON)
        if bool(bad.any()):
            row, column = (int(x) for x in bad.nonzero()[0])
            at = f"{name}[{first + row}][{column}]"
            raise Mismatch(f"{at}: got {int(rows[row, column])}, the page is {int(want[row, column])}")
    if block and bool((table[len(request) :] != POISON).any()):
        raise Mismatch(f"{name}: a row behind the last token is not as it was")


def poison(out):
    for buffer in out.values():
        buffer.fill_(POISON)


def check(shape, batch, pool, out, keys, block=1, slots=None, last_gets_more=True):
    """Raises Mismatch where out, poisoned before the call, is not what the contract says. block: a peer may write past a
    request's last live column, up to a multiple of this many KV tokens; None: anything."""
    expected = reference(shape, batch)
    if "schedule" in keys:
        expected["schedule"] = schedule(expected["seqlens_expanded"], slots, last_gets_more)
    for name in keys:
        if name in expected:
            compare(name, out[name], expected[name])
    for name, page in (("page_table_1", 1), ("page_table", PAGE)):
        if name in keys:
            device = out[name].device
            source = pool.view(shape.width)[batch.pool_indices, ::page] // page
            kv = torch.tensor(expected["cache_seqlens"], device=device)
            request = torch.tensor(expected["token_to_req"], device=device)
            compare_table(name, page, out[name], source, kv, request, block)


def traffic(shape, batch):
    """Bytes that a fill must move: what it writes, and 64 for every page whose first slot it reads."""
    kv, q = lengths(shape, batch)
    pages = np.minimum(-(-kv // PAGE), shape.width // PAGE)
    return int(4 * (3 * q.sum() + 1 + 2 * len(q) + 1 + (q * pages).sum()) + 64 * pages.sum())

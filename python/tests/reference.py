"""What a fill writes, computed one element at a time from the text of draftmeta.h."""

import numpy as np

INT32_MAX = 2**31 - 1
KV_CLAMPED, Q_CLAMPED, BAD_POOL, TOKENS_DROPPED = 1, 2, 4, 16

PER_TOKEN = (
    "seqlens_expanded",
    "dsa_cache_seqlens",
    "token_to_req",
    "context_lens",
    "page_table_1",
    "page_table",
)


def clamp(value):
    return min(max(value, 0), INT32_MAX)


class Fill:
    """The fields as attributes; arrays are NumPy's, and run() writes the outputs."""

    def __init__(self, num_requests, **fields):
        self.num_requests = num_requests
        self.fields = fields
        self.flags = 0
        self.bad_request = 0

    def __getattr__(self, name):
        return self.fields.get(name)

    def note(self, flag, request):
        self.flags |= flag
        self.bad_request = max(self.bad_request, request + 1)

    def query_length(self, r):
        if self.extend_len:
            return self.extend_len
        starts = self.query_start_loc
        raw = int(self.extend_lens[r]) if starts is None else int(starts[r + 1]) - int(starts[r])
        if raw != clamp(raw):
            self.note(Q_CLAMPED, r)
        return clamp(raw)

    def kv_length(self, r):
        raw = int(self.seq_lens[r]) + (self.seq_len_bias or 0)
        if raw != clamp(raw):
            self.note(KV_CLAMPED, r)
        return clamp(raw)

    def capacity(self):
        lengths = [
            len(getattr(self, name).reshape(-1)) for name in PER_TOKEN[:4] if getattr(self, name) is not None
        ]
        lengths += [len(getattr(self, name)) for name in PER_TOKEN[4:] if getattr(self, name) is not None]
        if self.dsa_cu_seqlens_k is not None:
            lengths.append(len(self.dsa_cu_seqlens_k) - 1)
        return min(lengths, default=10**9)

    def sparse_length(self, e):
        k = self.pool_size or 1
        return min(e, self.topk) if k == 1 else min(e - e % k, self.topk) + e % k

    def source_row(self, r):
        """The row of slots or pages of request r, or None if it has none."""
        source = self.req_to_token if self.block_table is None else self.block_table
        row = r if self.req_pool_indices is None else int(self.req_pool_indices[r])
        if 0 <= row < len(source):
            return source[row]
        self.note(BAD_POOL, r)
        return None

    def live_columns(self, source, r, page, columns):
        if source is None:
            return []
        if self.block_table is not None:
            known = source[:columns]
            return [int(x) for c, x in enumerate(known) if c * page < self.kv[r]]
        slots = [int(source[c * page]) for c in range(columns) if c * page < min(self.kv[r], len(source))]
        return [int(slot / page) for slot in slots]

    def write_tables(self, t, r):
        for table, page in ((self.page_table_1, 1), (self.page_table, self.page_size)):
            if table is None:
                continue
            live = [] if r is None else self.live_columns(self.rows[r], r, page, table.shape[1])
            if self.full_rows:
                table[t, :] = 0
            table[t, : len(live)] = live

    def tokens(self):
        """(request or None, e) of every token that is written."""
        all_tokens = []
        for r in range(self.num_requests):
            for j in range(self.q[r]):
                all_tokens.append((r, max(0, self.kv[r] - self.q[r] + 1 + j)))
        self.wanted = len(all_tokens)
        self.m = self.capacity()
        if self.wanted > self.m:
            self.flags |= TOKENS_DROPPED
        padding = [(None, 0)] * ((self.padded_tokens or 0) - self.wanted)
        return (all_tokens + padding)[: self.m]

    def run(self):
        requests = range(self.num_requests)
        self.q = [self.query_length(r) for r in requests]
        self.kv = [self.kv_length(r) for r in requests]
        wants_rows = self.page_table_1 is not None or self.page_table is not None
        self.rows = [self.source_row(r) if wants_rows else None for r in requests]
        tokens = self.tokens()
        self.write_tokens(tokens)
        self.write_requests()
        for schedule in self.schedules or ():
            self.write_schedule(schedule, tokens)
        if self.num_tokens is not None:
            self.num_tokens[0] = min(self.wanted, self.m)
        if self.report is not None:
            self.report[0] = self.flags | self.bad_request << 32
            self.report[1] = self.wanted

    def write_tokens(self, tokens):
        sparse_sum = 0
        if self.dsa_cu_seqlens_k is not None:
            self.dsa_cu_seqlens_k[0] = 0
        for t, (r, e) in enumerate(tokens):
            self.put("seqlens_expanded", t, e)
            self.put("token_to_req", t, self.num_requests + t - self.wanted if r is None else r)
            kv = 0 if r is None else self.kv[r]
            self.put("context_lens", t, kv if self.context_per_request else e)
            if self.topk:
                sparse = self.sparse_length(e)
                sparse_sum += sparse
                self.put("dsa_cache_seqlens", t, sparse)
                self.put("dsa_cu_seqlens_k", t + 1, sparse_sum)
            self.write_tables(t, r)

    def put(self, name, index, value):
        if getattr(self, name) is not None:
            getattr(self, name).reshape(-1)[index] = value

    def write_requests(self):
        padded = max(self.padded_requests or 0, self.num_requests)
        kv = self.kv + [0] * (padded - self.num_requests)
        q = self.q + [0] * (padded - self.num_requests)
        for r in range(padded):
            self.put("cache_seqlens", r, kv[r])
        for r in range(padded + 1):
            self.put("cu_seqlens_q", r, min(sum(q[:r]), self.m))
            self.put("cu_seqlens_k", r, sum(kv[:r]))

    def write_schedule(self, schedule, tokens):
        n = 1 if schedule.unit == "token" else self.extend_len
        if schedule.unit == "token":
            c = [e for _, e in tokens]
        else:
            kv = self.kv + [0] * len(tokens)
            c = kv[: len(tokens) // n]
        adjacent = schedule.variant == "sm100"
        a = n if adjacent else (n + 1) // 2
        segments = [-(-(x // schedule.divisor) // 256) for x in c]
        # One entry per unit of work, in the schedule's order.
        entries = []
        for u, seg in enumerate(segments):
            for o in range(seg * a):
                entries.append((u * a, o // a) if adjacent else (u * a + o // seg, o % seg))
        quotient, rest = divmod(len(entries), schedule.slots)
        for i in range(schedule.slots + 1):
            extra = max(0, i - (schedule.slots - rest)) if schedule.variant == "sm90" else min(i, rest)
            start = i * quotient + extra
            schedule.table[i] = entries[start] if start < len(entries) else (len(c) * a, 0)

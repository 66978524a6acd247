"""Fills against the reference, on every place there is."""

import itertools
import random
from typing import NamedTuple

import draftmeta
import pytest

np = pytest.importorskip("numpy")
import reference  # noqa: E402

POISON = -77
SLOTS_WIDE = 40


def make_lengths(rng, mode, requests, int_type):
    """The inputs of a step, some of them beyond what is sensible."""
    lengths = [rng.choice([0, 1, rng.randrange(30), rng.randrange(700), -3]) for _ in range(requests)]
    fields = {"seq_lens": np.array(lengths, int_type)}
    if mode == "extend":
        fields["extend_lens"] = np.array([rng.choice([0, 1, 2, 5, -1]) for _ in range(requests)], int_type)
    elif mode == "starts":
        steps = [rng.choice([0, 1, 2, 5]) for _ in range(requests)]
        fields["query_start_loc"] = np.cumsum([0, *steps]).astype(int_type)
    else:
        fields["extend_len"] = rng.choice([1, 2, 3, 5]) if mode == "verify" else 1
    if mode == "verify":
        fields["seq_len_bias"] = fields["extend_len"]
    return fields


class Table(NamedTuple):
    """The left columns of an array: its rows are apart."""

    whole: np.ndarray
    columns: int


def with_gaps(rows, columns, gap):
    return Table(np.full((rows, columns + gap), POISON, np.int32), columns)


def make_source(rng, requests):
    """Where page tables come from."""
    if rng.random() < 0.3:
        pages = [rng.randrange(10**6) for _ in range(requests * 8)]
        return {"block_table": np.array(pages, np.int32).reshape(requests, 8)}
    pool = requests + 2
    slots = [rng.randrange(-5, 10**6) for _ in range(pool * SLOTS_WIDE)]
    indices = [rng.choice([rng.randrange(pool), pool, -1]) for _ in range(requests)]
    source = {"req_to_token": np.array(slots, np.int32).reshape(pool, SLOTS_WIDE)}
    return source | ({"req_pool_indices": np.array(indices, np.int64)} if rng.random() < 0.7 else {})


def make_outputs(rng, fields, requests, capacity, padded):
    outputs = {
        "seqlens_expanded": np.full(capacity, POISON, np.int32),
        "dsa_cache_seqlens": np.full(capacity + 1, POISON, np.int32),
        "dsa_cu_seqlens_k": np.full(capacity + 1, POISON, np.int32),
        "token_to_req": np.full(capacity, POISON, np.int32),
        "context_lens": np.full((capacity, 1), POISON, np.int32),
        "page_table": with_gaps(capacity, rng.randrange(1, 12), rng.choice([0, 3])),
        "cache_seqlens": np.full(padded, POISON, np.int32),
        "cu_seqlens_q": np.full(padded + 1, POISON, np.int32),
        "cu_seqlens_k": np.full(padded + 2, POISON, np.int32),
        "num_tokens": np.full((), POISON, np.int32).reshape(1),
        "report": np.zeros(2, np.int64),
    }
    if "req_to_token" in fields:
        outputs["page_table_1"] = with_gaps(capacity, rng.randrange(1, 50), rng.choice([0, 1]))
    kept = {name: array for name, array in outputs.items() if rng.random() < 0.7}
    return kept or outputs


def make_schedules(rng, fields, outputs):
    units = ["request"] if "extend_len" in fields else []
    if set(outputs) & {*reference.PER_TOKEN, "dsa_cu_seqlens_k"}:
        units.append("token")
    schedules = []
    for _ in range(rng.randrange(3) if units else 0):
        slots = rng.randrange(1, 9)
        table = np.full((slots + 1, 2), POISON, np.int32)
        variant = rng.choice(["smxx", "sm90", "sm100"])
        schedules.append(draftmeta.Schedule(table, variant, rng.choice(units), slots, rng.choice([1, 4])))
    return schedules


def make_case(seed, mode, int_type):
    rng = random.Random(seed)
    requests = rng.choice([0, 1, 2, 7, 33])
    fields = make_lengths(rng, mode, requests, int_type) | make_source(rng, requests)
    capacity = rng.choice([0, 5, 64, 200])
    padded = rng.choice([0, requests + 3])
    outputs = make_outputs(rng, fields, requests, capacity, max(padded, requests))
    fields |= {
        "topk": rng.choice([1, 16, 2048]),
        "pool_size": rng.choice([0, 1, 4]),
        "page_size": rng.choice([1, 5, 16, 64]),
        "padded_requests": padded,
        "padded_tokens": rng.choice([0, 3, 150]),
        "full_rows": rng.random() < 0.5,
        "context_per_request": "extend_len" in fields and rng.random() < 0.5,
        "schedules": make_schedules(rng, fields, outputs),
    }
    return requests, fields | outputs


class Host:
    """Where the reference runs."""

    put = staticmethod(np.copy)
    get = staticmethod(np.copy)

    @staticmethod
    def cut(array, columns):
        return array[:, :columns]


class Layout:
    """A case's arrays on a place, and the arguments of a fill with them."""

    def __init__(self, place, fields):
        self.place = place
        self.arrays = {}
        self.arguments = {name: self.lay_out(name, value) for name, value in fields.items()}

    def lay_out(self, name, value):
        if name == "schedules":
            return [self.lay_out_schedule(f"schedules[{i}]", s) for i, s in enumerate(value)]
        if isinstance(value, Table):
            return self.place.cut(self.lay_out(name, value.whole), value.columns)
        if isinstance(value, np.ndarray):
            self.arrays[name] = self.place.put(value)
            return self.arrays[name]
        return value

    def lay_out_schedule(self, name, s):
        return draftmeta.Schedule(self.lay_out(name, s.table), s.variant, s.unit, s.slots, s.divisor)

    def check(self, expected):
        """All arrays, inputs too, with the gaps between rows."""
        for name, array in self.arrays.items():
            np.testing.assert_array_equal(self.place.get(array), expected.arrays[name], name)


MODES = ("extend", "starts", "verify", "decode")


@pytest.mark.parametrize("mode, int_type", [*itertools.product(MODES, (np.int32, np.int64))])
def test_random_cases(place, mode, int_type):
    for seed in range(60):
        requests, fields = make_case(seed, mode, int_type)
        expected, laid_out = Layout(Host, fields), Layout(place, fields)
        reference.Fill(requests, **expected.arguments).run()
        fill = draftmeta.Fill(**laid_out.arguments, backend=place.backend)
        assert (fill.backend, fill.num_requests) == (place.backend, requests)
        fill()
        try:
            laid_out.check(expected)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None


def test_num_requests_of_a_call(place):
    lens = np.array([5, 9, 2, 8], np.int32)
    out = place.put(np.full(4, POISON, np.int32))
    fill = draftmeta.Fill(seq_lens=place.put(lens), extend_len=1, seqlens_expanded=out)
    fill(2)
    assert place.get(out).tolist() == [5, 9, POISON, POISON]
    fill(3, None)
    assert place.get(out).tolist() == [5, 9, 2, POISON]
    fill(num_requests=0)
    fill(np.int64(1), stream=None)
    assert fill.num_requests == 4
    fill()
    assert place.get(out).tolist() == [5, 9, 2, 8]


def test_bound_num_requests(place):
    lens = place.put(np.array([5, 9, 2, 8], np.int64))
    out = place.put(np.full(4, POISON, np.int32))
    fill = draftmeta.Fill(seq_lens=lens, extend_len=1, seqlens_expanded=out, num_requests=1)
    fill()
    assert place.get(out).tolist() == [5, POISON, POISON, POISON]


def test_other_values_for_one_call(place):
    out, other = (place.put(np.full(4, POISON, np.int32)) for _ in range(2))
    fill = draftmeta.Fill(seq_lens=place.put(np.array([5, 9], np.int32)), extend_len=1, seqlens_expanded=out)
    fill(seq_lens=place.put(np.array([7, 3], np.int64)), padded_tokens=3)
    assert place.get(out).tolist() == [7, 3, 0, POISON]
    fill(1, seqlens_expanded=other)
    assert place.get(other).tolist() == [5, POISON, POISON, POISON]
    assert place.get(out).tolist() == [7, 3, 0, POISON]
    fill()
    assert place.get(out).tolist() == [5, 9, 0, POISON]


def test_memory_is_read_at_the_call(place):
    lens, out = place.put(np.array([5, 9], np.int32)), place.put(np.full(2, POISON, np.int32))
    fill = draftmeta.Fill(seq_lens=lens, extend_len=1, seqlens_expanded=out)
    memory = getattr(lens, "memory", lens)
    memory[0] = 1
    fill()
    assert place.get(out).tolist() == [1, 9]


def test_one_fill_without_binding(place):
    out = place.put(np.full(2, POISON, np.int32))
    draftmeta.fill(seq_lens=place.put(np.array([5, 9], np.int32)), extend_len=1, cache_seqlens=out, stream=0)
    assert place.get(out).tolist() == [5, 9]


@pytest.mark.parametrize("count", [0, 1, 2, 8, 19])
def test_many(place, count):
    outs = [place.put(np.full(3, POISON, np.int32)) for _ in range(count)]
    lens = place.put(np.array([5, 9, 7], np.int32))
    fills = [draftmeta.Fill(seq_lens=lens, extend_len=1, seqlens_expanded=out) for out in outs]
    draftmeta.fill_many(fills, num_requests=[1 + i % 2 for i in range(count)])
    assert [place.get(out).tolist() for out in outs] == [
        [5, 9 if i % 2 else POISON, POISON] for i in range(count)
    ]
    draftmeta.fill_many(fills, 3)
    draftmeta.fill_many(tuple(fills))
    assert [place.get(out).tolist() for out in outs] == [[5, 9, 7]] * count


def test_many_check_all_before_any(place):
    outs = [place.put(np.full(2, POISON, np.int32)) for _ in range(2)]
    lens = place.put(np.array([5, 9], np.int32))
    fills = [draftmeta.Fill(seq_lens=lens, extend_len=1, cache_seqlens=out) for out in outs]
    with pytest.raises(draftmeta.Error, match=r"descs\[1\]->cache_seqlens|descs\[1\]->seq_lens") as caught:
        draftmeta.fill_many(fills, [2, 3])
    assert caught.value.status_name == "DM_ERR_SHAPE"
    assert [place.get(out).tolist() for out in outs] == [[POISON, POISON]] * 2


def test_report(place):
    report = place.put(np.zeros(2, np.int64))
    fill = draftmeta.Fill(
        seq_lens=place.put(np.array([5, -9, 7], np.int32)),
        extend_len=2,
        seqlens_expanded=place.put(np.full(5, POISON, np.int32)),
        report=report,
    )
    where = {"backend": place.backend}
    assert draftmeta.read_report(report, **where) == (0, 0, 0)
    fill()
    read = draftmeta.read_report(report, **where)
    assert read == draftmeta.Report(flags=17, bad_request=2, tokens_wanted=6)
    assert read.kv_clamped and read.tokens_dropped
    assert not (read.q_clamped or read.bad_pool or read.narrow)
    with pytest.raises(TypeError, match="report is None"):
        draftmeta.read_report(None, **where)


def test_a_failing_call_writes_nothing(place):
    out = place.put(np.full(2, POISON, np.int32))
    fill = draftmeta.Fill(seq_lens=place.put(np.array([5, 9], np.int32)), extend_len=1, cache_seqlens=out)
    for arguments in ({"num_requests": 3}, {"num_requests": -1}, {"topk": -1}):
        with pytest.raises(draftmeta.Error):
            fill(**arguments)
    with pytest.raises(TypeError):
        fill(stream="0")
    assert place.get(out).tolist() == [POISON, POISON]
    fill()
    assert place.get(out).tolist() == [5, 9]

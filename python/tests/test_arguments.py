"""Everything but arrays: names, numbers, schedules, streams, and the library's own refusals."""

import threading
import time
from types import SimpleNamespace

import draftmeta
import pytest

np = pytest.importorskip("numpy")

LENS = np.array([5, 9], np.int32)
TABLE = np.zeros((3, 2), np.int32)


def fill(**fields):
    return draftmeta.Fill(**{"seq_lens": LENS, "extend_len": 1} | fields)


@pytest.mark.parametrize(
    "fields, error, words",
    [
        ({"what": 1}, TypeError, "'what' is not an argument of a fill"),
        ({"topk": "3"}, TypeError, "topk is of type <class 'str'>: it takes an integer"),
        ({"topk": 1.5}, TypeError, "topk is of type <class 'float'>"),
        ({"topk": 2**31}, ValueError, "topk is 2147483648: it must be from -2147483648 to 2147483647"),
        ({"padded_tokens": 2**63}, ValueError, "padded_tokens is 9223372036854775808"),
        ({"backend": "metal"}, ValueError, 'backend is \'metal\': it takes "cuda", "hip" or "cpu"'),
        ({"backend": 3}, ValueError, "backend is 3"),
        ({"device": -1}, ValueError, "device is -1: it must be from 0"),
        ({"device": "cpu"}, TypeError, "device is of type <class 'str'>"),
        ({"device": 1}, ValueError, "seq_lens is on cpu:0, but device calls for cpu:1"),
        ({"schedules": 3}, TypeError, "schedules is of type <class 'int'>"),
        ({"schedules": [draftmeta.Schedule(TABLE)] * 3}, ValueError, "schedules has 3 entries: at most 2"),
        ({"schedules": [TABLE]}, AttributeError, "variant"),
        (
            {"schedules": [draftmeta.Schedule(TABLE), draftmeta.Schedule(TABLE, "sm80")]},
            ValueError,
            r"schedules\[1\].variant is 'sm80': it takes \"smxx\", \"sm90\", \"sm100\"",
        ),
        (
            {"schedules": [draftmeta.Schedule(TABLE, unit=1)]},
            ValueError,
            r"schedules\[0\].unit is 1: it takes \"token\", \"request\"",
        ),
        (
            {"schedules": [draftmeta.Schedule(TABLE, slots="all")]},
            TypeError,
            r"schedules\[0\].slots is of type <class 'str'>",
        ),
        (
            {"schedules": [draftmeta.Schedule(None)]},
            TypeError,
            r"schedules\[0\].table is of type <class 'NoneType'>",
        ),
    ],
)
def test_wrong_arguments(fields, error, words):
    with pytest.raises(error, match=words):
        fill(**fields)


@pytest.mark.parametrize(
    "fields, status, number, words",
    [
        (
            {"extend_lens": LENS},
            "DM_ERR_CONFLICT",
            7,
            "extend_lens, query_start_loc and extend_len: give only one",
        ),
        (
            {"extend_len": None},
            "DM_ERR_MISSING",
            6,
            "extend_lens, query_start_loc or extend_len must be given",
        ),
        ({"num_requests": 3}, "DM_ERR_SHAPE", 4, "seq_lens.len is 2: it must be at least 3"),
        ({"dsa_cache_seqlens": LENS.copy()}, "DM_ERR_RANGE", 5, "topk is 0"),
        ({"topk": -2}, "DM_ERR_RANGE", 5, "topk is -2: it must not be negative"),
        ({"page_table": TABLE}, "DM_ERR_MISSING", 6, "page_table needs req_to_token or block_table"),
        ({"cu_seqlens_q": LENS.copy()}, "DM_ERR_SHAPE", 4, "cu_seqlens_q.len is 2: it must be at least 3"),
        (
            {"schedules": [draftmeta.Schedule(TABLE)]},
            "DM_ERR_MISSING",
            6,
            r"schedules\[0\].unit is DM_UNIT_TOKEN",
        ),
        (
            {"schedules": [draftmeta.Schedule(TABLE, unit="request", slots=5)]},
            "DM_ERR_SHAPE",
            4,
            r"schedules\[0\].table.len is 6: 5 slots take",
        ),
        (
            {"report": np.zeros(20, np.int32)[1:]},
            "DM_ERR_ALIGNMENT",
            8,
            "report is 0x[0-9a-f]+: align it to 8 bytes",
        ),
    ],
)
def test_what_the_library_refuses_is_known_when_binding(fields, status, number, words):
    with pytest.raises(draftmeta.Error, match=words) as caught:
        fill(**fields)
    assert (caught.value.status, caught.value.status_name) == (number, status)


def test_none_is_not_given():
    bound = fill(**{name: None for name in draftmeta._core.fields if name not in ("seq_lens", "extend_len")})
    assert bound.num_requests == 2
    bound()


def test_no_positional_arguments():
    with pytest.raises(TypeError, match="Fill takes keyword arguments only"):
        draftmeta.Fill(LENS)
    with pytest.raises(TypeError, match="fill takes keyword arguments only"):
        draftmeta.fill(LENS)


@pytest.mark.parametrize(
    "arguments, keywords, error, words",
    [
        ((1, None, 3), {}, TypeError, "takes num_requests and stream by position, and 3 were given"),
        (("1",), {}, TypeError, "num_requests is of type <class 'str'>"),
        ((2**31,), {}, ValueError, "num_requests is 2147483648"),
        ((), {"what": 1}, TypeError, "'what' is not an argument of a fill"),
        ((), {"backend": "cpu"}, TypeError, "'backend' is not an argument of a fill"),
        ((1, "0"), {}, TypeError, "stream is of type <class 'str'>: it takes None, an integer, or an object"),
        ((1, -(2**70)), {}, OverflowError, None),
        ((1, SimpleNamespace(handle="x")), {}, ValueError, None),
    ],
)
def test_wrong_calls(arguments, keywords, error, words):
    with pytest.raises(error, match=words):
        fill()(*arguments, **keywords)


class Handle:
    def __int__(self):
        return 7


@pytest.mark.parametrize(
    "stream",
    [
        0,
        None,
        7,
        np.int64(7),
        SimpleNamespace(cuda_stream=7),
        SimpleNamespace(ptr=7),
        SimpleNamespace(handle=Handle()),
    ],
    ids=str,
)
def test_streams(stream):
    bound = fill()
    bound(1, stream)
    bound(stream=stream)
    draftmeta.fill_many([bound], None, stream)


@pytest.mark.parametrize(
    "fills, requests, error, words",
    [
        ([3], None, TypeError, r"fills\[0\] is of type <class 'int'>: it takes draftmeta.Fill"),
        (3, None, TypeError, None),
        ([fill()], [1, 2], ValueError, "num_requests has 2 entries for 1 fills"),
        ([fill()], "x", TypeError, "num_requests is of type <class 'str'>"),
        ([fill()], 2**40, ValueError, "num_requests is 1099511627776"),
    ],
)
def test_wrong_many(fills, requests, error, words):
    with pytest.raises(error, match=words):
        draftmeta.fill_many(fills, requests)


def test_schedules_take_all_the_room_of_their_table():
    out, table, less = np.zeros(2, np.int32), np.full((4, 2), -1, np.int32), np.full((4, 2), -1, np.int32)
    fill(seqlens_expanded=out, schedules=[draftmeta.Schedule(table), draftmeta.Schedule(less, slots=1)])()
    assert table.tolist() == [[0, 0], [1, 0], [2, 0], [2, 0]] or table[3].tolist() == [2, 0]
    assert less.tolist() == [[0, 0], [2, 0], [-1, -1], [-1, -1]]
    assert repr(draftmeta.Schedule(table, slots=3)) == "Schedule('sm90', 'token', slots=3, divisor=1)"


# ---- Contexts ----


def test_open():
    context = draftmeta.open("cpu")
    assert (context.backend, context.device) == ("cpu", 0)
    assert context.info["ready"] and context.info["name"] == "cpu"
    assert "cpu:0" in repr(context)
    with pytest.raises(draftmeta.Error, match='options.backend is "metal"'):
        draftmeta.open("metal")
    with pytest.raises(draftmeta.Error, match="options.device is 4"):
        draftmeta.open("cpu", device=4)
    with pytest.raises(TypeError):
        draftmeta.Context()


# ---- Threads ----


def test_threads_share_a_fill():
    """Each call has its own number of requests, whatever others do at the time."""
    lens = np.full(4096, 64, np.int32)
    source = np.zeros((4096, 64), np.int32)
    fills, outs = [], [np.zeros(4096, np.int32) for _ in range(4)]
    for out in outs:
        table = np.zeros((4096, 64), np.int32)
        fills.append(
            draftmeta.Fill(
                seq_lens=lens, extend_len=1, req_to_token=source, page_table_1=table, cache_seqlens=out
            )
        )
    shared, failures = fills[0], []

    def work(i):
        for n in range(200):
            try:
                shared(0)
                fills[i](4096 - n)
                with pytest.raises(draftmeta.Error, match=f"at least {5000 + i}"):
                    shared(5000 + i)
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all((out == 64).all() for out in outs)


def test_a_long_fill_lets_other_threads_run():
    """While it runs another thread counts; a fill that held the interpreter would stop it."""
    rows, columns = 2048, 8192
    fields = {
        "seq_lens": np.full(rows, columns, np.int32),
        "req_to_token": np.zeros((rows, columns), np.int32),
        "page_table_1": np.zeros((rows, columns), np.int32),
    }
    bound, ticks, done = draftmeta.Fill(extend_len=1, **fields), [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    spans = []
    for _ in range(20):
        begin = time.perf_counter()
        bound()
        spans.append((begin, time.perf_counter()))
    done.set()
    thread.join()
    during = [
        sum(begin + (end - begin) / 4 < t < end - (end - begin) / 4 for t in ticks) for begin, end in spans
    ]
    assert max(during) > 0

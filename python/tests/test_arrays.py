"""How arrays come in: buffers, DLPack, __cuda_array_interface__; and what is said of those that do not fit."""

import array
import gc
import re
import sys
import tracemalloc
import weakref

import draftmeta
import fakes
import numpy as np
import pytest

LENS = np.array([5, 9], np.int32)


def fill(**fields):
    return draftmeta.Fill(**{"seq_lens": LENS, "extend_len": 1} | fields)


def expanded(seq_lens):
    out = np.full(2, -1, np.int32)
    fill(seq_lens=seq_lens, seqlens_expanded=out)()
    return out.tolist()


def read_only(memory):
    memory = memory.copy()
    memory.flags.writeable = False
    return memory


@pytest.mark.parametrize(
    "lens",
    [
        np.array([5, 9], np.int32),
        np.array([5, 9], np.int64),
        np.array([5, 9], np.longlong),
        read_only(LENS),
        np.array([0, 5, 9, 0], np.int32)[1:3],
        array.array("i", [5, 9]),
        array.array("q", [5, 9]),
        memoryview(array.array("l", [5, 9])),
        fakes.Exporter(LENS),
        fakes.Exporter(LENS.astype(np.int64)),
        fakes.Exporter(LENS, versioned=False),
        fakes.Exporter(LENS, read_only=True),
        fakes.Exporter(LENS, offset=64),
        fakes.Exporter(LENS, fakes.CUDA_HOST),
    ],
    ids=lambda x: type(x).__name__,
)
def test_inputs_come_as(lens):
    assert expanded(lens) == [5, 9]


@pytest.mark.parametrize("wrap", [np.asarray, memoryview, fakes.Exporter], ids=lambda x: x.__name__)
def test_outputs_come_as(wrap):
    out = np.full(2, -1, np.int32)
    fill(seqlens_expanded=wrap(out))()
    assert out.tolist() == [5, 9]


def test_tables_come_in_parts():
    slots = np.arange(40, dtype=np.int32).reshape(4, 10)
    pages = np.full((2, 8), -1, np.int32)
    fill(
        req_to_token=fakes.Exporter(slots[:, 2:8]),
        req_pool_indices=np.array([3, 1]),
        page_table_1=pages[:, :6],
        topk=1,
    )()
    assert pages.tolist() == [[32, 33, 34, 35, 36, -1, -1, -1], [12, 13, 14, 15, 16, 17, -1, -1]]


def test_empty_arrays_count_as_given():
    """An output of no tokens bounds them to none, even if its exporter has no address for it."""
    count = np.full(1, -1, np.int32)
    nothing = fakes.Exporter(np.empty(0, np.int32), null=True)
    fill(seqlens_expanded=nothing, num_tokens=count)()
    assert count.tolist() == [0]


def test_dlpack_is_asked_not_to_synchronise():
    host, pinned, device = (fakes.Exporter(LENS, kind) for kind in (fakes.CPU, fakes.CUDA_HOST, fakes.CUDA))
    expanded(host)
    expanded(pinned)
    with pytest.raises(ValueError, match="seqlens_expanded is on cpu:0, but seq_lens calls for cuda:0"):
        expanded(device)
    assert host.asked == pinned.asked == {"max_version": (1, 0)}
    assert device.asked == {"stream": -1, "max_version": (1, 0)}
    old = fakes.Exporter(LENS, fakes.CUDA, versioned=False)
    with pytest.raises(ValueError, match="is on cpu:0"):
        expanded(old)
    assert old.asked == {"stream": -1}


class Interface:
    """A __cuda_array_interface__ that is not what it should be."""

    def __init__(self, interface):
        self.__dict__["interface"] = interface

    @property
    def __cuda_array_interface__(self):
        return self.interface


class NoCapsule:
    def __dlpack__(self, **options):
        return 3

    def __dlpack_device__(self):
        return (1, 0)


class NoDevice(NoCapsule):
    def __dlpack_device__(self):
        return "cpu"


class Failing(NoCapsule):
    def __dlpack__(self, **options):
        raise RuntimeError("the exporter's own words")


class Interrupted(NoCapsule):
    def __dlpack__(self, **options):
        raise KeyboardInterrupt


def released():
    memory = memoryview(array.array("i", [5, 9]))
    memory.release()
    return memory


WRONG_INPUTS = [
    (3, TypeError, "seq_lens is of type <class 'int'>: it takes an array with __dlpack__"),
    ([5, 9], TypeError, "seq_lens is of type <class 'list'>"),
    (b"12345678", TypeError, "seq_lens has elements of type B: it takes int32 or int64"),
    (LENS.astype(np.int16), TypeError, "seq_lens has elements of type h"),
    (LENS.astype(np.uint32), TypeError, "seq_lens has elements of type I"),
    (LENS.astype(np.float32), TypeError, "seq_lens has elements of type f"),
    (LENS.astype(">i4"), TypeError, "seq_lens has elements of type >i"),
    (np.zeros(4, np.int32)[::2], ValueError, "seq_lens is not contiguous"),
    (np.zeros(4, np.int32)[::-1], ValueError, "seq_lens is not contiguous"),
    (np.zeros((2, 1), np.int32), ValueError, "seq_lens has 2 dimensions: it takes 1"),
    (np.zeros((), np.int32), ValueError, "seq_lens has 0 dimensions: it takes 1"),
    (np.zeros((1,) * 9, np.int32), ValueError, "seq_lens has 9 dimensions: at most 8 are understood"),
    (np.zeros(2, [("a", "<i4"), ("b", "<i2")])["a"], ValueError, "seq_lens has a stride of 6 bytes"),
    (fakes.Exporter(LENS.astype(np.float64)), TypeError, "seq_lens has elements of type float64"),
    (fakes.Exporter(LENS.astype(np.uint8)), TypeError, "seq_lens has elements of type uint8"),
    (fakes.Exporter(LENS, fakes.METAL), ValueError, "seq_lens is on a device of DLPack's type 8"),
    (fakes.Exporter(LENS, major=2), ValueError, "seq_lens comes in DLPack 2.0: version 1 is understood"),
    (fakes.Exporter(LENS, null=True), ValueError, "seq_lens has elements and no address"),
    (NoCapsule(), TypeError, r"seq_lens.__dlpack__\(\) did not return a DLPack capsule"),
    (NoDevice(), TypeError, r"seq_lens.__dlpack_device__\(\) did not return two integers"),
    (Failing(), ValueError, "seq_lens cannot be read: its exporter failed"),
    (np.zeros(2, "datetime64[s]"), ValueError, "seq_lens cannot be read: its exporter failed"),
    (released(), ValueError, "seq_lens cannot be read: its exporter failed"),
    (fakes.CudaArray(LENS, typestr="<f4"), TypeError, "seq_lens has elements of type <f4"),
    (fakes.CudaArray(LENS, mask=LENS), ValueError, "seq_lens is masked"),
    (fakes.CudaArray(LENS, strides=(8,)), ValueError, "seq_lens is not contiguous"),
    (fakes.CudaArray(LENS, strides=(6,)), ValueError, "seq_lens has a stride of 6 bytes"),
    (fakes.CudaArray(LENS, shape=(-1,)), ValueError, "seq_lens has a negative extent"),
    (fakes.CudaArray(LENS, shape=2), TypeError, "__cuda_array_interface__ that cannot be understood"),
    (fakes.CudaArray(LENS, strides=(4, 4)), TypeError, "__cuda_array_interface__ that cannot be understood"),
    (fakes.CudaArray(LENS, data=None), TypeError, "__cuda_array_interface__ that cannot be understood"),
    (fakes.CudaArray(LENS, data=(0, False)), ValueError, "seq_lens has elements and no address"),
    (Interface({}), TypeError, "seq_lens has elements of type missing"),
    (Interface(None), TypeError, "__cuda_array_interface__ that cannot be understood"),
]


@pytest.mark.parametrize("value, error, words", WRONG_INPUTS)
def test_wrong_inputs(value, error, words):
    with pytest.raises(error, match=words):
        fill(seq_lens=value)


def test_what_an_exporter_raised_is_the_cause():
    with pytest.raises(ValueError) as caught:
        fill(seq_lens=Failing())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert str(caught.value.__cause__) == "the exporter's own words"
    assert caught.value.__cause__.__traceback__
    with pytest.raises(KeyboardInterrupt):
        fill(seq_lens=Interrupted())


def table(rows, columns):
    return np.zeros((rows, columns), np.int32)


WRONG_OUTPUTS = [
    ("seqlens_expanded", np.zeros(2, np.int64), TypeError, "seqlens_expanded has elements of type int64"),
    ("seqlens_expanded", read_only(LENS), ValueError, "seqlens_expanded is read-only"),
    ("seqlens_expanded", b"1234", TypeError, "seqlens_expanded has elements of type B"),
    ("cache_seqlens", fakes.Exporter(LENS, read_only=True), ValueError, "cache_seqlens is read-only"),
    (
        "cache_seqlens",
        fakes.CudaArray(LENS, data=(LENS.ctypes.data, True)),
        ValueError,
        "cache_seqlens is read-only",
    ),
    ("cache_seqlens", table(1, 2), ValueError, "cache_seqlens has 2 dimensions: it takes 1"),
    ("context_lens", table(2, 4)[:, :2], ValueError, "context_lens is not contiguous"),
    ("page_table", LENS, ValueError, "page_table has 1 dimensions: it takes 2"),
    ("page_table", table(4, 2).T, ValueError, "page_table has columns that are not adjacent"),
    (
        "page_table",
        np.lib.stride_tricks.as_strided(LENS, (2, 2), (0, 4)),
        ValueError,
        "page_table has rows that overlap",
    ),
    ("page_table", table(2, 2)[::-1], ValueError, "page_table has rows that overlap"),
    (
        "report",
        np.zeros(3, np.int32),
        ValueError,
        "report has 3 elements: it takes 2 of int64, or 4 of int32",
    ),
    (
        "report",
        fakes.CudaArray(np.zeros(2, np.int64)),
        ValueError,
        "report is on cuda, but seq_lens calls for cpu:0",
    ),
]


@pytest.mark.parametrize("name, value, error, words", WRONG_OUTPUTS)
def test_wrong_outputs(name, value, error, words):
    with pytest.raises(error, match=words):
        fill(**{name: value})


WIDE = {"seq_lens", "extend_lens", "query_start_loc", "req_pool_indices", "report"}
ARRAYS = [(name, kind) for name, kind in draftmeta._core.fields.items() if kind in ("input", "output")]
HEADER = (draftmeta.include_dir() / "draftmeta.h").read_text()


@pytest.mark.parametrize("name, kind", ARRAYS)
def test_every_array(name, kind):
    """Each field takes the types that the header gives it, and outputs must be writable."""
    member = re.search(rf"(dm_\w+) \*?{name};", HEADER)
    assert (kind == "output") == (member.start() > HEADER.index("/* Outputs per token"))
    is_table = member[1] == "dm_table"
    good = np.zeros((2, 2) if is_table else 4, np.int32)

    def refused(value):
        try:
            draftmeta.Fill(**{"req_to_token": table(2, 2), name: value}, num_requests=0, topk=1, page_size=1)
        except (TypeError, ValueError) as error:
            return str(error)
        except draftmeta.Error as error:  # of the library, not of the binding
            assert error.status_name == "DM_ERR_CONFLICT"

    assert refused(good) is None
    wrong_shape = good.reshape(-1) if is_table else good.reshape(2, 2)
    may_have_any = name in ("context_lens", "num_tokens", "report")
    assert may_have_any == (refused(wrong_shape) is None)
    assert (name in WIDE) == (refused(good.astype(np.int64)) is None)
    assert (kind == "input") == (refused(read_only(good)) is None)
    for value in (good.astype(np.int64), wrong_shape, read_only(good), good.astype(np.float32)):
        assert (refused(value) or name).startswith(name)


@pytest.mark.parametrize(
    "places, words",
    [
        (
            {"seq_lens": fakes.Exporter(LENS, fakes.CUDA, 1)},
            "seqlens_expanded is on cuda:0, but seq_lens calls for cuda:1",
        ),
        (
            {"seq_lens": fakes.Exporter(LENS, fakes.ROCM)},
            "seqlens_expanded is on cuda:0, but seq_lens calls for hip:0",
        ),
        ({"backend": "cpu"}, "seqlens_expanded is on cuda:0, but backend calls for cpu"),
        ({"backend": "hip"}, "seqlens_expanded is on cuda:0, but backend calls for hip"),
        ({"device": 3}, "seqlens_expanded is on cuda:0, but device calls for cuda:3"),
        ({"seq_lens": LENS}, "seqlens_expanded is on cuda:0, but seq_lens calls for cpu:0"),
    ],
)
def test_arrays_lie_on_one_device(places, words):
    arrays = {"seq_lens": None} | places
    with pytest.raises(ValueError, match=words):
        fill(**arrays, seqlens_expanded=fakes.Exporter(LENS, fakes.CUDA))


def test_no_silent_fill_on_the_host():
    """Arrays of a GPU whose backend is not there are an error."""
    if any(b["ready"] for b in draftmeta.info()["backends"] if b["name"] == "cuda"):
        pytest.skip("there is a CUDA device here")
    with pytest.raises(draftmeta.Error, match="backend cuda cannot be used") as caught:
        fill(seq_lens=fakes.CudaArray(LENS))
    assert caught.value.status_name == "DM_ERR_NO_BACKEND"


# ---- Lifetimes ----


def test_buffers_are_kept_alive():
    memory = array.array("i", [5, 9])
    lens, out = fakes.Exporter(LENS.copy()), np.full(2, -1, np.int32)
    before = sys.getrefcount(out)
    bound = fill(seq_lens=memory, seqlens_expanded=out)
    assert sys.getrefcount(out) > before
    with pytest.raises(BufferError):
        memory.append(3)
    del bound
    gc.collect()
    assert sys.getrefcount(out) == before
    memory.append(3)
    del lens


def test_nothing_is_kept_after_a_failure():
    out = np.full(2, -1, np.int32)
    before = sys.getrefcount(out), sys.getrefcount(LENS)
    for _ in range(100):
        with pytest.raises(draftmeta.Error):
            fill(seqlens_expanded=out, extend_len=-1)
        with pytest.raises(TypeError):
            fill(seqlens_expanded=out, topk="much")
        with pytest.raises(TypeError):
            fill(seqlens_expanded=out)(1, what=out)
        with pytest.raises(TypeError):
            fill(seqlens_expanded=out)(1, page_table=3)
    gc.collect()
    assert (sys.getrefcount(out), sys.getrefcount(LENS)) == before


def memory_after(count, work):
    tracemalloc.start()
    for _ in range(count):
        work()
    gc.collect()
    now = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return now


def use_all():
    out, report = np.full(4, -1, np.int32), np.zeros(2, np.int64)
    schedule = draftmeta.Schedule(np.zeros((3, 2), np.int32))
    for lens in (LENS, fakes.Exporter(LENS), fakes.Exporter(LENS, versioned=False)):
        bound = fill(seq_lens=lens, seqlens_expanded=out, schedules=[schedule], report=report)
        bound(1, extend_len=2, schedules=[schedule])
        draftmeta.fill_many([bound, bound], [1, 2])
    draftmeta.read_report(report)
    draftmeta.info(), draftmeta.open("cpu"), repr(bound)
    for value, error, _ in WRONG_INPUTS:
        with pytest.raises(error):
            bound(1, seq_lens=value)


def test_nothing_leaks():
    use_all()
    few, many = memory_after(5, use_all), memory_after(105, use_all)
    assert many - few < 100 * 150  # the fakes take some


def test_cycles_are_collected():
    class Out(np.ndarray):
        pass

    out = np.zeros(2, np.int32).view(Out)
    out.fill_ = fill(seqlens_expanded=out)
    gone = weakref.ref(out)
    del out
    gc.collect()
    assert gone() is None

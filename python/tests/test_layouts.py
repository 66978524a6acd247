"""Fills that are bound by layout: which calls bind, and what is kept. The drop-ins for engines are made of them."""

import gc
import threading
import tracemalloc
import weakref

import draftmeta
import pytest
from draftmeta._bound import Part, head
from draftmeta._core import ByLayout

np = pytest.importorskip("numpy")
import fakes  # noqa: E402

POISON = -77
NAMES = ("lens", "out", "other", "table")


def bind(arrays, numbers):
    """A fill of the first numbers[0] requests: lengths into out and other."""
    lens, out, other, table = (None if a is None else Part(i) for i, a in enumerate(arrays))
    count = numbers[0]
    outputs = dict(seqlens_expanded=head(out, count), cache_seqlens=other)
    return [dict(seq_lens=lens, block_table=table, num_requests=count, extend_len=1, **outputs)]


def make(limit=100, bind=bind):
    return ByLayout(NAMES, bind, limit)


def place(values, offset=0):
    """A copy so many bytes behind a multiple of 64."""
    memory = np.zeros(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def lens(*values, dtype=np.int32):
    return place(np.array(values, dtype))


def poison(count, offset=0):
    return place(np.full(count, POISON, np.int32), offset)


def read_only(memory):
    memory.flags.writeable = False
    return memory


def table(rows, columns):
    return place(np.zeros((rows, columns), np.int32))


def test_other_addresses_bind_nothing():
    function, outs = make(), [poison(3) for _ in range(10)]
    for i, out in enumerate(outs):
        function.run((lens(5 + i, 9), out, None, None), (2,))
    assert (function.calls, function.binds, function.kept) == (10, 1, 1)
    assert [out.tolist() for out in outs] == [[5 + i, 9, POISON] for i in range(10)]


# What a call is changed in, so that it is of another layout than that of lens(5, 9), poison(3), None, None.
SHARED = poison(3)
OTHERS = {
    "type": {"lens": lens(5, 9, dtype=np.int64)},
    "length": {"lens": lens(5, 9, 7)},
    "alignment": {"out": poison(3, 4)},
    "alignment of 8": {"out": poison(3, 8)},
    "given": {"other": poison(3)},
    "the same twice": {"out": SHARED, "other": SHARED},
    "read-only": {"lens": read_only(lens(5, 9))},
    "table": {"table": table(2, 8)},
    "number": {"numbers": (1,)},
}


def run(function, changed):
    """Runs it with a layout's arrays, elsewhere, and checks what it wrote."""
    given = {"lens": lens(5, 9), "out": poison(3), "other": None, "table": None, "numbers": (2,)} | changed
    for output in (given["out"], given["other"]):
        if output is not None:
            output[...] = POISON
    function.run(tuple(given[name] for name in NAMES), given["numbers"])
    count = given["numbers"][0]
    for output in (given["out"], given["other"]):
        assert output is None or output.tolist() == [5, 9][:count] + [POISON] * (3 - count)


@pytest.mark.parametrize("name", OTHERS)
def test_other_layouts_bind(name):
    function = make()
    for _ in range(3):
        for changed in ({}, OTHERS[name]):
            run(function, changed)
    assert (function.binds, function.kept, function.calls) == (2, 2, 6)


def test_every_layout_is_its_own():
    function = make()
    for _ in range(3):
        for changed in ({}, *OTHERS.values()):
            run(function, changed)
    assert function.binds == function.kept == len(OTHERS) + 1


TABLES = {
    "rows": table(4, 8),
    "columns": table(2, 16),
    "stride": table(2, 16)[:, :8],
    "no rows": table(0, 8),
    "transposed shape": table(8, 2),
}


@pytest.mark.parametrize("name", TABLES)
def test_shapes_and_strides_of_tables(name):
    function = make()
    for _ in range(2):
        for source in (table(2, 8), TABLES[name]):
            run(function, {"table": source})
    assert function.binds == 2


def test_which_arrays_are_one():
    """All ways in which three arrays may be one, at addresses that change from turn to turn."""
    function = ByLayout(("a", "b", "c"), lambda arrays, numbers: [dict(num_requests=0, extend_len=1)], 100)
    for _ in range(3):
        a, b, c = lens(1), lens(2), lens(3)
        for arrays in ((a, b, c), (a, a, c), (a, b, a), (a, b, b), (a, a, a)):
            function.run(arrays, ())
    assert function.binds == 5


def test_other_memory_where_some_was():
    """The same address with another type: what was freed there does not count."""
    function, memory = make(), lens(0, 0, 0, 0)
    for _ in range(3):
        for dtype in (np.int64, np.int32):
            values = memory.view(dtype)[:2]
            values[...] = (5, 9)
            run(function, {"lens": values})
    assert function.binds == 2


def test_arrays_without_elements():
    function = make()
    for _ in range(3):
        nothing = fakes.Exporter(np.empty(0, np.int32), null=True)
        function.run((nothing, nothing, poison(2), None), (0,))
        function.run((np.empty(0, np.int32), poison(0), poison(2), None), (0,))
    assert function.binds <= 2 + 2  # NumPy's arrays without elements lie at addresses of any alignment


def test_parts():
    """Rows in the middle of an array of any shape, and the left columns of a table."""

    def parts(arrays, numbers):
        rows, columns, skip = numbers
        lengths = dict(seq_lens=Part(0), context_lens=Part(1, 4, skip=skip), block_table=Part(2))
        return [dict(lengths, extend_len=1, page_size=1, page_table=Part(3, rows, columns))]

    function = ByLayout(("lens", "context", "source", "pages"), parts, 10)
    for turn in range(3):
        source = np.arange(20, dtype=np.int32).reshape(2, 10) + 100 * turn
        context, pages = poison((4, 2)), poison((5, 8))
        function.run((lens(5, 9), context, place(source), pages), (4, 6, 2))
        assert context.flatten().tolist() == [POISON] * 2 + [5, 9] + [POISON] * 4
        assert pages[0].tolist() == [*source[0, :5]] + [POISON] * 3
        assert pages[1].tolist() == [*source[1, :6]] + [POISON] * 2
        assert (pages[2:] == POISON).all()
    assert function.binds == 1


def test_several_fills():
    def two(arrays, numbers):
        return [dict(seq_lens=Part(0), extend_len=1, seqlens_expanded=Part(i)) for i in (1, 2)]

    function = make(bind=two)
    for i in range(3):
        out, other = poison(2), poison(2)
        function.run((lens(5 + i, 9), out, other, None), ())
        assert out.tolist() == other.tolist() == [5 + i, 9]
    assert function.binds == 1


# ---- What is kept ----


def test_the_one_that_was_not_used_for_longest_goes_first():
    function = make(limit=3)

    def binds(count):
        before = function.binds
        function.run((lens(*range(9)), None, None, None), (count,))
        assert function.kept <= 3
        return function.binds - before

    assert [binds(n) for n in (1, 2, 3)] == [1, 1, 1]
    assert [binds(n) for n in (1, 4, 1, 3, 4)] == [0, 1, 0, 0, 0]  # 2 went
    assert [binds(n) for n in (2, 3, 4, 1)] == [1, 0, 0, 1]  # 1 went, then 2
    assert [binds(n) for n in (3, 2)] == [0, 1]


def test_one_in_use_outlives_any_number_of_others():
    function = make(limit=50)
    for i in range(1, 2 * 50 + 1):
        function.run((lens(*range(200)), None, None, None), (i,))
        function.run((lens(5, 9), poison(2), None, None), (2,))
    assert function.binds == 2 * 50 + 1
    assert function.kept == 50


def test_no_array_is_kept():
    class Out(np.ndarray):
        pass

    function, gone = make(), []
    for _ in range(3):
        out = poison(2).view(Out)
        function.run((lens(5, 9), out, None, None), (2,))
        gone.append(weakref.ref(out))
        del out
    assert [ref() for ref in gone] == [None] * 3


def test_cycles_are_collected():
    class Bind:
        def __call__(self, arrays, numbers):
            return bind(arrays, numbers)

    made = Bind()
    made.function = make(bind=made)
    made.function.run((lens(5, 9), poison(2), None, None), (2,))
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_nothing_leaks():
    function = make(limit=4)
    wrong = ByLayout(NAMES, lambda arrays, numbers: [dict(seq_lens=Part(0), what=1)], 4)

    def use():
        for count in range(8):
            function.run((lens(*range(9)), poison(9), fakes.Exporter(poison(9)), None), (count,))
        for call in (lambda: wrong.run((lens(5), None, None, None), ()), lambda: function.run((3,) * 4, ())):
            with pytest.raises(TypeError):
                call()

    def memory_after(count):
        tracemalloc.start()
        for _ in range(count):
            use()
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return now

    use()
    few, many = memory_after(5), memory_after(105)
    assert many - few < 100 * 150


# ---- Errors ----


def test_what_fails_to_bind_is_not_kept():
    function = make()
    for _ in range(2):
        with pytest.raises(draftmeta.Error, match="seq_lens.len is 2: it must be at least 3"):
            function.run((lens(5, 9), poison(3), None, None), (3,))
        with pytest.raises(ValueError, match="seqlens_expanded has 1 rows: at least 2 are needed"):
            function.run((lens(5, 9), poison(1), None, None), (2,))
        with pytest.raises(TypeError, match="seqlens_expanded has elements of type int64"):
            function.run((lens(5, 9), lens(5, 9, dtype=np.int64), None, None), (2,))
        with pytest.raises(ValueError, match="seqlens_expanded is not contiguous"):
            function.run((lens(5, 9), poison(4)[::2], None, None), (2,))
        with pytest.raises(ValueError, match="seqlens_expanded is read-only"):
            function.run((lens(5, 9), fakes.Exporter(poison(2), read_only=True), None, None), (2,))
    assert (function.calls, function.binds, function.kept) == (0, 0, 0)
    run(function, {})


def test_what_is_no_array():
    function = make()
    run(function, {})
    with pytest.raises(TypeError, match="out is of type <class 'int'>: it takes an array"):
        function.run((lens(5, 9), 3, None, None), (2,))
    with pytest.raises(ValueError, match="lens has elements and no address"):
        function.run((fakes.Exporter(lens(5, 9), null=True), poison(3), None, None), (2,))
    with pytest.raises(ValueError, match="lens has a negative extent"):
        function.run((fakes.CudaArray(lens(5, 9), shape=(-1,)), poison(3), None, None), (2,))
    with pytest.raises(TypeError, match="unhashable"):
        function.run((lens(5, 9), poison(3), None, None), ([2],))
    assert function.binds == 1


@pytest.mark.parametrize(
    "fills, error, words",
    [
        ([], ValueError, "0 fills to bind"),
        ([{}] * 3, ValueError, "3 fills to bind: 1 to 2"),
        ([3], TypeError, "a fill is bound from a dict"),
        (3, TypeError, None),
        ([dict(what=1)], TypeError, "'what' is not an argument of a fill"),
        ([dict(seq_lens=Part(9))], ValueError, "seq_lens is not among the arrays of the call"),
        ([dict(seq_lens=Part(2))], ValueError, "seq_lens is not among the arrays of the call"),
        ([dict(seq_lens=(0,))], TypeError, None),
    ],
)
def test_wrong_bindings(fills, error, words):
    function = make(bind=lambda arrays, numbers: fills)
    with pytest.raises(error, match=words):
        function.run((lens(5, 9), poison(2), None, None), ())
    assert function.kept == 0


def test_wrong_calls():
    function = make()
    for arguments in ((), ((),), ([None] * 4, ()), ((None,) * 4, 3), ((None,) * 4, (), None)):
        with pytest.raises(TypeError, match="run takes a tuple of arrays and a tuple of numbers"):
            function.run(*arguments)
    with pytest.raises(TypeError, match="run takes 4 arrays"):
        function.run((None,) * 3, ())
    with pytest.raises(ValueError, match="17 arrays: at most 16"):
        ByLayout(tuple("abcdefghijklmnopq"), bind, 3)
    with pytest.raises(ValueError, match="limit is 0"):
        make(limit=0)


def test_the_first_call_is_told():
    told = []
    function = ByLayout(NAMES, bind, 3, lambda *where: told.append(where))
    for count in (2, 1, 2):
        function.run((lens(5, 9), poison(2), None, None), (count,))
    assert told == [("cpu", 0)]


# ---- Threads ----


@pytest.mark.parametrize("columns", [8, 2048])  # in the longer ones the interpreter is let go
def test_threads_with_one_layout(columns):
    """Each has arrays of its own; what one thread's call writes stands in its own arrays, and only there."""
    rows, width = 64, columns

    def pages(arrays, numbers):
        fields = dict(seq_lens=Part(0), block_table=Part(1), page_table=Part(2))
        return [dict(fields, extend_len=1, page_size=1)]

    function, failures = ByLayout(("lens", "source", "pages"), pages, 3), []
    barrier = threading.Barrier(4)

    def work(number):
        lengths = place(np.full(rows, width, np.int32))
        barrier.wait()
        for turn in range(100):
            source = place(np.full((rows, width), 1000 * number + turn, np.int32))
            out = poison((rows, width))
            function.run((lengths, source, out), ())
            if not (out == source).all():
                failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert function.calls == 400
    assert function.kept == 1 and function.binds <= 4


def test_threads_with_many_layouts():
    function, failures = make(limit=5), []

    def work(first):
        for turn in range(300):
            count = (first + turn) % 12
            out = poison(12)
            function.run((lens(*range(1, 13)), out, None, None), (count,))
            if out.tolist() != [*range(1, count + 1)] + [POISON] * (12 - count):
                failures.append((first, turn))

    threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (function.calls, function.kept) == (1200, 5)

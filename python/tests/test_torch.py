"""PyTorch: tensors, operators under torch.compile, CUDA graphs, streams."""

import draftmeta
import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
import draftmeta.torch as ops  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use")


def tensor(*values, **options):
    return torch.tensor(values, dtype=torch.int32, **options)


def test_tensors():
    out, table = torch.full((6,), -1, dtype=torch.int32), torch.full((2, 8), -1, dtype=torch.int32)
    slots = torch.arange(40, dtype=torch.int32).reshape(2, 20)
    fill = draftmeta.Fill(
        seq_lens=torch.tensor([3, 4]),
        extend_len=1,
        seqlens_expanded=out[2:],
        req_to_token=slots[:, 5:],
        page_table_1=table[:, 1:7],
    )
    fill()
    assert out.tolist() == [-1, -1, 3, 4, -1, -1]
    assert table.tolist() == [[-1, 5, 6, 7, -1, -1, -1, -1], [-1, 25, 26, 27, 28, -1, -1, -1]]


@pytest.mark.parametrize(
    "lens, error, words",
    [
        (tensor(1, 2, 3, 4)[::2], ValueError, "seq_lens is not contiguous"),
        (torch.zeros(2), TypeError, "seq_lens has elements of type float32"),
        (torch.zeros(2, dtype=torch.bool), TypeError, "seq_lens has elements of type bool8"),
        (torch.zeros(2, 2, dtype=torch.int32), ValueError, "seq_lens has 2 dimensions"),
        (torch.zeros(2, dtype=torch.int32, device="meta"), ValueError, "seq_lens cannot be read"),
        (torch.zeros(2, dtype=torch.int32).to_sparse(), ValueError, "seq_lens cannot be read"),
    ],
    ids=["strided", "float32", "bool", "square", "meta", "sparse"],
)
def test_wrong_tensors(lens, error, words):
    with pytest.raises(error, match=words):
        draftmeta.Fill(seq_lens=lens, extend_len=1)


class OldTensor:
    """A tensor of a PyTorch without the fast exchange of DLPack."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_tensors_of_an_older_pytorch():
    out = tensor(-1, -1)
    draftmeta.fill(seq_lens=OldTensor(tensor(5, 9)), extend_len=1, cache_seqlens=OldTensor(out))
    assert out.tolist() == [5, 9]


# ---- Operators ----


def arguments(device="cpu"):
    return {
        "seq_lens": tensor(6, 1, 12, device=device),
        "extend_len": 2,
        "topk": 4,
        "seqlens_expanded": torch.full((8,), -1, dtype=torch.int32, device=device),
        "dsa_cache_seqlens": torch.full((8,), -1, dtype=torch.int32, device=device),
        "cu_seqlens_q": torch.full((4,), -1, dtype=torch.int32, device=device),
        "schedules": [
            draftmeta.Schedule(torch.full((5, 2), -1, dtype=torch.int32, device=device), unit="request")
        ],
        "padded_tokens": 7,
    }


def outputs(fields):
    arrays = [fields[name] for name in ("seqlens_expanded", "dsa_cache_seqlens", "cu_seqlens_q")]
    return [x.tolist() for x in (*arrays, fields["schedules"][0].table)]


EXPECTED = [
    [5, 6, 0, 1, 11, 12, 0, -1],
    [4, 4, 0, 1, 4, 4, 0, -1],
    [0, 2, 4, 6],
    [[0, 0], [0, 0], [1, 0], [2, 0], [3, 0]],
]


def test_the_operator():
    fields = arguments()
    ops.fill(**fields)
    want = arguments()
    draftmeta.fill(**want)
    assert outputs(fields) == outputs(want) == EXPECTED


def test_the_operator_takes_schedules_apart():
    fields = arguments()
    [schedule] = fields.pop("schedules")
    torch.ops.draftmeta.fill(
        **fields, schedule1_table=schedule.table, schedule1_unit="request", schedule1_slots=3
    )
    assert schedule.table.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [-1, -1]]


def test_draft_extend():
    expanded, sparse = torch.full((6,), -1, dtype=torch.int32), torch.full((6,), -1, dtype=torch.int32)
    ops.fill_draft_extend(tensor(6, 12), torch.tensor([2, 3]), 11, expanded, sparse)
    assert (expanded.tolist(), sparse.tolist()) == ([5, 6, 10, 11, 12, -1], [5, 6, 10, 11, 11, -1])


def test_the_operators_refuse_with_the_same_words():
    with pytest.raises(draftmeta.Error, match="topk is 0"):
        ops.fill(**arguments() | {"topk": 0})
    with pytest.raises(TypeError, match="seqlens_expanded has elements of type int64"):
        ops.fill(**arguments() | {"seqlens_expanded": torch.zeros(8, dtype=torch.int64)})


def flat_arguments(device="cpu"):
    fields = arguments(device)
    [schedule] = fields.pop("schedules")
    return fields | {"schedule0_table": schedule.table, "schedule0_unit": "request"}


@pytest.mark.parametrize(
    "operator, positional, keywords",
    [
        (torch.ops.draftmeta.fill.default, (), flat_arguments()),
        (torch.ops.draftmeta.fill_draft_extend.default, (tensor(6, 1), tensor(2, 1), 4, tensor(0, 0, 0)), {}),
    ],
    ids=["fill", "fill_draft_extend"],
)
def test_opcheck(operator, positional, keywords):
    results = torch.library.opcheck(operator, positional, keywords)
    assert set(results.values()) == {"SUCCESS"}


def step(fields):
    """A part of a model around a fill: writes, reads and views of the same buffers."""
    fields["seqlens_expanded"].fill_(-1)
    ops.fill(**fields)
    doubled = fields["seqlens_expanded"] * 2
    ops.fill_draft_extend(fields["seq_lens"], fields["seq_lens"] * 0 + 1, 9, fields["dsa_cache_seqlens"][3:])
    return doubled


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
def test_compiled(compiler):
    torch._dynamo.reset()
    compiled = torch.compile(step, backend=compiler, fullgraph=True)
    for _ in range(2):
        fields = arguments()
        assert compiled(fields).tolist() == [2 * x for x in EXPECTED[0]]
        want = [EXPECTED[0], [4, 4, 0, 6, 1, 12, 0, -1], *EXPECTED[2:]]
        assert outputs(fields) == want


def test_compiled_for_any_size():
    torch._dynamo.reset()

    def any_size(lens, out):
        ops.fill(seq_lens=lens, extend_len=1, seqlens_expanded=out, num_requests=lens.shape[0])
        return out + 1

    compiled = torch.compile(any_size, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (2, 5, 11):
        lens = torch.arange(size)
        assert compiled(lens, torch.zeros(size, dtype=torch.int32)).tolist() == [i + 1 for i in range(size)]


# ---- Streams ----


@needs_gpu
def test_streams():
    """A fill runs on the current stream: behind what was enqueued there before."""
    fields = arguments("cuda")
    lens = fields["seq_lens"].clone()
    fill = draftmeta.Fill(**fields)
    stream = torch.cuda.Stream()
    for choose in ("current", "given"):
        torch.cuda.synchronize()
        fields["seq_lens"].zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(100_000_000)
            fields["seq_lens"].copy_(lens)
            if choose == "current":
                fill()
        if choose == "given":
            fill(stream=stream)
        stream.synchronize()
        assert outputs(fields) == EXPECTED


# ---- Graphs ----


@needs_gpu
@pytest.mark.parametrize("way", ["Fill", "fill", "operator", "compiled"])
def test_cuda_graph(way):
    fields = arguments("cuda")
    bound = draftmeta.Fill(**fields)
    torch._dynamo.reset()
    calls = {
        "Fill": bound,
        "fill": lambda: draftmeta.fill(**fields),
        "operator": lambda: ops.fill(**fields),
        "compiled": torch.compile(lambda: ops.fill(**fields), backend="aot_eager", fullgraph=True),
    }
    calls[way]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls[way]()
    fields["seq_lens"].zero_()
    graph.replay()
    assert outputs(fields)[0] == [0] * 7 + [-1]
    fields["seq_lens"].copy_(tensor(6, 1, 12))
    graph.replay()
    assert outputs(fields) == EXPECTED


@needs_gpu
def test_many_in_a_graph():
    fields = [arguments("cuda") for _ in range(8)]
    fills = [draftmeta.Fill(**f) for f in fields]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draftmeta.fill_many(fills)
    graph.replay()
    assert [outputs(f) for f in fields] == [EXPECTED] * 8


@needs_gpu
def test_drop_ins_in_a_graph():
    """Each call has an output of its own, and goes on the stream that is captured."""
    from draftmeta import sglang

    lens, queries = tensor(6, 12).cuda(), tensor(2, 2).cuda()
    sglang.seqlens_expand_triton(queries, lens, 4, 2)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outs = [sglang.seqlens_expand_triton(queries, lens, 4, 2) for _ in range(3)]
    lens.copy_(tensor(7, 3))
    graph.replay()
    assert [out.tolist() for out in outs] == [[6, 7, 2, 3]] * 3


@needs_gpu
def test_drop_ins_on_another_stream():
    from draftmeta import sglang

    lens, queries, stream = tensor(0, 0).cuda(), tensor(2, 2).cuda(), torch.cuda.Stream()
    sglang.seqlens_expand_triton(queries, lens, 4, 2)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        lens.copy_(tensor(7, 3))
        out = sglang.seqlens_expand_triton(queries, lens, 4, 2)
    stream.synchronize()
    assert out.tolist() == [6, 7, 2, 3]


def test_tables_without_rows():
    empty = torch.from_numpy(np.zeros((0, 5), np.int32))
    fields = arguments() | {"req_to_token": empty}
    draftmeta.Fill(**fields)()
    assert outputs(fields) == EXPECTED


@needs_gpu
def test_pinned_inputs():
    fields = arguments("cuda")
    fields["seq_lens"] = tensor(6, 1, 12).pin_memory()
    if fields["seq_lens"].__dlpack_device__()[0] == 1:
        pytest.skip("this torch says of pinned memory only that it is the host's")
    draftmeta.Fill(**fields)()
    assert outputs(fields) == EXPECTED


@needs_gpu
def test_arrays_on_host_and_gpu():
    with pytest.raises(ValueError, match="seqlens_expanded is on c.*, but seq_lens calls for c"):
        draftmeta.Fill(**arguments("cuda") | {"seq_lens": tensor(6, 1, 12)})


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_another_gpu_than_the_current():
    fields = arguments("cuda:1")
    fill = draftmeta.Fill(**fields)
    assert fill.device == 1
    fill()
    torch.cuda.synchronize(1)
    assert outputs(fields) == EXPECTED
    assert torch.cuda.current_device() == 0

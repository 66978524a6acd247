"""What reaches a GPU's driver: devices and streams. Over the test driver only, which is told by its environment."""

import sys
from types import SimpleNamespace

import draftmeta
import fakes
import numpy as np
import pytest
from draftmeta import sglang
from draftmeta._bound import Part
from draftmeta._core import ByLayout

NO_STREAM = 12345  # the driver refuses it, which shows that it got it


class Tensor(fakes.CudaArray):
    """Stands for PyTorch's."""


class NewTensor(fakes.Exchanged):
    """Stands for those of PyTorch 2.10 and later."""


@pytest.fixture
def memory():
    return fakes.test_driver("cuda").copy(np.array([5, 9], np.int32))


@pytest.fixture
def torch(monkeypatch):
    """A PyTorch whose current stream is torch.stream; torch.asked lists the devices that it was asked for."""

    def get_stream(device):
        fake.asked.append(device)
        return fake.stream

    fake = SimpleNamespace(Tensor=(Tensor, NewTensor), asked=[], stream=0)
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setitem(sys.modules, "torch._C", SimpleNamespace(_cuda_getCurrentRawStream=get_stream))
    return fake


def test_tensors_of_pytorch_go_on_its_current_stream(torch, memory):
    fill = draftmeta.Fill(seq_lens=Tensor(memory), extend_len=1)
    fill()
    draftmeta.fill_many([fill])
    assert torch.asked == [0, 0]
    fill(stream=0)
    assert len(torch.asked) == 2
    torch.stream = NO_STREAM
    calls = (
        fill,
        lambda: fill(1, extend_len=2),
        lambda: draftmeta.fill_many([fill]),
        lambda: draftmeta.fill(seq_lens=Tensor(memory), extend_len=1),
        lambda: draftmeta.read_report(Tensor(memory.repeat(2)), backend="cuda"),
    )
    for i, call in enumerate(calls):
        with pytest.raises(draftmeta.Error) as caught:
            call()
        assert caught.value.status_name == "DM_ERR_DRIVER"
        assert len(torch.asked) == 3 + i


def test_other_arrays_go_on_the_default_stream(torch, memory):
    draftmeta.Fill(seq_lens=fakes.CudaArray(memory), extend_len=1)()
    assert not torch.asked


@pytest.mark.parametrize(
    "stream",
    [
        NO_STREAM,
        np.int64(NO_STREAM),
        SimpleNamespace(cuda_stream=NO_STREAM),
        SimpleNamespace(ptr=NO_STREAM),
        SimpleNamespace(handle=np.int64(NO_STREAM)),
    ],
    ids=str,
)
def test_streams_reach_the_driver(memory, stream):
    fill = draftmeta.Fill(seq_lens=fakes.CudaArray(memory), extend_len=1)
    for call in (fill, lambda **s: fill(1, extend_len=1, **s), lambda **s: draftmeta.fill_many([fill], **s)):
        with pytest.raises(draftmeta.Error) as caught:
            call(stream=stream)
        assert caught.value.status_name == "DM_ERR_DRIVER"
        call(stream=None)


def test_fills_of_unlike_devices_do_not_go_together(memory):
    there = draftmeta.Fill(seq_lens=fakes.CudaArray(memory), extend_len=1)
    here = draftmeta.Fill(seq_lens=np.zeros(2, np.int32), extend_len=1)
    with pytest.raises(ValueError, match=r"fills\[1\] is on cpu:0, but fills\[0\] is on cuda:0"):
        draftmeta.fill_many([there, here])


def test_devices(memory):
    """The ordinal is DLPack's, or the argument's where the array does not say."""
    wrong = fakes.Exporter(memory, fakes.CUDA, 99)
    with pytest.raises(draftmeta.Error, match="options.device is 99"):
        draftmeta.Fill(seq_lens=wrong, extend_len=1)
    with pytest.raises(draftmeta.Error, match="options.device is 99"):
        draftmeta.Fill(seq_lens=fakes.CudaArray(memory), extend_len=1, device=99)
    assert draftmeta.Fill(seq_lens=fakes.Exporter(memory, fakes.CUDA, 0), extend_len=1).device == 0


def test_pinned_memory_goes_with_a_device(memory):
    out = fakes.test_driver("cuda").copy(np.zeros(2, np.int32))
    pinned = fakes.Exporter(memory, fakes.CUDA_HOST)
    fill = draftmeta.Fill(seq_lens=pinned, extend_len=1, cache_seqlens=fakes.Exporter(out, fakes.CUDA))
    fill()
    assert (fill.backend, out.tolist()) == ("cuda", [5, 9])


def test_the_package_opens_a_device_once(memory):
    first, second = draftmeta.open("cuda"), draftmeta.open()
    assert (first.backend, second.backend) == ("cuda", "cuda")
    assert first.info == second.info


# ---- Bound by layout ----

POISON = -77


def device_array(*values, driver="cuda", dtype=np.int32):
    return fakes.test_driver(driver).copy(np.array(values, dtype))


def kinds_of_arrays():
    return [
        pytest.param(Tensor, id="interface"),
        pytest.param(lambda memory: NewTensor(memory, fakes.CUDA), id="exchange"),
        pytest.param(lambda memory: fakes.Exporter(memory, fakes.CUDA), id="capsule"),
    ]


def lengths_function():
    def bind(arrays, numbers):
        return [dict(seq_lens=Part(0), extend_len=1, seqlens_expanded=Part(1))]

    return ByLayout(("lens", "out"), bind, 10)


@pytest.mark.parametrize("wrap", kinds_of_arrays())
def test_addresses_are_passed(wrap):
    """What a call writes lands in its own buffers, and nowhere else."""
    function, outs = lengths_function(), [device_array(POISON, POISON) for _ in range(5)]
    for i, out in enumerate(outs):
        function.run((wrap(device_array(5 + i, 9)), wrap(out)), ())
        assert [o.tolist() for o in outs[i + 1 :]] == [[POISON, POISON]] * (4 - i)
    assert [out.tolist() for out in outs] == [[5 + i, 9] for i in range(5)]
    assert function.binds == 1


@pytest.mark.parametrize("wrap", kinds_of_arrays())
def test_drop_ins_pass_addresses(wrap):
    """SGLang's decode with new outputs at each step, tables among them."""
    function = sglang._calls.functions["fused_dsa_decode_metadata"]
    slots = np.arange(3 * 128, dtype=np.int32).reshape(3, 128)
    source, before = fakes.test_driver("cuda").copy(slots), function.binds
    for step in range(4):
        lengths = [70 + step, 5]
        vectors = [device_array(*[POISON] * n) for n in (2, 3, 2, 3)]
        wide, pages = (fakes.test_driver("cuda").copy(np.full((2, n), POISON, np.int32)) for n in (128, 2))
        cache, prefix, kept, kept_prefix = map(wrap, vectors)
        sglang.fused_dsa_decode_metadata(
            wrap(device_array(*lengths, dtype=np.int64)),
            wrap(device_array(2, 1, dtype=np.int64)),
            wrap(source),
            cache,
            prefix,
            wrap(wide),
            kept,
            kept_prefix,
            wrap(pages),
            bs=2,
            max_len=128,
            dsa_index_topk=64,
            physical_page_size=64,
        )
        total = [0, lengths[0], lengths[0] + 5]
        assert [v.tolist() for v in vectors] == [lengths, total, [64, 5], [0, 64, 69]]
        for row, (length, pool) in enumerate(zip(lengths, (2, 1))):
            assert wide[row].tolist() == [*slots[pool, :length]] + [POISON] * (128 - length)
        assert pages.tolist() == [[4, 5], [2, POISON]]
    assert function.binds == before + 1


def test_each_device_is_a_layout_of_its_own():
    function = lengths_function()
    for _ in range(3):
        for driver, device in (("cuda", fakes.CUDA), ("hip", fakes.ROCM)):
            lens, out = device_array(5, 9, driver=driver), device_array(POISON, POISON, driver=driver)
            function.run((NewTensor(lens, device), NewTensor(out, device)), ())
            assert out.tolist() == [5, 9]
        host = np.full(2, POISON, np.int32)
        function.run((NewTensor(np.array([5, 9], np.int32)), NewTensor(host)), ())
        assert host.tolist() == [5, 9]
    assert function.binds == 3
    with pytest.raises(draftmeta.Error, match="options.device is 99"):
        function.run((NewTensor(lens, fakes.CUDA, 99), NewTensor(out, fakes.CUDA, 99)), ())


def test_layouts_of_pytorch_go_on_its_current_stream(torch):
    function, lens, out = lengths_function(), device_array(5, 9), device_array(POISON, POISON)
    tensors = NewTensor(lens, fakes.CUDA), NewTensor(out, fakes.CUDA)
    function.run(tensors, ())
    function.run(tensors, ())
    assert torch.asked == [0, 0]
    torch.stream = NO_STREAM
    with pytest.raises(draftmeta.Error) as caught:
        function.run(tensors, ())
    assert caught.value.status_name == "DM_ERR_DRIVER"
    assert (function.calls, function.binds) == (2, 1)
    # Arrays of others, in the same layout, go on the default stream.
    function.run((fakes.Exporter(lens, fakes.CUDA), fakes.Exporter(out, fakes.CUDA)), ())
    assert len(torch.asked) == 3


def test_pinned_memory_is_told_from_the_hosts_at_each_call():
    function, out = lengths_function(), NewTensor(device_array(POISON, POISON), fakes.CUDA)
    for _ in range(2):
        function.run((NewTensor(np.array([5, 9], np.int32), pinned=True), out), ())
        with pytest.raises(ValueError, match="seqlens_expanded is on cuda:0, but seq_lens calls for cpu:0"):
            function.run((NewTensor(np.array([5, 9], np.int32)), out), ())
    assert (function.calls, function.binds) == (2, 1)

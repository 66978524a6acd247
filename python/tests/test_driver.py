"""What reaches a GPU's driver: devices and streams. Over the test driver only, which is told by its environment."""

import sys
from types import SimpleNamespace

import draftmeta
import fakes
import numpy as np
import pytest

NO_STREAM = 12345  # the driver refuses it, which shows that it got it


class Tensor(fakes.CudaArray):
    """Stands for PyTorch's."""


@pytest.fixture
def memory():
    return fakes.test_driver("cuda").copy(np.array([5, 9], np.int32))


@pytest.fixture
def torch(monkeypatch):
    """A PyTorch whose current stream is torch.stream; torch.asked lists the devices that it was asked for."""

    def get_stream(device):
        fake.asked.append(device)
        return fake.stream

    fake = SimpleNamespace(Tensor=Tensor, asked=[], stream=0)
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

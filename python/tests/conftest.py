"""The places where fills run: the host, and the GPUs of this machine.

Where the variables DRAFTMETA_CUDA_LIBRARY and DRAFTMETA_HIP_LIBRARY name the test driver (tests/simt), "device" memory
is host memory and arrays are fakes around NumPy's; else they are PyTorch's. DRAFTMETA_REQUIRE=cuda (or hip) makes a
place that is missing an error.
"""

import os
import tempfile

import draftmeta
import pytest

try:
    import fakes
except pytest.skip.Exception:  # without NumPy; the modules that need it are skipped too
    fakes = None

# What torch.compile remembers of another version's operators would be taken for this one's.
CACHE = tempfile.TemporaryDirectory(prefix="draftmeta-inductor-")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = CACHE.name

IS_FAKE = "DRAFTMETA_CUDA_LIBRARY" in os.environ
collect_ignore = [] if IS_FAKE else ["test_driver.py"]


class Place:
    """put(NumPy array) gives what a fill takes, cut() the left columns of that, and get() copies it back."""

    def __init__(self, backend):
        self.backend = backend
        self.is_fake = IS_FAKE and backend != "cpu"

    def export(self, memory):
        return fakes.CudaArray(memory) if self.backend == "cuda" else fakes.Exporter(memory, fakes.ROCM)

    def put(self, array):
        if self.backend == "cpu":
            return array.copy()
        if self.is_fake:
            return self.export(fakes.test_driver(self.backend).copy(array))
        import torch

        return torch.from_numpy(array).cuda()

    def cut(self, exported, columns):
        return self.export(exported.memory[:, :columns]) if self.is_fake else exported[:, :columns]

    def get(self, exported):
        if self.backend == "cpu":
            return exported.copy()
        return exported.memory.copy() if self.is_fake else exported.cpu().numpy()


def find_places():
    ready = {backend["name"] for backend in draftmeta.info()["backends"] if backend["ready"]}
    required = os.environ.get("DRAFTMETA_REQUIRE")
    if required and required not in ready:
        raise pytest.UsageError(f"DRAFTMETA_REQUIRE={required}, which is not there: {draftmeta.info()}")
    return [backend for backend in ("cpu", "cuda", "hip") if backend in ready]


def find_devices():
    """Where PyTorch's tensors may be that fills take; a GPU is "cuda" to it, whoever made it."""
    import torch

    return ["cpu"] + (["cuda"] if torch.cuda.is_available() and len(find_places()) > 1 else [])


def pytest_generate_tests(metafunc):
    if "place" in metafunc.fixturenames:
        metafunc.parametrize("place", find_places(), indirect=True)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", find_devices(), indirect=True)


@pytest.fixture
def place(request):
    return Place(request.param)


@pytest.fixture
def device(request):
    """Makes it the device of every tensor that the test makes."""
    import torch

    with torch.device(request.param):
        yield request.param

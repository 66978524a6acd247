"""What the drop-ins' tests share: naive references, and a way to load an engine's kernels without the engine."""

import functools
import os
import sys
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

POISON = -77

os.environ.setdefault("DRAFTMETA_CHECK", "1")  # buffers that overlap are errors


def poisoned(*shape):
    return torch.full(shape, POISON, dtype=torch.int32)


def ints(*values, dtype=torch.int32):
    return torch.tensor(values, dtype=dtype)


def ceil_div(a, b):
    return -(-a // b)


def schedule(lengths, n, slots, variant, divisor=1):
    """The entries for units of n tokens, by the formulas in draftmeta.h."""
    segments = [ceil_div(c // divisor, 256) for c in lengths]
    atoms = n if variant == "sm100" else ceil_div(n, 2)
    total = sum(segments) * atoms
    quotient, rest = divmod(total, slots)
    entries = []
    for i in range(slots + 1):
        start = i * quotient + (max(0, i - (slots - rest)) if variant == "sm90" else min(i, rest))
        if start >= total:
            entries.append([len(lengths) * atoms, 0])
            continue
        unit = 0
        while segments[unit] * atoms <= start:
            start -= segments[unit] * atoms
            unit += 1
        by_request = [unit * atoms, start // atoms]
        entries.append(
            by_request
            if variant == "sm100"
            else [unit * atoms + start // segments[unit], start % segments[unit]]
        )
    return torch.tensor(entries, dtype=torch.int32)


@functools.cache
def _mend_interpreter():
    """Triton 3.9 makes int32 of the bits of a scalar mask that it repeats, and then refuses them."""
    from triton.runtime.interpreter import InterpreterBuilder

    def mended(method, position):
        def call(self, *arguments):
            mask = arguments[position]
            mask.data = mask.data.astype(bool)
            return method(self, *arguments)

        return call

    InterpreterBuilder.create_masked_load = mended(InterpreterBuilder.create_masked_load, 1)
    InterpreterBuilder.create_masked_store = mended(InterpreterBuilder.create_masked_store, 2)


def load(variable, path, **modules):
    """The module at path in the unpacked wheel that the environment variable names, as it stands but for its asserts,
    which want a GPU. modules: stand-ins for what it imports. Skips the test if there is none.
    """
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} does not name an unpacked wheel")
    if os.environ.get("TRITON_INTERPRET") != "1" and torch.get_default_device().type == "cpu":
        pytest.skip("TRITON_INTERPRET=1 is needed to run the kernels on the host")
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        _mend_interpreter()
    for name, module in modules.items():
        sys.modules[name.replace("__", ".")] = module
    file = Path(root) / path
    module = types.ModuleType(file.stem)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    exec(compile(file.read_text(), str(file), "exec", optimize=1), module.__dict__)
    return module

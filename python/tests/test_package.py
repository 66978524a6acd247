"""What is in the package: names, stubs, documentation, the command, the README's example."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import draftmeta
import pytest

ROOT = Path(__file__).parents[2]


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def header_fields():
    """The members of dm_fill_desc, flags by their names here."""
    header = (draftmeta.include_dir() / "draftmeta.h").read_text()
    body = header[header.index("typedef struct dm_fill_desc {") : header.index("} dm_fill_desc;")]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    members = re.findall(r"\*?(\w+)(?:\[2\])?;", body)
    flags = re.findall(r"DM_FILL_(\w+) = \d+[,\n ]", header)
    return set(members) - {"size", "flags"} | {flag.lower() for flag in flags}


def stub_arguments():
    stub = Path(draftmeta.__file__).with_name("_core.pyi").read_text()
    body = stub[stub.index("def __new__") : stub.index("-> Fill")]
    return set(re.findall(r"(\w+): ", body))


def test_every_field_of_the_header_is_an_argument():
    fields = set(draftmeta._core.fields)
    assert fields == header_fields()
    assert fields | {"backend", "device", "borrow"} == stub_arguments()
    missing = {name for name in fields if not re.search(rf"\b{name}\b", draftmeta.Fill.__doc__)}
    assert not missing


def test_everything_is_documented():
    for name in draftmeta.__all__:
        assert inspect.getdoc(getattr(draftmeta, name)), name
    assert str(inspect.signature(draftmeta.fill_many)) == "(fills, num_requests=None, stream=None)"


def test_stubs_agree_with_the_package(tmp_path):
    pytest.importorskip("mypy")
    pytest.importorskip("torch")  # which the drop-ins import
    # A library, no module; and what only type checkers import.
    (tmp_path / "allowed").write_text("draftmeta.libdraftmeta\ndraftmeta.sglang.Tensor\ndraftmeta.vllm.Tensor\n")
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")  # it is large
    files = ("--allowlist", "allowed", "--mypy-config-file", "mypy.ini")
    done = python("-m", "mypy.stubtest", "draftmeta", *files, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typed_programs_are_checked(tmp_path):
    pytest.importorskip("mypy")
    pytest.importorskip("numpy")  # which the program imports
    program = (ROOT / "examples/fill.py").read_text()
    (tmp_path / "good.py").write_text(program)
    (tmp_path / "bad.py").write_text(program.replace("extend_len=2", 'extend_len="2"'))
    assert python("-m", "mypy", "good.py", cwd=tmp_path).returncode == 0
    done = python("-m", "mypy", "bad.py", cwd=tmp_path)
    assert 'Argument "extend_len" to "Fill"' in done.stdout


def test_version_and_files():
    header = (draftmeta.include_dir() / "draftmeta.h").read_text()
    parts = [re.search(rf"DM_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    assert draftmeta.__version__ == ".".join(parts) == draftmeta.info()["version"]
    assert draftmeta.library_path().is_file()
    assert header == (ROOT / "include/draftmeta.h").read_text()


def test_importing_needs_no_other_package():
    done = python(
        "-c", "import sys, draftmeta; assert not {'numpy', 'torch'} & set(sys.modules), sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_info():
    backends = draftmeta.info()["backends"]
    assert [b["name"] for b in backends] == ["cuda", "hip", "cpu"]
    assert all(b["ready"] or b["reason"] for b in backends)


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--help",), ("--what",), ("more",)])
def test_the_command_info(arguments):
    """Word for word what the command "draftmeta info" says, where there is one."""
    command = os.environ.get("DRAFTMETA_COMMAND", ROOT / "build/release/bin/draftmeta")
    if not Path(command).exists():
        pytest.skip("the command is not built")
    here = python("-m", "draftmeta", *arguments)
    there = subprocess.run([command, "info", *arguments], capture_output=True, text=True)
    assert here.returncode == there.returncode
    for ours, theirs in ((here.stdout, there.stdout), (here.stderr, there.stderr)):
        # The oldest driver depends on the compiler of the device code, which only one of them may have.
        assert re.sub(r"CUDA \d+\.\d+", "CUDA", ours) == re.sub(r"CUDA \d+\.\d+", "CUDA", theirs)
    assert here.stdout or here.returncode == 2


def test_the_example_of_the_readme():
    example = ROOT / "examples/fill.py"
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.S | re.M)
    assert example.read_text() in blocks
    pytest.importorskip("numpy")
    done = python(str(example))
    assert done.stdout.splitlines()[-1] == "token 1 of request 2 sees 12 KV tokens", done.stderr

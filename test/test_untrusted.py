"""Files from anywhere are data, never code: nothing in the package unpickles, evaluates or loads YAML objects."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "nr_tracking").rglob("*.py"), *(ROOT / "launch").glob("*.py"), ROOT / "setup.py"])
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_YAML = {"load", "full_load", "unsafe_load", "load_all", "Loader", "FullLoader", "UnsafeLoader"}


def faults(source):
    """What a file does that data must not be able to reach, in words."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"imports {each.name}" for each in names if each.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield f"imports {module}"
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield f"calls {name}"
            case ast.Attribute(value=ast.Name(id="yaml"), attr=name) if name in UNSAFE_YAML:
                yield f"uses yaml.{name}"
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                yield "uses torch.load"
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load" | "fromfile" | "memmap" as name):
                yield f"uses np.{name}, which takes the memory that a header claims: see nr_tracking/arrays.py"
            case ast.keyword(arg="allow_pickle" | "shell", value=ast.Constant(value=True)):
                yield f"passes {node.arg}=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_package_can_run_what_it_reads(path):
    assert not list(faults(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "yaml.load(text)",
        "torch.load(path)",
        "np.load(path)",
        "npy.read_array(file, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_each_fault_would_be_found(source):
    assert list(faults(source))


def test_what_is_safe_passes():
    safe = "import json, yaml\nyaml.safe_load(text)\nnpy.read_array(file, allow_pickle=False)\nre.compile('a')"
    assert not list(faults(safe))

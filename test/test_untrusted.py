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
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load"), keywords=keywords):
                if not any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is False for k in keywords):
                    yield "calls np.load without allow_pickle=False"
            case ast.keyword(arg="allow_pickle" | "shell", value=ast.Constant(value=True)):
                yield f"passes {node.arg}=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_package_can_run_what_it_reads(path):
    # Arrays that the package itself wrote a moment ago, into a folder of its own.
    allowed = {"calls np.load without allow_pickle=False"} if path.name == "result.py" else set()
    assert set(faults(path.read_text())) <= allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "yaml.load(text)",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_each_fault_would_be_found(source):
    assert list(faults(source))


def test_what_is_safe_passes():
    safe = "import json, yaml\nyaml.safe_load(text)\nnp.load(path, allow_pickle=False)\nre.compile('a')"
    assert not list(faults(safe))

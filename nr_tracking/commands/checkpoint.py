"""The state of an interrupted run on disk: everything but the networks, which come from their weights.

The decoder that learns from the subject while it is tracked is the one network whose weights are kept.

A checkpoint is one ``.npz``: arrays, and a JSON tree that says how they make up the state. Reading it can make nothing
but arrays, tensors, plain containers and objects of this package's own classes, and runs no code of theirs; a file that
names anything else is refused. Objects that are shared stay shared.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from scipy.sparse import csr_array, csr_matrix
from scipy.spatial import cKDTree
from torch import nn

from nr_tracking.arrays import read_arrays
from nr_tracking.atomic import written_file
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.tracking.adaptation import DecoderAdapter
from nr_tracking.tracking.frames_ahead import FramesAhead
from nr_tracking.tracking.parallel import Workers
from nr_tracking.types import InputError

_PACKAGE = "nr_tracking"
_TREE = "tree"
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_SPARSE: dict[str, Any] = {"csr_matrix": csr_matrix, "csr_array": csr_array}
_DTYPES = {
    str(kind).removeprefix("torch."): kind for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
_MADE_ANEW: dict[type, tuple[str, ...]] = {SparseGrid: ("spconv_indices",)}  # what somebody else's objects are in
_GENERATORS = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM}


def modules_of(value: Any) -> list[nn.Module]:
    """The networks within an object, in the order in which a checkpoint meets them."""
    writer = _Writer([], grow=True)
    writer.node(value)
    return writer.modules


def save(path: Path, state: dict[str, Any], modules: list[nn.Module]) -> None:
    """Write ``state`` by write-then-rename; of the networks ``modules`` their numbers are kept, and what one learnt."""
    writer = _Writer(modules)
    tree = json.dumps(writer.node(state)).encode()
    with written_file(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_TREE: np.frombuffer(tree, np.uint8), **writer.arrays})


def load(path: Path, modules: list[nn.Module]) -> dict[str, Any]:
    """Read what :func:`save` wrote, with the networks of this run in their places."""
    try:
        arrays = read_arrays(path)
        return dict(_Reader(arrays, modules).value(json.loads(arrays[_TREE].tobytes())))
    except InputError as error:
        if error.reason == "bad_checkpoint":
            raise
        raise InputError("bad_checkpoint", f"{error}; run without --resume") from None
    except Exception as error:  # a damaged tree leads anywhere
        raise InputError("bad_checkpoint", f"{path} cannot be used ({error}); run without --resume") from None


class _Writer:
    def __init__(self, modules: list[nn.Module], grow: bool = False) -> None:
        self.modules = modules
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._grow = grow
        self._met: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is worth something only as long as its object lives

    def node(self, value: Any) -> Any:
        """The JSON of a value; its arrays go to ``arrays``."""
        if value is None or isinstance(value, bool | str) or type(value) in (int, float):
            return value
        if id(value) in self._met:
            return {"again": self._met[id(value)]}
        self._met[id(value)] = number = len(self._met)
        self._alive.append(value)
        return {"n": number, **self._described(value)}

    def _described(self, value: Any) -> dict[str, Any]:
        if isinstance(value, nn.Module):
            return {"module": self._number(value)}
        if isinstance(value, torch.Tensor):
            values = value.detach().cpu()
            brief = values.dtype == torch.bfloat16  # which numpy does not know; single precision holds it exactly
            array = self._array((values.float() if brief else values).numpy())
            return {"tensor": array, "device": str(value.device), "bfloat16": brief}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value))}
        if isinstance(value, deque):
            return {"deque": [self.node(item) for item in value], "maxlen": value.maxlen}
        for name, kind in _SEQUENCES.items():
            if type(value) is kind:
                return {name: [self.node(item) for item in value]}
        if type(value) in (dict, OrderedDict):
            pairs = [[self.node(key), self.node(item)] for key, item in value.items()]
            return {"dict": pairs, "ordered": type(value) is OrderedDict}
        if type(value).__name__ in _SPARSE and type(value) is _SPARSE[type(value).__name__]:
            parts = {name: self.node(getattr(value, name)) for name in ("data", "indices", "indptr")}
            return {"sparse": type(value).__name__, "shape": list(value.shape), **parts}
        if isinstance(value, cKDTree):
            return {"neighbours": self.node(value.data), "leafsize": value.leafsize}
        if isinstance(value, torch.device):
            return {"torch_device": str(value)}
        if isinstance(value, torch.dtype):
            return {"torch_dtype": str(value).removeprefix("torch.")}
        if isinstance(value, Workers):
            return {"workers": value.count, "threads": value.threads}
        if isinstance(value, FramesAhead):  # what was begun is begun anew
            return {"frames_ahead": True}
        if isinstance(value, np.random.Generator):
            return {"generator": type(value.bit_generator).__name__, "state": self.node(value.bit_generator.state)}
        kind = type(value)
        if kind.__module__.split(".")[0] != _PACKAGE:
            raise TypeError(f"a checkpoint cannot hold a {kind.__module__}.{kind.__qualname__}")
        name = f"{kind.__module__}:{kind.__qualname__}"
        if isinstance(value, tuple):  # a NamedTuple, which has no __dict__
            return {"named": name, "fields": [self.node(item) for item in value]}
        if isinstance(value, BaseModel):
            return {"settings": name, "values": value.model_dump(mode="json")}
        left_out = _MADE_ANEW.get(kind, ())
        kept = [(key, item) for key, item in vars(value).items() if key not in left_out]
        described = {"object": name, "state": [[key, self.node(item)] for key, item in kept]}
        if isinstance(value, DecoderAdapter):
            described["learnt"] = self.node(dict(value.decoder.state_dict()))
        return described

    def _number(self, module: nn.Module) -> int:
        for number, known in enumerate(self.modules):
            if known is module:
                return number
        if not self._grow:
            raise TypeError("a network that was not there when tracking began")
        # A field holds parts of a network, which are known by the whole.
        number = len(self.modules)
        self.modules += [part for part in module.modules() if not any(part is known for known in self.modules)]
        return number

    def _array(self, values: np.ndarray[Any, Any]) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = values
        return name


class _Reader:
    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]], modules: list[nn.Module]) -> None:
        self._arrays = arrays
        self._modules = modules
        self._made: dict[int, Any] = {}

    def value(self, node: Any) -> Any:
        """The value that a node of the JSON tree describes."""
        if not isinstance(node, dict):
            return node
        if "again" in node:
            return self._made[node["again"]]
        made = self._made_of(node)
        self._made[node["n"]] = made
        return made

    def _made_of(self, node: dict[str, Any]) -> Any:
        if "module" in node:
            return self._modules[node["module"]]
        if "tensor" in node:
            values = torch.from_numpy(self._arrays[node["tensor"]]).to(node["device"])
            return values.bfloat16() if node["bfloat16"] else values
        if "array" in node:
            return self._arrays[node["array"]]
        if "scalar" in node:
            return self._arrays[node["scalar"]][()]
        if "deque" in node:
            return deque(map(self.value, node["deque"]), node["maxlen"])
        for name, kind in _SEQUENCES.items():
            if name in node:
                return kind(map(self.value, node[name]))
        if "dict" in node:
            pairs = ((self.value(key), self.value(item)) for key, item in node["dict"])
            return OrderedDict(pairs) if node["ordered"] else dict(pairs)
        if "sparse" in node:
            parts = tuple(self.value(node[name]) for name in ("data", "indices", "indptr"))
            return _SPARSE[node["sparse"]](parts, shape=tuple(node["shape"]))
        if "neighbours" in node:
            return cKDTree(self.value(node["neighbours"]), leafsize=node["leafsize"], balanced_tree=False)
        if "workers" in node:
            cores = os.cpu_count() or 1
            return Workers(max(1, min(int(node["workers"]), cores)), max(1, min(int(node["threads"]), cores + 1)))
        if "frames_ahead" in node:
            return FramesAhead()
        if "torch_device" in node:
            return torch.device(node["torch_device"])
        if "torch_dtype" in node:
            return _DTYPES[node["torch_dtype"]]
        if "generator" in node:
            generator = np.random.Generator(_GENERATORS[node["generator"]]())
            generator.bit_generator.state = self.value(node["state"])
            return generator
        if "named" in node:
            kind = _class(node["named"], tuple)
            return kind(*map(self.value, node["fields"]))
        if "settings" in node:
            kind = _class(node["settings"], BaseModel)
            return kind.model_validate(node["values"])  # type: ignore[attr-defined]
        made: Any = object.__new__(_class(node["object"], object))
        self._made[node["n"]] = made  # it may hold itself
        vars(made).update({key: self.value(item) for key, item in node["state"]})
        if isinstance(made, DecoderAdapter):
            made.decoder.load_state_dict(self.value(node["learnt"]))
        return made


def _class(name: str, base: type) -> type:
    """A class of this package, by ``module:name``; anything else is refused before it is looked at."""
    module, _, path = name.partition(":")
    if module.split(".")[0] != _PACKAGE:
        raise InputError("bad_checkpoint", f"a checkpoint must not name {name}; run without --resume")
    if module not in sys.modules:
        importlib.import_module(module)
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = vars(found)[part]
    if not (isinstance(found, type) and found.__module__ == module and issubclass(found, base)):
        raise InputError("bad_checkpoint", f"a checkpoint must not name {name}; run without --resume")
    return found

"""The state of an interrupted run on disk: everything but the networks, which come from their weights.

A checkpoint is a pickle that can name nothing but arrays, tensors, plain containers and the classes of this package;
a file that names anything else is refused before any of it is run.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nr_tracking.types import InputError

_NUMPY = {"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype"}
_HARMLESS = {
    "builtins": {"set", "frozenset", "range", "slice", "bytearray", "complex"},
    "collections": {"deque", "OrderedDict"},
    "copyreg": {"__newobj__"},
    "torch": {"device", "dtype"},
    "scipy.sparse._csr": {"csr_matrix", "csr_array"},
    "scipy.spatial._ckdtree": {"cKDTree"},
}


def modules_of(value: Any) -> list[nn.Module]:
    """The networks within an object, in the order in which its pickle meets them."""
    pickler = _Pickler(io.BytesIO(), [], grow=True)
    pickler.dump(value)
    return pickler.modules


def save(path: Path, state: dict[str, Any], modules: list[nn.Module]) -> None:
    """Write ``state`` by write-then-rename; of the networks ``modules`` only their numbers are kept."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        _Pickler(file, modules).dump(state)
    partial.replace(path)


def load(path: Path, modules: list[nn.Module]) -> dict[str, Any]:
    """Read what :func:`save` wrote, with the networks of this run in their places."""
    try:
        with path.open("rb") as file:
            return dict(_Unpickler(file, modules).load())
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise InputError("bad_checkpoint", f"{path} cannot be used ({error}); run without --resume") from None


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, modules: list[nn.Module], grow: bool = False) -> None:
        super().__init__(file, protocol=5)
        self.modules = modules
        self._grow = grow

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, nn.Module):
            return None
        for number, module in enumerate(self.modules):
            if module is value:
                return number
        if not self._grow:
            raise pickle.PicklingError("a network that was not there when tracking began")
        self.modules.append(value)
        return len(self.modules) - 1

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return _tensor, (value.detach().cpu().numpy(), str(value.device))
        if isinstance(value, np.random.Generator):
            return _generator, (type(value.bit_generator).__name__, value.bit_generator.state)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, modules: list[nn.Module]) -> None:
        super().__init__(file)
        self._modules = modules

    def persistent_load(self, number: Any) -> nn.Module:
        return self._modules[number]

    def find_class(self, module: str, name: str) -> Any:
        package = module.split(".")[0]
        harmless = (package == "numpy" and name in _NUMPY) or name in _HARMLESS.get(module, ())
        if harmless or package == "nr_tracking":
            found = super().find_class(module, name)
            if harmless or isinstance(found, type) or found in (_tensor, _generator):
                return found
        raise InputError("bad_checkpoint", f"a checkpoint must not name {module}.{name}; run without --resume")


def _tensor(values: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(values).to(device)


def _generator(name: str, state: dict[str, Any]) -> np.random.Generator:
    generator = np.random.Generator({"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM}[name]())
    generator.bit_generator.state = state
    return generator

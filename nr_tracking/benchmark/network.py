"""Where the time of the completion network goes, part by part, and how many operations each part needs."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.products import counted_operations

PARTS = {
    "encode": ("sparse_encoder", "dense_encoder"),
    "fuse": ("fusion",),
    "decode coarse": ("dense_decoder",),
    "refine": ("middle_decoder", "fine_decoder"),
}
"""Parts of the network by the names of their modules; what is between them, finding what to refine, is ``filter``."""


class NetworkWatch:
    """Times the parts of a network while it runs, in any number of threads. Use as a context manager.

    ``seconds`` by part has one entry a window; ``operations`` needs a window that was seen, and runs it once more.
    """

    def __init__(self, network: CompletionNetwork) -> None:
        self.seconds: dict[str, list[float]] = {part: [] for part in (*PARTS, "filter")}
        self._network = network
        self._running = threading.local()
        self._hooks: list[Any] = []
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._images: Any = None

    def __enter__(self) -> NetworkWatch:
        """Begin to watch."""
        self._watch(self._network, None)
        for part, names in PARTS.items():
            for name in names:
                self._watch(self._network.get_submodule(name), part)
        if self._network.rays is not None:
            self._hooks.append(self._network.rays.register_forward_pre_hook(self._see_images))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def operations(self) -> dict[str, float]:
        """Multiplications and additions of the last window in each part; nothing where none was seen."""
        if self._inputs is None:
            return {}
        counter, by_loops, hooks = _counter(), dict.fromkeys(PARTS, 0), []
        with counter, counted_operations() as counted:
            for part, names in PARTS.items():
                for name in names:
                    hooks += _counting_hooks(self._network.get_submodule(name), counted, by_loops, part)
            try:
                self._network(*self._inputs[0], **self._inputs[1])
            finally:
                for hook in hooks:
                    hook.remove()
        counts = counter.get_flop_counts()
        by_module = {name.rsplit(".", 1)[-1]: sum(counts[name].values()) for name in counts if name.count(".") == 1}
        return {
            part: float(by_loops[part] + sum(by_module.get(name, 0) for name in names)) for part, names in PARTS.items()
        }

    @torch.no_grad()
    def ray_operations(self) -> float:
        """Those of completing one frame along its rays; 0 where that was not seen."""
        if self._images is None or self._network.rays is None:
            return 0.0
        counter = _counter()
        with counter, counted_operations() as counted:
            self._network.complete_rays(self._images)
        return float(counter.get_total_flops() + counted[0]) / len(self._images.channels)

    def _see_images(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._images = arguments[0]

    def _watch(self, module: nn.Module, part: str | None) -> None:
        def begin(_: nn.Module, *inputs: Any) -> None:
            self._begin(part, inputs)

        self._hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        self._hooks.append(module.register_forward_hook(lambda *_: self._end(part)))

    def _begin(self, part: str | None, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        if part is None:
            self._inputs = inputs
            self._running.parts = dict.fromkeys(PARTS, 0.0)
        self._synchronise()
        self._running.__dict__[f"begun {part}"] = time.perf_counter()

    def _end(self, part: str | None) -> None:
        self._synchronise()
        lasted = time.perf_counter() - self._running.__dict__[f"begun {part}"]
        parts = getattr(self._running, "parts", None)
        if parts is None:  # frames of an earlier window, encoded anew in another cube
            return
        if part is not None:
            parts[part] += lasted
            return
        for name, seconds in parts.items():
            self.seconds[name].append(seconds)
        self._running.parts = None
        self.seconds["filter"].append(lasted - sum(parts.values()))

    def _synchronise(self) -> None:
        if next(self._network.parameters()).is_cuda:
            torch.cuda.synchronize()


def _counting_hooks(module: nn.Module, counted: list[int], into: dict[str, int], part: str) -> list[Any]:
    """Hooks that add what ``counted`` grows by while ``module`` runs to that ``part``."""

    def begin(*_: Any) -> None:
        into[part] -= counted[0]

    def end(*_: Any) -> None:
        into[part] += counted[0]

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def _counter() -> FlopCounterMode:
    """Counts operations, also those of convolutions that oneDNN is given straight away."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: _of_convolution})


def _of_convolution(inputs: list[int], weight: list[int], *_: object, out_shape: list[int]) -> int:
    return conv_flop_count(inputs, weight, out_shape)

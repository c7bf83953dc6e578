"""Adapting the deformation decoder to the subject at hand, without any labels.

    adapter = DecoderAdapter(decoder, config)
    report = adapter.adapt([PatchedFrame(field, 0, vertices_0, graph_0), PatchedFrame(field, 1, vertices_1, graph_1)])
    adapter.reset()                                            # back to the weights as they were trained

The losses that taught the decoder need no truth (Merrouche et al. 2024, eq. 12-15): deformed centres should lie where
associations see them, adjacent patches should move alike, and deformed vertices should lie on the next frame's zero
level. So they can go on teaching it on frames that it has just been given, for motions far from those it was trained
on, which is what the paper proposes as future work. Only the decoder learns; the fields and their features stay.

A step that raises the total loss is undone and the next one is half as long, so the total never ends above its start.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nr_tracking.config import Config
from nr_tracking.deformation.association import associate
from nr_tracking.deformation.blending import Blend, RigidityMoments, blend_weights, deform, rigidity_energy
from nr_tracking.deformation.blending import rigidity_moments as moments_of
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.matching import even_sample
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Surface

_LOG = logging.getLogger(__name__)
_VERTICES = 2000  # of a surface, at most, are held against the next frame's field


class Field(Protocol):
    """What adaptation asks of a field, such as :class:`~nr_tracking.fields.field.FieldWindow`."""

    resolution: int

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) in box sides."""
        ...

    def embedding(self, points: Tensor, frame: Tensor) -> Tensor:
        """Unit features (Q, E)."""
        ...


@dataclass(frozen=True)
class PatchedFrame:
    """The surface of frame ``index`` of ``field``: ``vertices`` (V, 3) and ``graph``, both in box coordinates.

    Frames that are adapted to together are completed in one cube.
    """

    field: Field
    index: int
    vertices: np.ndarray
    graph: PatchGraph

    @staticmethod
    def of(field: Field, index: int, surface: Surface, graph: PatchGraph, volume: Volume) -> PatchedFrame:
        """Bring a metric surface and its patches into the box of ``volume``, the cube of the field."""
        centres, widths = volume.to_box(graph.centres), (graph.widths / volume.side).astype(np.float32)
        placed = replace(graph, centres=centres, widths=widths)
        return PatchedFrame(field, index, volume.to_box(surface.vertices), placed)


@dataclass(frozen=True)
class Adaptation:
    """What adapting did: mean weighted losses by name, ``before`` and ``after``, steps taken and those undone."""

    before: dict[str, float]
    after: dict[str, float]
    steps: int
    undone: int

    def __str__(self) -> str:
        """One line for a log."""
        parts = (f"{name} {self.before[name]:.4g} -> {self.after[name]:.4g}" for name in self.before)
        return f"{', '.join(parts)} in {self.steps} steps, {self.undone} undone"


@dataclass(frozen=True)
class _Side:
    """One frame as the losses use it; tensors in box coordinates, without gradients."""

    field: Field
    index: int
    graph: PatchGraph
    centres: Tensor
    features: Tensor
    rigidity: RigidityMoments
    points: Tensor
    blend: Blend


class DecoderAdapter:
    """Adapts one decoder in place; steps, rate and weights of losses are those of the configuration."""

    def __init__(self, decoder: DeformationDecoder, config: Config) -> None:
        self.decoder, self.config = decoder, config
        self._trained = self._weights()

    def reset(self) -> None:
        """Put the weights back that the decoder had at first."""
        self._restore(self._trained)

    def adapt(self, frames: Sequence[PatchedFrame]) -> Adaptation:
        """Take the configured number of Adam steps on all pairs of successive ``frames``, both ways.

        The decoder is left with the best weights found. Raises :class:`ValueError` for fewer than two frames.
        """
        if len(frames) < 2:
            raise ValueError(f"adapting needs at least two frames, not {len(frames)}")
        parameters = list(self.decoder.parameters())
        with torch.no_grad():
            sides = [self._side(frame, parameters[0].device) for frame in frames]
        pairs = [pair for near in itertools.pairwise(sides) for pair in (near, near[::-1])]
        rate = self.config.refinement.adaptation_rate
        optimiser = torch.optim.Adam(parameters, lr=rate)
        losses = self._losses(pairs)
        before = best = {name: loss.item() for name, loss in losses.items()}
        kept, undone = self._weights(), 0
        for _ in range(self.config.refinement.adaptation_steps):
            total = torch.stack(tuple(losses.values())).sum()
            for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
                parameter.grad = gradient
            optimiser.step()
            losses = self._losses(pairs)
            found = {name: loss.item() for name, loss in losses.items()}
            if sum(found.values()) <= sum(best.values()):
                best, kept = found, self._weights()
                continue
            # Momentum led here as well: it goes too.
            self._restore(kept)
            undone, rate = undone + 1, 0.5 * rate
            optimiser = torch.optim.Adam(parameters, lr=rate)
            losses = self._losses(pairs)
        self.decoder.zero_grad(set_to_none=True)
        report = Adaptation(before, best, self.config.refinement.adaptation_steps, undone)
        _LOG.info("adapted the deformation decoder: %s", report)
        return report

    def _losses(self, pairs: Sequence[tuple[_Side, _Side]]) -> dict[str, Tensor]:
        """Weighted losses of ``training.motion``, means over pairs; lengths in cells of the field."""
        cells, weights = float(pairs[0][0].field.resolution), self.config.training
        match, rigidity, surface = [], [], []
        with torch.enable_grad():
            for source, target in pairs:
                association = associate(source.features, target.features, self.config.deformation.softmax_scale)
                matched = association @ target.centres
                seen = association @ target.features
                rotations, centres = self.decoder(source.centres, source.features, matched, seen, source.graph)
                match.append((cells * (centres - matched)).square().sum(-1).mean())
                rigidity.append(cells**2 * rigidity_energy(source.rigidity, rotations, centres))
                moved = deform(source.points, source.blend, source.centres, rotations, centres)
                frame = torch.full((len(moved),), target.index, device=moved.device)
                surface.append(cells * target.field.sdf(moved, frame).abs().mean())
        return {
            "match": weights.match * torch.stack(match).mean(),
            "rigidity": weights.rigidity * torch.stack(rigidity).mean(),
            "surface": weights.surface * torch.stack(surface).mean(),
        }

    def _side(self, frame: PatchedFrame, device: torch.device) -> _Side:
        graph = frame.graph
        vertices = torch.as_tensor(frame.vertices, dtype=torch.float32, device=device)
        centres = torch.as_tensor(graph.centres, device=device)
        features = frame.field.embedding(centres, torch.full((len(centres),), frame.index, device=device))
        some = even_sample(np.asarray(frame.vertices, np.float64), _VERTICES)
        points = vertices[torch.as_tensor(some, device=device)]
        blend = blend_weights(points, graph, graph.owner[some])
        return _Side(
            frame.field, frame.index, graph, centres, features.float(), moments_of(vertices, graph), points, blend
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.decoder.state_dict().items()}

    def _restore(self, weights: dict[str, Tensor]) -> None:
        self.decoder.load_state_dict(weights)

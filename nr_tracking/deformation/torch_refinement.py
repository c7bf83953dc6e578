"""The refiner of :mod:`nr_tracking.deformation.refinement` on the torch solver: same inputs, same result type.

    refiner = TorchRefiner(config.refinement, graph, device="cuda")
    fit = refiner.refine(nodes, points, normals, target, size, starts=[predicted_motion])

It matches the moving samples with the target's sample by comparing all with all, which is what GPUs are good at; on a
CPU the sparse solver with its nearest-point search is several times faster. The energies of the two differ a little,
because the other one matches with all vertices of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.data_terms import SurfaceTerm
from nr_tracking.deformation.matching import Target, nearest_similar
from nr_tracking.deformation.normal_equations import DeformationGraph, Motion, carried, still
from nr_tracking.deformation.refinement import Fit
from nr_tracking.deformation.solver import GaussNewtonSolver, SolverGraph, SolverSettings
from nr_tracking.types import Float32, Float64


class TorchRefiner:
    """Gauss-Newton over the motions of one deformation graph, wherever torch runs."""

    def __init__(
        self,
        config: RefinementConfig,
        graph: DeformationGraph,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.graph = config, graph
        self._device, self._dtype = torch.device(device), dtype
        self._cosine = float(np.cos(np.deg2rad(config.normal_degrees)))
        self._tensors = SolverGraph.of(graph, dtype=dtype, device=device)

    @torch.no_grad()
    def refine(
        self,
        nodes: Float64,
        points: Float64,
        normals: Float64,
        target: Target,
        size: float,
        starts: Sequence[Motion] = (),
        features: Float32 | None = None,
        guesses: Sequence[Callable[[], Motion]] = (),
    ) -> Fit:
        """Fit the motion from the present pose to ``target``; see :meth:`.refinement.Refiner.refine`.

        All starts are tried side by side, so all ``guesses`` are always asked.
        """
        motions = [*(starts or [still(nodes)]), *(guess() for guess in guesses)]
        rotations = self._tensor(np.stack([motion.rotations for motion in motions]))
        translations = self._tensor(np.stack([motion.translations for motion in motions]))
        here, surface, sides = (self._tensor(values[None]) for values in (nodes, points, normals))
        term = self._term(target, size, features)
        best = 0
        if len(motions) > 1:
            count = len(motions)
            tried, several = (values.expand(count, -1, -1) for values in (surface, sides))
            terms = [_repeated(term, count)]
            tests = self._solver(size, 0).solve(
                here.expand(count, -1, -1), tried, several, terms, start=(rotations, translations)
            )
            best = int(tests.energies[0].argmin())
        own = slice(best, best + 1)
        solver = self._solver(size, self.config.iterations)
        found = solver.solve(here, surface, sides, [term], start=(rotations[own], translations[own]))
        motion = Motion(_array(found.rotations[0]), _array(found.translations[0]))
        energies = tuple(float(energy) for energy in found.energies[:, 0].double().cpu())
        return Fit(motion, self._residuals(nodes, points, normals, target, size, motion), energies)

    def _solver(self, size: float, iterations: int) -> GaussNewtonSolver:
        limit = self.config.rigidity_limit * size
        settings = SolverSettings(
            iterations, rigidity=self.config.rigidity, rigidity_limit=limit, damping=self.config.damping
        )
        return GaussNewtonSolver(self._tensors, settings)

    def _term(self, target: Target, size: float, features: Float32 | None) -> SurfaceTerm:
        config, known = self.config, None
        if features is not None and target.features is not None and config.embedding > 0:
            known = self._tensor(features[None]), self._tensor(target.features[None])
        return SurfaceTerm(
            self._tensor(target.points[target.sample][None]),
            self._tensor(target.normals[target.sample][None]),
            config.match_radius * size,
            self._cosine,
            config.point_to_plane,
            config.point_to_point,
            known,
            config.embedding * size,
        )

    def _residuals(
        self, nodes: Float64, points: Float64, normals: Float64, target: Target, size: float, motion: Motion
    ) -> Float64:
        """Distance (S,) of each moved sample to the tangent plane of its match, NaN without one."""
        moved, sides = carried(self.graph, nodes, points, normals, motion)
        reach = self.config.match_radius * size
        match = nearest_similar(target.tree, target.normals, moved, sides, reach, self._cosine)
        distance = np.abs(((target.points[match] - moved) * target.normals[match]).sum(axis=1))
        return np.where(match >= 0, distance, np.nan)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._device)


def _repeated(term: SurfaceTerm, count: int) -> SurfaceTerm:
    """The same target for ``count`` pairs."""
    features = term.features
    if features is not None:
        features = features[0].expand(count, -1, -1), features[1].expand(count, -1, -1)
    points, normals = term.points.expand(count, -1, -1), term.normals.expand(count, -1, -1)
    return SurfaceTerm(
        points, normals, term.radius, term.cosine, term.plane, term.point, features=features, reach=term.reach
    )


def _array(values: Tensor) -> Float64:
    result: Float64 = values.double().cpu().numpy()
    return result

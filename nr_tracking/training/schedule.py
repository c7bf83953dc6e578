"""What is learnt when: loss weights, learning rate and the help of true refinement masks over a run.

Four schedules. ``rays`` teaches the network that completes along rays, from single frames; ``completion`` and
``deformation`` use generated data to the full: distances and occupancy with a contrastive embedding on true
correspondences first, then the deformation decoder on the finished fields. ``paper`` is
the unsupervised four-phase schedule of Merrouche et al. 2024 (six columns of weights): coarse field, fine field,
associations, deformations; its values were not published and are ours, its pattern of zeros is theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from nr_tracking.config import TrainingConfig
from nr_tracking.types import InputError

ScheduleName = Literal["rays", "completion", "deformation", "paper"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)


@dataclass(frozen=True)
class LossWeights:
    """One weight for each loss; zero switches it off, and nothing is computed for it.

    Of the paper: ``coarse_*`` and ``fine_*`` (eq. 4 and 7), ``cycle`` and ``own`` (self-reconstruction) with their
    coarse twins (eq. 20), ``match``, ``rigidity``, ``surface`` (eq. 12-15). Ours: ``occupancy``; ``close`` sharpens
    what is nearly right; ``contrast`` and ``position`` rest on true correspondences.
    """

    coarse_distance: float = 0.0
    coarse_eikonal: float = 0.0
    fine_distance: float = 0.0
    fine_eikonal: float = 0.0
    occupancy: float = 0.0
    close: float = 0.0
    contrast: float = 0.0
    cycle: float = 0.0
    coarse_cycle: float = 0.0
    own: float = 0.0
    coarse_own: float = 0.0
    match: float = 0.0
    rigidity: float = 0.0
    surface: float = 0.0
    position: float = 0.0
    rays: float = 0.0

    @property
    def completes(self) -> bool:
        """Whether the fields themselves are compared with true distances."""
        return self.coarse_distance > 0 or self.fine_distance > 0

    @property
    def associates(self) -> bool:
        """Whether patches are associated without knowing the truth (eq. 20)."""
        return max(self.cycle, self.coarse_cycle, self.own, self.coarse_own) > 0

    @property
    def deforms(self) -> bool:
        """Whether the deformation decoder takes part."""
        return max(self.match, self.rigidity, self.surface, self.position) > 0


@dataclass(frozen=True)
class Stage:
    """What holds for one step.

    ``teacher`` is the probability that true refinement masks are united with the predicted ones. ``volume`` is the
    exponent of the samples' volumes as weights: with 0 all count alike and the network soon finds the surface, with 1
    it learns to doubt what it cannot see.
    """

    weights: LossWeights
    learning_rate: float
    teacher: float
    volume: float = 0.0


@dataclass(frozen=True)
class PaperColumn:
    """One column of the paper's table: it holds up to and including epoch ``last`` (counted from 1)."""

    last: float
    learning_rate: float
    weights: LossWeights


_COARSE = {"coarse_distance": 1.0, "coarse_eikonal": 0.1}
_FIELDS = {**_COARSE, "fine_distance": 1.0, "fine_eikonal": 0.1}
_MATCHED = {"cycle": 5.0, "coarse_cycle": 5.0, "own": 5.0, "coarse_own": 5.0}

PAPER_COLUMNS: tuple[PaperColumn, ...] = (
    PaperColumn(1, 1e-3, LossWeights(**_COARSE)),
    PaperColumn(5, 5e-4, LossWeights(**_FIELDS)),
    PaperColumn(10, 2e-4, LossWeights(**_FIELDS)),
    PaperColumn(15, 1e-4, LossWeights(**_FIELDS, cycle=1.0, coarse_cycle=1.0, own=1.0, coarse_own=1.0)),
    PaperColumn(20, 1e-4, LossWeights(**_FIELDS, **_MATCHED)),
    PaperColumn(math.inf, 1e-4, LossWeights(**_FIELDS, **_MATCHED, match=1.0, rigidity=10.0, surface=1.0)),
)


def stage_at(name: ScheduleName, config: TrainingConfig, *, step: int, epoch: int, progress: float) -> Stage:
    """Return the stage of a step.

    ``step`` and ``epoch`` count from 0; ``progress`` in [0, 1] is the share of the planned run, in steps or in minutes.

    Raises:
        InputError: ``unknown_schedule``.
    """
    if name not in SCHEDULES:
        raise InputError("unknown_schedule", f"schedule {name!r} is none of {', '.join(SCHEDULES)}")
    if name == "paper":
        column = paper_column(epoch)
        return Stage(column.weights, column.learning_rate, teacher=1.0)
    rate = config.learning_rate * warmed_cosine(step, progress, config.warmup_steps, config.final_rate)
    if name == "rays":
        return Stage(LossWeights(rays=1.0), rate, teacher=0.0)
    if name == "deformation":
        weights = LossWeights(
            match=config.match, rigidity=config.rigidity, surface=config.surface, position=config.position
        )
        return Stage(weights, rate, teacher=0.0)
    weights = LossWeights(
        coarse_distance=1.0,
        fine_distance=1.0,
        occupancy=config.occupancy,
        close=config.precision,
        contrast=config.contrast,
        **dict.fromkeys(("cycle", "coarse_cycle", "own", "coarse_own"), config.cycle),
    )
    return Stage(
        weights, rate, teacher=1.0 - _ramp(progress, config.teacher_fade), volume=_ramp(progress, config.volume_rise)
    )


def least_frames(name: ScheduleName, config: TrainingConfig) -> int:
    """Frames that the windows of a schedule have at least: three for cycles of associations, two for deformations."""
    if name == "rays":
        return 1
    if name == "paper" or config.cycle > 0:
        return 3
    return 2 if name == "deformation" else 1


def _ramp(progress: float, span: tuple[float, float]) -> float:
    """Return 0 before a span, 1 after it, and a straight line between."""
    return min(max((progress - span[0]) / max(span[1] - span[0], 1e-9), 0.0), 1.0)


def paper_column(epoch: int) -> PaperColumn:
    """Return the column of the paper's table for an epoch counted from 0."""
    return next(column for column in PAPER_COLUMNS if epoch + 1 <= column.last)


def gate_after(epoch: int, gates: tuple[float, float, float]) -> tuple[str, float] | None:
    """The score on validation windows, and its least value, without which the phase of ``epoch`` goes on.

    ``gates`` are coarse IoU before the fine scales are learnt, IoU before associations, IoU before deformations. None
    where no new phase would begin after ``epoch`` (counted from 0), or where its gate is 0.
    """
    now, following = (_phase(paper_column(number).weights) for number in (epoch, epoch + 1))
    if now == following or gates[now] == 0:
        return None
    return ("coarse_iou" if now == 0 else "iou"), gates[now]


def _phase(weights: LossWeights) -> int:
    """0: coarse field, 1: fine field, 2: associations, 3: deformations."""
    return 3 if weights.deforms else 2 if weights.associates else int(weights.fine_distance > 0)


def warmed_cosine(step: int, progress: float, warmup_steps: int, final: float) -> float:
    """Return the factor on the learning rate: a linear rise over steps, a cosine over progress down to ``final``."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return warm * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0))))

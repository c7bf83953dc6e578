"""The schedules: what is switched on when, and the shape of the learning rate."""

from dataclasses import fields

import pytest

from nr_tracking.config import load_config
from nr_tracking.training.schedule import PAPER_COLUMNS, LossWeights, gate_after, paper_column, stage_at, warmed_cosine
from nr_tracking.types import InputError

TRAINING = load_config("test").training


def switched_on(weights: LossWeights) -> set[str]:
    return {field.name for field in fields(weights) if getattr(weights, field.name) > 0}


def test_pattern_of_zeros_of_the_six_columns():
    coarse = {"coarse_distance", "coarse_eikonal"}
    fine = {"fine_distance", "fine_eikonal"}
    association = {"cycle", "coarse_cycle", "own", "coarse_own"}
    deformation = {"match", "rigidity", "surface"}
    expected = [
        coarse,
        coarse | fine,
        coarse | fine,
        coarse | fine | association,
        coarse | fine | association,
        coarse | fine | association | deformation,
    ]
    assert [switched_on(column.weights) for column in PAPER_COLUMNS] == expected


@pytest.mark.parametrize(
    ("epoch", "column"), [(0, 0), (1, 1), (4, 1), (5, 2), (9, 2), (10, 3), (14, 3), (15, 4), (19, 4), (20, 5), (500, 5)]
)
def test_epochs_of_the_columns(epoch, column):
    assert paper_column(epoch) is PAPER_COLUMNS[column]


def test_paper_schedule_uses_no_true_correspondences():
    for epoch in range(40):
        stage = stage_at("paper", TRAINING, step=7, epoch=epoch, progress=0.5)
        assert not switched_on(stage.weights) & {"contrast", "position", "occupancy", "close"}
        assert stage.weights.associates == (epoch >= 10)
        assert stage.weights.deforms == (epoch >= 20)
    assert [c.learning_rate for c in PAPER_COLUMNS] == sorted((c.learning_rate for c in PAPER_COLUMNS), reverse=True)


def test_completion_and_deformation_share_nothing():
    completion = stage_at("completion", TRAINING, step=0, epoch=0, progress=0.0).weights
    deformation = stage_at("deformation", TRAINING, step=0, epoch=0, progress=0.0).weights
    assert completion.completes and not completion.deforms
    assert deformation.deforms and not deformation.completes
    assert not switched_on(completion) & switched_on(deformation)


def test_help_of_true_masks_fades():
    share = [stage_at("completion", TRAINING, step=0, epoch=0, progress=p / 20).teacher for p in range(21)]
    first, last = TRAINING.teacher_fade
    assert share[: int(first * 20) + 1] == [1.0] * (int(first * 20) + 1)
    assert all(value == 0.0 for value in share[int(last * 20 + 0.999) :])
    assert share == sorted(share, reverse=True)


def test_volume_comes_to_count():
    stages = [stage_at("completion", TRAINING, step=0, epoch=0, progress=p / 20).volume for p in range(21)]
    assert stages == sorted(stages)
    assert (stages[0], stages[-1]) == (0.0, 1.0)
    assert stage_at("paper", TRAINING, step=0, epoch=30, progress=0.9).volume == 0.0


def test_learning_rate_warms_up_and_falls():
    rise = [warmed_cosine(step, 0.0, 50, 0.02) for step in range(60)]
    assert rise[0] == pytest.approx(1 / 50)
    assert rise[49:] == [1.0] * 11
    fall = [warmed_cosine(1000, p / 10, 50, 0.02) for p in range(12)]
    assert fall == sorted(fall, reverse=True)
    assert fall[5] == pytest.approx(0.51)
    assert fall[10] == fall[11] == pytest.approx(0.02)


def test_gates_stand_between_the_phases():
    gates = (0.3, 0.8, 0.85)
    found = {epoch: gate_after(epoch, gates) for epoch in range(30)}
    assert {epoch: gate for epoch, gate in found.items() if gate} == {
        0: ("coarse_iou", 0.3),
        9: ("iou", 0.8),
        19: ("iou", 0.85),
    }
    assert gate_after(9, (0.3, 0.0, 0.85)) is None


def test_unsupervised_associations_can_stand_beside_completion():
    weights = stage_at(
        "completion",
        load_config("test", training={"cycle": 0.1, "contrast": 0.0}).training,
        step=0,
        epoch=0,
        progress=0,
    ).weights
    assert weights.associates and not weights.deforms and weights.contrast == 0
    assert not stage_at("completion", TRAINING, step=0, epoch=0, progress=0).weights.associates


def test_a_schedule_that_is_none_is_refused():
    with pytest.raises(InputError, match="'rayz' is none of rays, completion, deformation, paper"):
        stage_at("rayz", TRAINING, step=0, epoch=0, progress=0.0)

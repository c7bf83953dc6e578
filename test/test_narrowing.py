"""A narrower ray network out of a wide one, and what it learns from it."""

import json

import numpy as np
import pytest
import torch
from bending_body import write_cache
from test_rays import QUICK, RAYS, STUDENT, window_of

from nr_tracking.config import load_config
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.rays import RayNetwork
from nr_tracking.fields.weights import read_weights, save_weights
from nr_tracking.training.narrowing import narrow_rays
from nr_tracking.training.networks import build_networks, student_model
from nr_tracking.training.trainer import train
from nr_tracking.types import InputError

WIDE = (8, 16, 16, 16, 16)
BLOCKS = (1, 1, 1, 0, 1)


def network(channels, seed=0):
    """A ray network whose every weight counts: blocks start as the identity otherwise."""
    torch.manual_seed(seed)
    made = RayNetwork(channels, BLOCKS, 16)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def images():
    config = load_config("test", model=RAYS)
    return window_of(config).window.rays


def said(made, images):
    with torch.no_grad():
        return made(images).distances


def test_one_of_the_same_width_says_the_same(images):
    teacher, student = network(WIDE), network(WIDE, seed=1)
    assert not torch.allclose(said(teacher, images), said(student, images))
    narrow_rays(teacher, student)
    torch.testing.assert_close(said(teacher, images), said(student, images))


def test_channels_that_nobody_reads_are_the_ones_that_go(images):
    """Of a network with as many idle channels as are to go, nothing is lost."""
    teacher, student = network((64,) * 5), network((32,) * 5, seed=1)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            # Every second channel repeats the one before, so that normalisation is the same without it.
            if parameter.dim() == 1 and name != "last.bias":
                parameter[1::2] = parameter[0::2]
            elif parameter.dim() == 4:
                if name != "last.weight":
                    parameter[1::2] = parameter[0::2]
                if parameter.shape[1] == 64:
                    parameter[:, 1::2] = 0  # and nobody reads it
    narrow_rays(teacher, student)
    torch.testing.assert_close(said(teacher, images), said(student, images), atol=1e-5, rtol=1e-4)


def test_a_wider_one_is_refused():
    with pytest.raises(ValueError, match="16 channels cannot be chosen from 8"):
        narrow_rays(network(WIDE), network((16, 16, 16, 16, 16)))


def test_a_teacher_that_is_frozen_stays_and_its_student_begins_with_its_weights(tmp_path):
    cache = tmp_path / "cache"
    write_cache(cache, 12, 2)
    training = {**QUICK, "student_channels": STUDENT, "windows_per_step": 2}
    first = train(load_config("test", model=RAYS, training=training), cache, tmp_path / "a", schedule="rays", steps=4)
    config = load_config("test", model=RAYS, training={**training, "freeze_teacher": True})
    begun = build_networks(config, "rays", first)
    wide, narrow = (begun[name].rays.last.weight[:, :, 0, 0].mT for name in ("completion", "student"))
    assert all(any(torch.equal(row, other) for other in wide) for row in narrow)

    run = tmp_path / "b"
    final = train(config, cache, run, schedule="rays", steps=20, start=first, validation=cache)
    kept, learnt = read_weights(first).part("completion"), read_weights(final).part("completion")
    assert all(torch.equal(kept[name], learnt[name]) for name in kept)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    distances = [row["student_ray_distance"] for row in rows if "student_ray_distance" in row]
    assert len(distances) == 20 and np.mean(distances[-4:]) < 0.9 * np.mean(distances[:4])
    assert not any("ray_distance" in row for row in rows)  # nothing is asked of the teacher
    (validation,) = [row for row in rows if row["kind"] == "validation"]
    assert 0 < validation["student_iou"] <= 1 and 0 < validation["ray_iou"] <= 1


def test_a_student_goes_on_from_weights_of_its_own(tmp_path):
    """Its rays are those of the file, whatever preset that is for; the rest of the file is nothing to it."""
    training = {**QUICK, "student_channels": STUDENT, "freeze_teacher": True}
    config = load_config("test", model=RAYS, training=training)
    parts = [CompletionNetwork(model) for model in (config.model, student_model(config))]
    teacher, earlier = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    save_weights(teacher, {"completion": parts[0]}, preset="test", model=config.model)
    save_weights(earlier, {"completion": parts[1]}, preset="lite", model=student_model(config))

    config = load_config("test", model=RAYS, training={**training, "student_start": str(earlier)})
    student = build_networks(config, "rays", teacher)["student"].rays.state_dict()
    kept = parts[1].rays.state_dict()
    assert student.keys() == kept.keys() and all(torch.equal(student[name], kept[name]) for name in kept)


def test_a_student_does_not_go_on_from_other_widths(tmp_path):
    config = load_config("test", model=RAYS, training={**QUICK, "student_channels": STUDENT})
    other = tmp_path / "other.safetensors"
    save_weights(other, {"completion": CompletionNetwork(config.model)}, preset="test", model=config.model)
    config = load_config(
        "test", model=RAYS, training={**QUICK, "student_channels": STUDENT, "student_start": str(other)}
    )
    with pytest.raises(InputError, match=r"training\.student_channels"):
        build_networks(config, "rays", None)


def test_weights_of_a_student_that_is_not_there_are_refused():
    config = load_config("test", model=RAYS, training={**QUICK, "student_start": "student.safetensors"})
    with pytest.raises(InputError, match=r"training\.student_channels"):
        build_networks(config, "rays", None)

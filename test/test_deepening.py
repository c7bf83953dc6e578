"""Deeper ray networks out of shallower ones: the same at first, and able to learn more."""

from pathlib import Path

import pytest
import torch
from test_narrowing import STUDENT
from test_rays import QUICK, RAYS, window_of

from nr_tracking.config import Config, load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import save_weights
from nr_tracking.training.networks import build_networks
from nr_tracking.types import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

FEW, MORE = (1, 0, 0, 1, 0), (1, 2, 0, 3, 1)


def config_of(blocks: tuple[int, ...], **training: object) -> Config:
    return load_config("test", model={**RAYS, "ray_blocks": blocks}, training={**QUICK, **training})


def learnt(config: Config) -> CompletionNetwork:
    """A network none of whose blocks is the identity any more."""
    torch.manual_seed(0)
    network = CompletionNetwork(config.model)
    for parameter in network.rays.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    config = config_of(FEW)
    parts = {"completion": learnt(config), "deformation": DeformationDecoder(config.model)}
    save_weights(tmp_path / "shallow", parts, preset="test", model=config.model)
    return tmp_path / "shallow"


@pytest.mark.parametrize("schedule", ["rays", "completion", "deformation"])
def test_a_deeper_network_says_the_same_to_begin_with(shallow: Path, schedule: str) -> None:
    config = config_of(MORE)
    made = build_networks(config, schedule, shallow)["completion"]
    images = window_of(config).window.rays
    torch.testing.assert_close(
        made.complete_rays(images).distances, learnt(config_of(FEW)).complete_rays(images).distances, rtol=0, atol=1e-5
    )
    if schedule == "rays":
        made.complete_rays(images).distances.square().sum().backward()
        added = made.rays.encoder[3][5].scale.weight
        assert added.requires_grad and added.grad.abs().max() > 0, "and what was added learns"


def test_a_student_has_blocks_of_its_own(shallow: Path, tmp_path: Path) -> None:
    of_student = load_config("test", model={**RAYS, "ray_blocks": FEW, "ray_channels": STUDENT})
    save_weights(tmp_path / "small", {"completion": learnt(of_student)}, preset="test", model=of_student.model)
    given = {"student_channels": STUDENT, "student_start": str(tmp_path / "small")}
    student = build_networks(config_of(MORE, **given, student_blocks=FEW), "rays", shallow)["student"]
    kept = learnt(of_student).rays.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in student.rays.state_dict().items())
    with pytest.raises(InputError, match=r"training\.student_channels"):
        build_networks(config_of(MORE, **given), "rays", shallow)
    with pytest.raises(InputError, match=r"on level 1 the student has other ray_blocks.*training\.student_start"):
        build_networks(config_of(MORE, student_channels=STUDENT, student_blocks=FEW), "rays", shallow)


def test_a_shallower_network_is_no_start(tmp_path: Path) -> None:
    config = config_of(MORE)
    save_weights(tmp_path / "deep", {"completion": learnt(config)}, preset="test", model=config.model)
    with pytest.raises(InputError, match=r"model\.ray_blocks is \(1, 2, 0, 3, 1\) there, \(1, 0, 0, 1, 0\) here"):
        build_networks(config_of(FEW), "rays", tmp_path / "deep")


def test_other_differences_are_still_refused(shallow: Path) -> None:
    wider = load_config("test", model={**RAYS, "ray_blocks": MORE, "ray_steps": 20})
    with pytest.raises(InputError, match=r"model\.ray_steps is 16 there, 20 here"):
        build_networks(wider, "rays", shallow)

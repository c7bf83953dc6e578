"""Weights know what they are for: round trip, and a clear refusal of everything else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nr_tracking import presets
from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import load_weights, read_weights, save_weights, weights_path
from nr_tracking.types import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config():
    return load_config("test")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture
def saved(tmp_path, config):
    path = tmp_path / "sub" / "w.safetensors"
    identity = save_weights(path, {"completion": network(1)}, preset="test", model=config.model, notes={"steps": "7"})
    return path, identity


def test_weights_come_back_as_they_were(saved, config):
    path, identity = saved
    other = network(2)
    weights = load_weights(path, {"completion": other}, preset="test", model=config.model)
    x = torch.randn(5, 3)
    assert torch.equal(other(x), network(1)(x))
    assert (weights.sha256, weights.notes, weights.preset) == (identity, {"steps": "7"}, "test")
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]  # nothing half-written stays


def test_hash_depends_on_values_and_on_the_model_but_not_on_the_file(saved, tmp_path, config):
    _, identity = saved
    again = save_weights(tmp_path / "a", {"completion": network(1)}, preset="test", model=config.model)
    changed = network(1)
    with torch.no_grad():
        changed[0].bias[0] += 1e-6
    wider = config.model.model_copy(update={"mlp_width": 24})
    assert again == identity
    assert save_weights(tmp_path / "b", {"completion": changed}, preset="test", model=config.model) != identity
    assert save_weights(tmp_path / "c", {"completion": network(1)}, preset="test", model=wider) != identity


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.safetensors") as caught:
        read_weights(tmp_path / "nowhere.safetensors")
    assert caught.value.reason == "no_weights"
    with pytest.raises(InputError, match="nowhere") as caught:
        weights_path(load_config("test", weights=str(tmp_path / "nowhere")))
    assert caught.value.reason == "no_weights"


def test_a_preset_without_weights_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        weights_path(load_config("test"))
    place = tmp_path / "share" / "nr_tracking" / "models" / "test.safetensors"
    place.parent.mkdir(parents=True)
    place.touch()
    assert weights_path(load_config("test")) == place


def test_weights_of_another_preset_are_refused_and_touch_nothing(saved, config):
    path, _ = saved
    target = network(3)
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(InputError, match="preset 'test', not 'lite'") as caught:
        load_weights(path, {"completion": target}, preset="lite", model=load_config("lite").model)
    assert caught.value.reason == "wrong_weights"
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


def test_weights_of_another_model_name_the_setting(saved, config):
    path, _ = saved
    model = config.model.model_copy(update={"latent_channels": 32})
    with pytest.raises(InputError, match=r"model\.latent_channels is 16 there, 32 here"):
        load_weights(path, {"completion": network(1)}, preset="test", model=model)
    with pytest.raises(InputError, match="no part 'deformation'; it has completion"):
        load_weights(path, {"deformation": network(1)}, preset="test", model=config.model)
    with pytest.raises(InputError, match="another version"):
        load_weights(path, {"completion": nn.Linear(2, 2)}, preset="test", model=config.model)


def test_weights_of_which_anything_does_not_fit_touch_nothing(saved, config):
    """The first layer would fit, or the first part."""
    path, _ = saved
    wider = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    for parts, told in (
        ({"completion": wider}, r"another version of completion: 2\.bias is \(1,\) there, \(2,\) here; 2\.weight is"),
        ({"completion": network(3), "deformation": nn.Linear(1, 1)}, "no part 'deformation'"),
        ({"completion": network(3)[:2]}, r"2\.weight is \(1, 8\) there, missing here"),
    ):
        before = [value.clone() for value in parts["completion"].state_dict().values()]
        with pytest.raises(InputError, match=told) as caught:
            load_weights(path, parts, preset="test", model=config.model)
        assert caught.value.reason == "wrong_weights"
        assert all(map(torch.equal, before, parts["completion"].state_dict().values()))


def test_damage_is_noticed(saved, tmp_path):
    path, _ = saved
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # one bit of one value
    (tmp_path / "flipped").write_bytes(data)
    (tmp_path / "short").write_bytes(data[:-100])
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(500))
    save_file(load_file(path), tmp_path / "foreign")
    for name in ("flipped", "short", "noise", "foreign"):
        with pytest.raises(InputError, match=name) as caught:
            read_weights(tmp_path / name)
        assert caught.value.reason == "damaged_weights"


def test_half_of_the_digits_fill_a_network_in_full_precision(tmp_path, config):
    """Tensors stored as bfloat16 come back rounded, in the network's own type."""
    wide = nn.Linear(5, 4)
    state = {name: value.bfloat16() for name, value in wide.state_dict().items()}
    save_weights(tmp_path / "half.safetensors", {"part": state}, preset="test", model=config.model)
    other = nn.Linear(5, 4)
    load_weights(tmp_path / "half.safetensors", {"part": other}, preset="test", model=config.model)
    assert other.weight.dtype == torch.float32
    assert torch.equal(other.weight, wide.weight.bfloat16().float())


@pytest.mark.parametrize("preset", ["lite", "base", "full"])
def test_networks_are_as_large_as_it_is_said(preset):
    model = load_config(preset).model
    net = CompletionNetwork(model)
    completion, rays, decoder = (
        sum(parameter.numel() for parameter in part.parameters()) / 1e6 if part else 0.0
        for part in (net, net.rays, DeformationDecoder(model))
    )
    method = (ROOT / "docs" / "method.md").read_text()
    of_rays = f", of which {rays:.1f} M along rays" if model.rays else ""
    assert f"| `{preset}` | {model.resolution} | {completion:.1f} M{of_rays} |" in method
    assert f"{decoder:.2f} M" in next(line for line in method.splitlines() if "the deformation decoder has" in line)
    said = {
        "lite": (f"{rays:.1f} M parameters", f"({completion - rays:.2f} M)", f"decoder ({decoder:.2f} M)"),
        "base": (f"({completion:.1f} M parameters)", f"decoder ({decoder:.2f} M)"),
    }
    for words in said.get(preset, ()):
        assert words in (ROOT / "models" / f"{preset}.md").read_text()
    if model.rays:
        assert f"``{preset}`` ({completion:.1f} M" in presets.__doc__
    if preset == "base":
        assert f"{rays:.1f} M parameters in `base`" in method

"""One weights file from two: a network keeps doing what it did, and gets another one along rays."""

import pytest
import torch
from test_rays import window_of

from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import load_weights, save_weights
from nr_tracking.training.transplant import main
from nr_tracking.types import InputError

LITE = load_config("lite").model


def saved(path, model, *, seed, deformation=True):
    torch.manual_seed(seed)
    network = CompletionNetwork(model).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter)).copy_(parameter.bfloat16())
    parts = {"completion": network, **({"deformation": DeformationDecoder(model)} if deformation else {})}
    save_weights(path, parts, preset="base", model=model, notes={"steps": str(seed)})
    return network


@pytest.mark.parametrize("preset", ["lite", "base"])
@torch.no_grad()
def test_a_network_without_rays_gets_some_and_finds_the_features_that_it_found(tmp_path, capsys, preset):
    config = load_config(preset)
    model = config.model
    plain = saved(tmp_path / "plain.safetensors", model.model_copy(update={"rays": False}), seed=1)
    along = saved(tmp_path / "rays.safetensors", model, seed=2, deformation=False)
    out = tmp_path / "out.safetensors"
    main([str(tmp_path / "rays.safetensors"), str(tmp_path / "plain.safetensors"), str(out), "--preset", preset])
    made, decoder = CompletionNetwork(model).eval(), DeformationDecoder(model)
    weights = load_weights(out, {"completion": made, "deformation": decoder}, preset=preset, model=model)
    assert capsys.readouterr().out.strip() == weights.sha256
    assert weights.notes == {"steps": "1", "rays_steps": "2"}

    window = window_of(config).window
    expected, found = along.complete_rays(window.rays), made.complete_rays(window.rays)
    torch.testing.assert_close(found.distances, expected.distances, atol=2e-3, rtol=0)  # stored in bfloat16
    before, after = plain.encode(window), made.encode(window, found)
    torch.testing.assert_close(after.codes.latent, before.codes.latent)
    for (_, one), (_, other) in zip(after.skips, before.skips, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(made(window, rays=found).coarse, plain(window).coarse)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rays": False}, r"there is no rays\."),
        ({"ray_channels": (24, 48, 96, 160, 200)}, r"rays\.encoder\.4\.\S+ is \(200, .*preset 'lite' needs \(192, "),
    ],
)
def test_rays_that_do_not_fit_are_named(tmp_path, changes, said):
    saved(tmp_path / "plain.safetensors", LITE.model_copy(update={"rays": False}), seed=1)
    saved(tmp_path / "rays.safetensors", LITE.model_copy(update=changes), seed=2)
    with pytest.raises(InputError, match=said):
        main([*(str(tmp_path / f"{name}.safetensors") for name in ("rays", "plain", "out")), "--preset", "lite"])
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "deformation", "said"),
    [
        ({"mlp_width": 8}, True, r"distance\.\S+ is \("),
        ({"dense_channels": (8, 8)}, True, r"dense_decoder\.\S+ is \("),
        ({"deformation_width": 32}, True, r" is \("),
        ({}, False, "there is no part 'deformation'|there is no "),
    ],
)
def test_other_networks_that_do_not_fit_are_named_and_not_filled_up(tmp_path, changes, deformation, said):
    saved(tmp_path / "rays.safetensors", LITE, seed=1)
    saved(tmp_path / "plain.safetensors", LITE.model_copy(update=changes), seed=2, deformation=deformation)
    with pytest.raises(InputError, match=said):
        main([*(str(tmp_path / f"{name}.safetensors") for name in ("rays", "plain", "out")), "--preset", "lite"])
    assert not (tmp_path / "out.safetensors").exists()

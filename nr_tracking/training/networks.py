"""The networks of a training run: made new or from weights, and written as weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from nr_tracking.config import Config, ModelConfig
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.filters import KeepsFilters
from nr_tracking.fields.rays import RayNetwork
from nr_tracking.fields.weights import read_weights, save_weights
from nr_tracking.training.checkpoints import load_checkpoint
from nr_tracking.training.deepening import load_grown
from nr_tracking.training.narrowing import narrow_rays
from nr_tracking.training.schedule import ScheduleName
from nr_tracking.types import InputError


def build_networks(config: Config, schedule: ScheduleName, start: Path | str | None) -> nn.ModuleDict:
    """Make the networks that a schedule trains, from scratch or from weights.

    Under ``deformation`` the completion network is frozen; under ``rays`` all of it but the ray network; under the
    others the ray network, where ``start`` has one that is not to change. The deformation decoder is new unless
    ``start`` has one.
    """
    if schedule == "deformation" and start is None:
        raise InputError(
            "no_weights", "the deformation schedule trains on finished fields: give the weights to start from"
        )
    cap = min(config.model.active_cap, config.training.active_cap)
    completion = CompletionNetwork(config.model.model_copy(update={"active_cap": cap}))
    completion.mixed_precision = config.training.bfloat16
    networks = nn.ModuleDict({"completion": completion})
    if schedule == "rays" and completion.rays is None:
        raise InputError("no_rays", "the rays schedule trains the ray network: set model.rays")
    if schedule == "rays" and any(config.training.student_channels):
        networks["student"] = CompletionNetwork(student_model(config))
    elif schedule == "rays" and config.training.freeze_teacher:
        raise InputError("no_student", "training.freeze_teacher leaves nothing to learn: set training.student_channels")
    elif schedule == "rays" and config.training.student_start:
        raise InputError("no_student", "training.student_start has no student: set training.student_channels")
    if schedule not in ("rays", "completion"):
        networks["deformation"] = DeformationDecoder(config.model)
    if start is not None:
        there = read_weights(start).part
        parts = {name: networks[name] for name in ("completion", "deformation") if name in networks}
        if not there("deformation"):
            parts.pop("deformation", None)
        load_grown(start, parts, config)
    if schedule in ("rays", "deformation"):
        completion.requires_grad_(False)
    if completion.rays is not None and schedule != "deformation":
        learns = start is None or not (
            config.training.freeze_teacher if schedule == "rays" else config.training.freeze_rays
        )
        completion.rays.requires_grad_(learns)
    if "student" in networks:
        student = cast(CompletionNetwork, networks["student"].requires_grad_(False))
        rays = cast(RayNetwork, student.rays)
        if config.training.student_start:
            _resume_rays(rays, config.training.student_start)
        elif start is not None:
            _narrow(cast(RayNetwork, completion.rays), rays)
        student.mixed_precision = config.training.bfloat16
        rays.requires_grad_(True)
    for layer in networks.modules():
        if isinstance(layer, KeepsFilters) and not any(weight.requires_grad for weight in layer.parameters()):
            layer.eval()  # what is made of weights that do not change is made once
    return networks


def _narrow(teacher: RayNetwork, student: RayNetwork) -> None:
    try:
        narrow_rays(teacher, student)
    except ValueError as error:
        raise InputError(
            "wrong_student", f"{error}: change training.student_*, or set training.student_start"
        ) from None


def _resume_rays(rays: RayNetwork, path: str) -> None:
    """Fill a ray network from weights of any preset; ``wrong_weights`` where theirs has other widths, or is none."""
    completion = read_weights(path).part("completion")
    try:
        rays.load_state_dict(_without("rays", completion))
    except RuntimeError as error:
        raise InputError("wrong_weights", f"{path} has no ray network of training.student_channels: {error}") from None


def student_model(config: Config) -> ModelConfig:
    """The model settings of the network that learns beside the trained one: its own but for smaller rays."""
    channels, blocks = config.training.student_channels, config.training.student_blocks
    blocks = blocks if any(blocks) else config.model.ray_blocks
    return config.model.model_copy(update={"ray_channels": channels, "ray_blocks": blocks})


def export_weights(config: Config, run_folder: Path, path: Path, notes: dict[str, Any] | None = None) -> Path:
    """Write the running average of a run's last checkpoint as a weights file; the run may still be going on.

    A student's weights go beside it, as ``student_`` and its name.

    Raises:
        InputError: ``no_checkpoint`` where there is none yet.
    """
    saved = load_checkpoint(Path(run_folder) / "checkpoint")
    if saved is None:
        raise InputError("no_checkpoint", f"{run_folder} has no checkpoint yet")
    average = saved.part("average")
    parts = {name: _without(name, average) for name in sorted({key.split(".", 1)[0] for key in average})}
    about = {"steps": saved.state["step_count"], "minutes": round(saved.state["seconds"] / 60, 1), **(notes or {})}
    about = {key: str(value) for key, value in about.items()}
    student = parts.pop("student", None)
    save_weights(path, parts, preset=config.preset, model=config.model, notes=about)
    if student is not None:
        beside = Path(path).with_name(f"student_{Path(path).name}")
        save_weights(beside, {"completion": student}, preset=config.preset, model=student_model(config), notes=about)
    return Path(path)


def _without(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}

"""Every setting of the package, once: default, unit, range and meaning.

The tree of models below feeds the YAML files in ``config/``, the ROS parameters and their descriptors, ``nr_tracking
config`` and the tables in the docs. An unknown key, a value out of range and values that do not go together are a
:class:`ConfigError` that names the key, the value and what is allowed.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError, model_validator

from nr_tracking.model_config import ModelConfig
from nr_tracking.presets import DEFAULT_PRESET, PRESET_MEANING, PRESET_VALUES
from nr_tracking.section import ConfigError, Section, setting
from nr_tracking.sensing_config import SubjectConfig, TsdfConfig, VolumeConfig
from nr_tracking.settings_file import merged, read_settings
from nr_tracking.training_config import TrainingConfig

PresetName = Literal["test", "lite", "base", "full"]
PRESETS: tuple[str, ...] = tuple(PRESET_VALUES)


class MeshConfig(Section):
    """The mesh of the zero level set of a field."""

    upsample: int = setting(1, "cells of the marching cubes grid along one voxel of the field", ge=1, le=4)
    pull: bool = setting(
        True,
        "move each vertex of marching cubes along its grid edge onto the zero level of the field; false: leave it "
        "where linear interpolation puts it, which is faster and less exact",
    )
    settle: bool = setting(
        True,
        "spread the vertices along the surface and shift them until the faces lie on the zero level of the field; as "
        "exact as a grid twice as fine",
    )
    minimum_component: float = setting(
        0.03,
        "drop separate parts with less than this share of the surface's area, or with less than a tenth of it if the "
        "camera saw them",
        ge=0,
        le=1,
    )
    carve: bool = setting(True, "remove the surface from space that the camera saw to be empty")


class DeformationConfig(Section):
    """Patches, their associations, and the network that guesses their motion."""

    patches: int = setting(200, "patches that a surface is cut into, P", ge=8, le=2000)
    hierarchy: tuple[int, int] = setting((65, 22), "patches on the two coarser levels of the deformation decoder")
    softmax_scale: float = setting(
        100.0, "scale of cosine similarities before the softmax of the associations, sigma", gt=0, le=1000
    )
    backend: Literal["network", "none"] = setting(
        "network",
        "network: the deformation decoder guesses motions that are too large for the other starts of the refinement; "
        "none: nothing does",
    )


class RefinementConfig(Section):
    """The Gauss-Newton fit of the deformation graph to each new surface."""

    enabled: bool = setting(
        True,
        "fit the deformation graph to each new surface; false: tracks move as the network guesses or, with "
        "deformation.backend none, as they moved last",
    )
    backend: Literal["numpy", "torch"] = setting(
        "numpy", "numpy: sparse solver, the fastest on a CPU; torch: dense solver, on the setting device"
    )
    iterations: int = setting(12, "Gauss-Newton steps at most; a small step is the last one", ge=0, le=100)
    samples: int = setting(1000, "samples of the tracked surface, and of the next one, in the fit", ge=50, le=50_000)
    nodes: int = setting(
        150, "nodes of the deformation graph that moves the tracks, on the first surface", ge=8, le=2000
    )
    point_to_plane: float = setting(1.0, "weight of point-to-plane residuals", ge=0)
    point_to_point: float = setting(0.03, "weight of point-to-point residuals", ge=0)
    rigidity: float = setting(3.0, "weight of as-rigid-as-possible residuals between successive poses", ge=0)
    rigidity_limit: float = setting(
        0.007,
        "as-rigid-as-possible residuals beyond this share of the subject's size count less, so that parts that were "
        "wrongly joined come apart; 0: never",
        ge=0, le=1,
    )  # fmt: skip
    embedding: float = setting(
        0.0,
        "weight of the learnt embedding beside distance when points are matched, lambda; 0: distance alone; needs "
        "deformation.backend network",
        ge=0,
    )
    match_radius: float = setting(
        0.065, "largest distance between matched points, as a share of the subject's size", gt=0, le=1
    )
    normal_degrees: float = setting(
        45.0, "largest angle between the normals of matched points", unit="deg", gt=0, le=180
    )
    velocity: float = setting(
        0.8,
        "share of the last motion that is extrapolated for a second start of the fit, beside that at rest; 0: none",
        ge=0,
        le=1,
    )
    damping: float = setting(1e-4, "least Levenberg damping, relative to the diagonal of the matrix", ge=0)
    adaptation_steps: int = setting(
        0,
        "steps of gradient descent in which the deformation decoder adapts to each new pair of frames; 20 to 50 where "
        "time allows; 0: none",
        ge=0, le=1000,
    )  # fmt: skip
    adaptation_rate: float = setting(1e-3, "learning rate of the adaptation steps", gt=0, le=1)


class WindowConfig(Section):
    """The sliding window."""

    length: int = setting(
        5,
        "frames in a window, N; a window has stride + 1 frames where that is more, and always if model.ray_share is 1",
        ge=2,
        le=17,
    )
    stride: int = setting(
        4, "frames by which a window advances, all completed together; 1 has the lowest latency", ge=1, le=16
    )
    overlap: bool = setting(
        True,
        "in the node, complete a window while the tracks still follow the last one: more results a second, each a "
        "little later",
    )


class TracksConfig(Section):
    """Persistent points: how many, and when they are born and die."""

    count: int = setting(
        3000,
        "points that are laid on the first surface, evenly by area, on its seen and its hidden side",
        ge=100,
        le=100_000,
    )
    snap: float = setting(
        1.0,
        "share of the way from a fitted point to the nearest place on the surface that the track is moved; 0: none",
        ge=0,
        le=1,
    )
    steady: float = setting(
        4.0,
        "strength of the filter that keeps the jitter of the surfaces out of the tracks, in standard deviations of it; "
        "0: no filter",
        ge=0,
        le=10,
    )
    budget: int = setting(4000, "new points are laid only while fewer points than this are tracked", ge=100)
    renew_frames: int = setting(
        10, "interval at which new points are laid on surface without tracks", unit="frame", ge=1, le=1000
    )
    birth_ratio: float = setting(
        4.0,
        "surface farther from every track than this many mean distances between neighbouring tracks gets new points",
        ge=1.5,
        le=100,
    )
    death_ratio: float = setting(
        0.04, "a track farther from the surface than this share of the subject's size is off the surface", gt=0, le=1
    )
    patience_s: float = setting(0.2, "a track that is off the surface for this long dies", unit="s", ge=0, le=60)
    memory_s: float = setting(
        3.0, "a dead track whose place on the body shows again within this time gets its id back", unit="s", ge=0
    )
    keyframe_frames: int = setting(
        50,
        "frames between keyframes, at which the motion since the first surface is fitted anew in one step",
        unit="frame",
        ge=2,
    )
    keyframe_ratio: float = setting(
        0.11,
        "a track dies at a keyframe if the two fits of its motion differ by more than this share of the subject's size",
        gt=0,
        le=1,
    )

    @model_validator(mode="after")
    def _all_fit_the_budget(self) -> Self:
        if self.count > self.budget:
            raise ValueError(f"budget is {self.budget}: it must be at least count, {self.count}")
        return self


class RosConfig(Section):
    """The node around the tracker."""

    image_reliability: Literal["best_effort", "reliable"] = setting(
        "best_effort", "QoS reliability of the depth and mask subscriptions"
    )
    image_transport: Literal["raw", "compressedDepth"] = setting(
        "raw",
        "raw: sensor_msgs/Image; compressedDepth: lossless PNG or RVL of compressed_depth_image_transport, on the "
        "topic of that name below the depth topic",
    )
    image_rectified: Literal["auto", "always", "never"] = setting(
        "auto",
        "whether the depth images are rectified, so that P of the camera info applies; auto: if the last part of their "
        "topic's name begins with image_rect",
    )
    queue_policy: Literal["latest", "all"] = setting(
        "latest",
        "latest: when the camera outruns inference, drop waiting frames, evenly in time (live); all: keep every frame "
        "(recordings)",
    )
    queue_size: int = setting(
        0,
        "most frames that wait for inference under policy latest; 0: window.stride; a longer queue only delays results",
        ge=0, le=10_000,
    )  # fmt: skip
    queue_memory_mb: int = setting(
        1024,
        "most memory of the frames that wait for inference, under either policy, and again of those that wait for a "
        "mask or a camera info; frames beyond it are dropped and counted",
        unit="MB", ge=1, le=1_000_000,
    )  # fmt: skip
    image_history: int = setting(
        10, "QoS history depth of the depth, mask and camera info subscriptions", ge=1, le=10_000
    )
    kept_frames: int = setting(150, "most frames that ~/save writes: the latest tracked ones", ge=1, le=100_000)
    autostart: bool = setting(True, "configure and activate the node at its start, without a lifecycle manager")
    mesh_rate_hz: float = setting(30.0, "most meshes published in a second", unit="Hz", gt=0, le=1000, live=True)
    mesh_max_triangles: int = setting(100_000, "most triangles of a published mesh", ge=100, le=5_000_000, live=True)
    publish_tf: bool = setting(
        False, "publish a TF frame for each node of the deformation graph, where tf2_msgs is installed", live=True
    )
    target_frame: str = setting("", "TF frame of the outputs, which needs tf2_ros; empty: the camera's own frame")
    fixed_frame: str = setting("", "TF frame that does not move, for a camera that does; empty: the camera is at rest")
    tf_timeout_s: float = setting(0.2, "longest wait for a transform", unit="s", ge=0, le=10)
    out_of_memory: Literal["smaller", "skip"] = setting(
        "smaller",
        "when memory runs out: smaller: go on with the next smaller preset with weights; skip: leave the window out",
        live=True,
    )
    output_folder: str = setting(
        "nr_tracking_output", "folder below which ~/save writes; a relative one is in the node's working directory"
    )
    save_report: bool = setting(True, "~/save writes report.html too, which occupies the processor for some seconds")
    depth_unit_m: float = setting(0.001, "metres per unit of an integer depth image", unit="m", gt=0, le=1)
    silence_s: float = setting(
        2.0, "/diagnostics reports an error after this long without a depth image", unit="s", gt=0, le=3600
    )


class Config(Section):
    """The whole tree. ``preset`` selects network, weights and matching defaults."""

    preset: PresetName = setting(DEFAULT_PRESET, PRESET_MEANING)
    device: Literal["cpu", "cuda"] = setting("cpu", "device of the networks")
    weights: str = setting("", "safetensors file of the weights; empty: those shipped with the preset")
    subject: SubjectConfig = SubjectConfig()
    volume: VolumeConfig = VolumeConfig()
    tsdf: TsdfConfig = TsdfConfig()
    model: ModelConfig = ModelConfig()
    mesh: MeshConfig = MeshConfig()
    deformation: DeformationConfig = DeformationConfig()
    refinement: RefinementConfig = RefinementConfig()
    window: WindowConfig = WindowConfig()
    tracks: TracksConfig = TracksConfig()
    training: TrainingConfig = TrainingConfig()
    ros: RosConfig = RosConfig()

    @property
    def window_frames(self) -> int:
        """How many frames a window has: at least ``window.length``, and one that it shares with the next.

        Along rays alone a frame needs no other one, and a longer window would only make its cube larger.
        """
        least = self.window.stride + 1
        return least if self.model.rays_alone else max(self.window.length, least)

    @model_validator(mode="after")
    def _cubes_count(self) -> Self:
        if self.volume.cubes > 1 and self.model.rays_alone:
            raise ValueError(
                f"volume.cubes is {self.volume.cubes}: with model.ray_share 1 nothing is completed in a cube; "
                "set it to 1"
            )
        return self


def load_config(source: str | Path | dict[str, Any] = DEFAULT_PRESET, **overrides: Any) -> Config:
    """Build a configuration from a preset's name, a YAML file or a nested dictionary.

    ``overrides`` are nested dictionaries or values laid over it: ``load_config("lite", window={"stride": 1})``.
    A file may be one of a node's parameters, such as ``config/tracking.yaml``. A file or dictionary may name its
    ``preset``; what it leaves out comes from there.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown, out of range, or does not go with another one.
    """
    if isinstance(source, dict):
        values = dict(source)
    elif str(source) in PRESETS:
        values = {"preset": str(source)}
    else:
        values = read_settings(Path(source))
    values = merged(values, overrides)
    preset = values.get("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"preset: {preset!r} is none of {', '.join(PRESETS)}")
    values = merged(PRESET_VALUES[preset], values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def chosen_settings(config: Config) -> dict[str, dict[str, Any]]:
    """What was chosen beside the preset: values that differ from it, by section and name, as YAML has them.

    The network is left out, which is the preset's own.
    """
    usual = load_config(config.preset).model_dump(mode="json")
    return {
        section: {name: value for name, value in values.items() if value != usual[section][name]}
        for section, values in config.model_dump(mode="json").items()
        if isinstance(values, dict) and section != "model"
    }


def _explain(error: ValidationError) -> str:
    """One line for each fault: key, value, what is allowed; an unknown key gets the nearest known one."""
    lines: list[str] = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            section: type[BaseModel] = Config
            for part in fault["loc"][:-1]:
                section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
            close = difflib.get_close_matches(str(fault["loc"][-1]), section.model_fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(section.model_fields)}"
            told = not close and any(line.endswith(hint) for line in lines)
            lines.append(f"{key}: unknown setting{'' if told else hint}")
        elif fault["type"] == "value_error":  # settings that do not go together
            lines.append(f"{key}.{fault['ctx']['error']}" if key else str(fault["ctx"]["error"]))
        else:
            lines.append(f"{key}: {fault['input']!r} is not allowed: {fault['msg']}")
    return "; ".join(lines)

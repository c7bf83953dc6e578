"""Every setting of the package, once: default, unit, range and meaning.

The tree of models below feeds the YAML files in ``config/``, the ROS parameters and their descriptors, ``nr_tracking
config`` and the tables in the docs. An unknown key, a value out of range and values that do not go together are a
:class:`ConfigError` that names the key, the value and what is allowed.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from nr_tracking.model_config import ModelConfig
from nr_tracking.presets import DEFAULT_PRESET, PRESET_VALUES
from nr_tracking.section import Section, setting
from nr_tracking.training_config import TrainingConfig

PresetName = Literal["test", "lite", "base", "full"]
PRESETS: tuple[str, ...] = tuple(PRESET_VALUES)


class ConfigError(ValueError):
    """A setting that is unknown, out of range, or does not go with another one."""


class SubjectConfig(Section):
    """Which pixels belong to the subject."""

    depth_min_m: float = setting(0.15, "nearer depth is ignored", unit="m", ge=0.0, le=20.0, live=True)
    depth_max_m: float = setting(6.0, "farther depth is ignored", unit="m", gt=0.0, le=50.0, live=True)
    region_min_m: tuple[float, float, float] = setting(
        (-50.0, -50.0, 0.0), "lower corner of the region box in the camera optical frame", unit="m", live=True
    )
    region_max_m: tuple[float, float, float] = setting(
        (50.0, 50.0, 50.0), "upper corner of the region box in the camera optical frame", unit="m", live=True
    )
    remove_plane: bool = setting(True, "remove planes (floor, walls, table) that extend beyond the subject", live=True)
    plane_distance_m: float = setting(0.015, "points within this distance belong to a plane", unit="m", gt=0.0, le=0.2)
    plane_fraction: float = setting(
        0.2, "smallest share of the depth pixels that the first plane to be removed covers", ge=0.02, le=1.0
    )
    choice: Literal["largest", "nearest", "clicked"] = setting(
        "largest", "which of several bodies is the subject; clicked: the one at point_m", live=True
    )
    point_m: tuple[float, float, float] = setting(
        (0.0, 0.0, 1.0), "a point on the subject in the camera optical frame, for choice clicked", unit="m", live=True
    )
    lost_s: float = setting(
        1.0,
        "a subject that is gone for so long is lost: the next one, chosen anew, has new ids",
        unit="s",
        ge=0,
        le=60,
        live=True,
    )
    component_ratio: float = setting(
        0.3,
        "components within this many subject sizes of the largest one are kept; fewer where a floor or wall is seen",
        ge=0.0,
        le=5.0,
    )
    occluder_ratio: float = setting(
        1.0, "components before the largest one in the image are kept within this many subject sizes", ge=0.0, le=5.0
    )
    component_gap_m: float = setting(
        0.05, "a depth step larger than this separates components; beyond 2 m more", unit="m", gt=0.0, le=1.0
    )
    minimum_pixels: int = setting(64, "fewer subject pixels are no subject", ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _something_is_within(self) -> Self:
        if self.depth_min_m >= self.depth_max_m:
            raise ValueError(f"depth_min_m is {self.depth_min_m}: it must be below depth_max_m, {self.depth_max_m}")
        for axis, lower, upper in zip("xyz", self.region_min_m, self.region_max_m, strict=True):
            if lower >= upper:
                raise ValueError(f"region_min_m is {lower} in {axis}: it must be below region_max_m there, {upper}")
        return self


class VolumeConfig(Section):
    """The cube around the subject in which the surface is reconstructed."""

    margin: float = setting(1.35, "side of the cube over the longest seen edge of the subject", ge=1.0, le=3.0)
    percentile: float = setting(
        0.3, "share of points cut off at each end when measuring an edge", unit="%", ge=0, le=10
    )
    depth_prior: float = setting(
        0.35,
        "depth assumed behind what is seen, over the seen depth or shorter width, whichever is more",
        ge=0.0,
        le=2.0,
    )
    recentre_ratio: float = setting(
        0.06, "a subject this share of the side off the centre moves the cube, in whole latent cells", ge=0, le=1
    )
    cubes: int = setting(
        1,
        "completions in slightly different cubes that are averaged; more take longer and are a little better",
        ge=1,
        le=5,
    )
    rescale_ratio: float = setting(
        1.25, "a subject that outgrows the cube by this factor gets a new one", ge=1.05, le=3.0
    )


class TsdfConfig(Section):
    """The truncated signed distance from one depth image."""

    truncation_voxels: float = setting(3.0, "truncation distance", unit="voxel", ge=1.0, le=20.0)
    kind: Literal["projective"] = setting("projective", "distance along the camera's z axis (Curless and Levoy)")


class MeshConfig(Section):
    """The zero level set."""

    upsample: int = setting(1, "mesh grid cells along one voxel of the field", ge=1, le=4)
    pull: bool = setting(
        True, "pull vertices onto the field between voxels; without, they are where interpolation puts them, sooner"
    )
    settle: bool = setting(
        True, "spread vertices and move them until faces lie on the field: as good as a grid twice as fine"
    )
    minimum_component: float = setting(0.03, "least share of the area of a part; of a seen one, a tenth", ge=0, le=1)
    carve: bool = setting(True, "the surface must not stand in space that the camera saw to be empty")


class DeformationConfig(Section):
    """Patches, associations and the patch-wise near-rigid deformation."""

    patches: int = setting(200, "number of patches, P", ge=8, le=2000)
    hierarchy: tuple[int, int] = setting((65, 22), "patches on the two coarser levels")
    softmax_scale: float = setting(100.0, "scale of cosine similarities before the softmax, sigma", gt=0, le=1000)
    backend: Literal["network", "none"] = setting("network", "where the first guess of a deformation comes from")


class RefinementConfig(Section):
    """Gauss-Newton refinement of a deformation at test time."""

    enabled: bool = setting(True, "refine deformations against the next surface")
    backend: Literal["numpy", "torch"] = setting(
        "numpy", "numpy: sparse solver, fastest on a CPU; torch: dense solver on the device"
    )
    iterations: int = setting(12, "Gauss-Newton steps at most; small ones end it sooner", ge=0, le=100)
    samples: int = setting(1000, "surface samples in each direction", ge=50, le=50_000)
    nodes: int = setting(150, "nodes of the deformation graph that carries the tracks", ge=8, le=2000)
    point_to_plane: float = setting(1.0, "weight of point-to-plane residuals", ge=0)
    point_to_point: float = setting(0.03, "weight of point-to-point residuals", ge=0)
    rigidity: float = setting(3.0, "weight of as-rigid-as-possible residuals between successive poses", ge=0)
    rigidity_limit: float = setting(
        0.007, "beyond this share of the subject's size these residuals count less, so that parts come apart; 0: never",
        ge=0, le=1,
    )  # fmt: skip
    embedding: float = setting(0.0, "weight of the embedding when matching points, lambda; 0 for none", ge=0)
    match_radius: float = setting(0.065, "matches are sought within this share of the subject's size", gt=0, le=1)
    normal_degrees: float = setting(45.0, "matched normals differ by at most this angle", unit="deg", gt=0, le=180)
    velocity: float = setting(0.8, "start from this share of the last displacement", ge=0, le=1)
    damping: float = setting(1e-4, "Levenberg damping relative to the diagonal", ge=0)
    adaptation_steps: int = setting(
        0, "steps in which the deformation decoder learns from each new pair of frames, 20 to 50 where it may take "
        "time; 0 for none", ge=0, le=1000,
    )  # fmt: skip
    adaptation_rate: float = setting(1e-3, "learning rate of these steps", gt=0, le=1)


class WindowConfig(Section):
    """The sliding window."""

    length: int = setting(
        5, "frames in a window, N, stride + 1 where that is more; along rays alone it is always that", ge=2, le=17
    )
    stride: int = setting(4, "new frames per window: 1 for the lowest latency", ge=1, le=16)
    overlap: bool = setting(
        True, "live, complete a window while tracks follow the last one: more frames a second, each a little later"
    )


class TracksConfig(Section):
    """Persistent points."""

    count: int = setting(3000, "tracked points, evenly by area over the whole surface", ge=100, le=100_000)
    snap: float = setting(1.0, "share of the way to the next surface that a track is projected, 0 for none", ge=0, le=1)
    steady: float = setting(
        4.0,
        "how firmly the trembling of surfaces is kept out of tracks, in standard deviations of it; 0: not at all",
        ge=0,
        le=10,
    )
    budget: int = setting(4000, "points at most, with those that are born where surface comes into view", ge=100)
    renew_frames: int = setting(10, "frames between looks for surface without tracks", unit="frame", ge=1, le=1000)
    birth_ratio: float = setting(
        4.0, "surface this many mean distances between tracks away from all of them gets new ones", ge=1.5, le=100
    )
    death_ratio: float = setting(
        0.04, "a track this share of the subject's size off the surface is leaving it", gt=0, le=1
    )
    patience_s: float = setting(0.2, "a track dies when it has been off the surface for so long", unit="s", ge=0, le=60)
    memory_s: float = setting(3.0, "a dead track that comes back within this time gets its id again", unit="s", ge=0)
    keyframe_frames: int = setting(
        50, "frames between keyframes, onto which the motion since the first surface is fitted anew", unit="frame", ge=2
    )
    keyframe_ratio: float = setting(
        0.11, "tracks that differ by this share of the subject's size from a keyframe's fit die", gt=0, le=1
    )

    @model_validator(mode="after")
    def _all_fit_the_budget(self) -> Self:
        if self.count > self.budget:
            raise ValueError(f"budget is {self.budget}: it must be at least count, {self.count}")
        return self


class RosConfig(Section):
    """The node around the tracker."""

    image_reliability: Literal["best_effort", "reliable"] = setting("best_effort", "QoS of the depth subscription")
    image_transport: Literal["raw", "compressedDepth"] = setting(
        "raw", "raw images, or the lossless PNG or RVL of compressed_depth_image_transport below the depth topic"
    )
    image_rectified: Literal["auto", "always", "never"] = setting(
        "auto",
        "images are free of the lens, so P of the camera info holds; auto: where their topic is named image_rect*",
    )
    queue_policy: Literal["latest", "all"] = setting(
        "latest", "latest: drop evenly when the camera outruns inference (live); all: keep every frame (recordings)"
    )
    queue_size: int = setting(
        0, "frames that wait for inference at most under policy latest; 0: window.stride, more only make results late",
        ge=0, le=10_000,
    )  # fmt: skip
    queue_memory_mb: int = setting(
        1024, "memory of waiting frames at most, under either policy; beyond it frames are dropped and counted",
        unit="MB", ge=1, le=1_000_000,
    )  # fmt: skip
    image_history: int = setting(10, "QoS history depth of the depth subscription", ge=1, le=10_000)
    kept_frames: int = setting(150, "latest tracked frames kept for ~/save", ge=1, le=100_000)
    autostart: bool = setting(True, "configure and activate at once, without a lifecycle manager")
    mesh_rate_hz: float = setting(30.0, "meshes published per second at most", unit="Hz", gt=0, le=1000, live=True)
    mesh_max_triangles: int = setting(100_000, "triangles of a published mesh at most", ge=100, le=5_000_000, live=True)
    publish_tf: bool = setting(False, "publish a TF frame for each patch, where tf2_msgs is installed", live=True)
    target_frame: str = setting("", "TF frame of the outputs, where tf2_ros is installed; empty for the camera's own")
    fixed_frame: str = setting("", "TF frame that does not move, for a camera that does; empty for a camera at rest")
    tf_timeout_s: float = setting(0.2, "transforms are waited for so long", unit="s", ge=0, le=10)
    out_of_memory: Literal["smaller", "skip"] = setting(
        "smaller",
        "smaller: continue with the next smaller preset that has weights; skip: leave the window out",
        live=True,
    )
    output_folder: str = setting("nr_tracking_output", "folder below which ~/save writes")
    save_report: bool = setting(True, "~/save draws report.html too, which takes the processor for some seconds")
    depth_unit_m: float = setting(0.001, "metres per unit of an integer depth image", unit="m", gt=0, le=1)
    silence_s: float = setting(2.0, "diagnostics complain after this long without depth", unit="s", gt=0, le=3600)


class Config(Section):
    """The whole tree. ``preset`` selects network, weights and matching defaults."""

    preset: PresetName = setting(
        DEFAULT_PRESET,
        "network and weights, which come with lite and base; test (for unit tests) and full (for a GPU) need weights",
    )
    device: Literal["cpu", "cuda"] = setting("cpu", "where the network runs")
    weights: str = setting("", "safetensors file; empty for the one shipped with the preset")
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
    A file or dictionary may name its ``preset``; what it leaves out comes from there.
    """
    if isinstance(source, dict):
        values = dict(source)
    elif str(source) in PRESETS:
        values = {"preset": str(source)}
    else:
        values = read_yaml(Path(source))
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader."""
    if not path.is_file():
        raise ConfigError(f"no configuration file {path} (and no preset of that name: {', '.join(PRESETS)})")
    try:
        values = yaml_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # no text, or a date that is none
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(values).__name__}")
    return values


class _StrictLoader(yaml.SafeLoader):
    """Refuses a mapping with a key twice, of which YAML would take the last and lose the other without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, before ``<<`` brings other keys, which may well be there already."""
        node = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for index, key in enumerate(keys):
            if any(key.value == former.value for former in keys[:index]):
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} is there twice", key.start_mark)
        return node


def yaml_value(text: str) -> Any:
    """What YAML says, by the safe loader; ``yaml.YAMLError`` or ``ValueError`` where it says nothing."""
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay nested dictionary ``over`` over ``base``; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _explain(error: ValidationError) -> str:
    """One line for each fault: key, value, what is allowed; an unknown key gets the nearest known one."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            section: type[BaseModel] = Config
            for part in fault["loc"][:-1]:
                section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
            close = difflib.get_close_matches(str(fault["loc"][-1]), section.model_fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(section.model_fields)}"
            lines.append(f"{key}: unknown setting; {hint}")
        elif fault["type"] == "value_error":  # settings that do not go together
            lines.append(f"{key}.{fault['ctx']['error']}" if key else str(fault["ctx"]["error"]))
        else:
            lines.append(f"{key}: {fault['input']!r} is not allowed: {fault['msg']}")
    return "; ".join(lines)

"""The reference of the node in the docs: ``python -m nr_tracking.ros.reference > docs/reference.md``."""

from __future__ import annotations

from functools import cache
from typing import Any

from nr_tracking.config import PRESETS, load_config
from nr_tracking.ros.interface import ENDPOINTS
from nr_tracking.ros.settings import Setting, setting_varies, settings, yaml_value

_HEADINGS = {"subscription": "Topics it listens to", "publisher": "Topics it publishes", "service": "Services"}
_FIRST = ("", "ros", "subject", "tracks", "mesh", "window")
"""Sections that users change, in this order; the settings that are in no section come before."""
_FIXED_BY_WEIGHTS = ("model", "volume", "tsdf")
"""Sections that weights are made for."""
_TABLE = ["| name | default | allowed | when | |", "|---|---|---|---|---|"]


def reference() -> str:
    """Topics, services and parameters of ``tracking_node`` as Markdown."""
    sections: dict[str, list[Setting]] = {}
    for setting in settings(load_config()):
        sections.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    others = [name for name in sections if name not in (*_FIRST, *_FIXED_BY_WEIGHTS)]
    lines = [
        "# Reference of tracking_node",
        "",
        "Generated from the code by `python -m nr_tracking.ros.reference`; a test compares.",
    ]
    for kind, heading in _HEADINGS.items():
        lines += ["", f"## {heading}", "", "| name | type | QoS | |", "|---|---|---|---|"]
        lines += [
            f"| `{each.name}` | `{each.type}` | {each.qos} | {each.meaning} |"
            for each in ENDPOINTS
            if each.kind == kind
        ]
    lines += [
        "",
        "With `ros.image_transport: compressedDepth` images come from `depth/image_raw/compressedDepth`",
        "(`sensor_msgs/msg/CompressedImage`). With `ros.publish_tf`, and tf2_msgs installed, nodes of the deformation "
        "graph are on `/tf`.",
        "",
        "The QoS of each topic can be overridden: `qos_overrides./depth/image_raw.subscription.reliability: reliable`,",
        "`qos_overrides./nr_tracking/mesh.publisher.depth: 5`, and so on for `history`, `depth` and `reliability`.",
        "",
        "## Parameters",
        "",
        "*When*: `live` parameters change while the node runs; others while it is unconfigured (`cleanup`, set,",
        "`configure`); `start` ones only when the process starts. Names are those of `nr_tracking config`.",
        "The ones that users change most are in [The ROS 2 nodes](ros.md#the-settings-that-matter).",
        "",
        *_TABLE,
        *(_row(setting) for name in (*_FIRST, *others) for setting in sections[name]),
        "",
        "### Fixed by the weights: change only to train",
        "",
        "Only `volume.cubes` can be changed with the weights as they are.",
        "",
        *_TABLE,
        *(_row(setting) for name in _FIXED_BY_WEIGHTS for setting in sections[name]),
    ]
    return "\n".join(lines) + "\n"


@cache
def _by_preset() -> dict[str, dict[str, Any]]:
    return {name: {each.name: each.value for each in settings(load_config(name))} for name in PRESETS}


def _row(setting: Setting) -> str:
    by_preset = _by_preset()
    default = f"`{yaml_value(setting.value)}`"
    if setting.name != "preset" and setting_varies(by_preset, setting.name):
        default = ", ".join(f"{name} `{yaml_value(by_preset[name][setting.name])}`" for name in PRESETS)
    when = "live" if setting.live else "start" if setting.fixed else "unconfigured"
    unit = f" [{setting.unit}]" if setting.unit else ""
    meaning = setting.meaning.replace("|", "\\|")
    return f"| `{setting.name}` | {default} | {setting.allowed()} | {when} | {meaning}{unit} |"


if __name__ == "__main__":
    print(reference(), end="")

"""The configuration as flat, named settings: what becomes ROS parameters and ``config/tracking.yaml``.

Names are those of the tree: ``refinement.iterations``. Settings of the training are none of a node's business and are
left out. No ROS is needed here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
import numpy as np
from pydantic.fields import FieldInfo

from nr_tracking.config import PRESETS, Config, ConfigError, Section, load_config
from nr_tracking.presets import DEFAULT_PRESET

_ALL = "see config/tracking.yaml for all parameters"
_NOT_OF_A_NODE = ("training",)
_FIXED = ("preset", "model.", "ros.autostart")  # what decides other defaults, weights are made for, or is read once


@dataclass(frozen=True)
class Setting:
    """One setting: ``value`` is a bool, int, float, str or a list of int or float.

    ``lower`` and ``upper`` bound numbers, None where they do not, and ``lower`` itself is not allowed where it is
    ``open``; ``choices`` are the texts that are allowed, empty for any. ``live``: may change while the node is active.
    ``fixed``: only at the start of the process.
    """

    name: str
    value: Any
    meaning: str
    unit: str
    lower: float | None
    upper: float | None
    open: bool
    choices: tuple[str, ...]
    live: bool
    fixed: bool

    def allowed(self) -> str:
        """What values are allowed, in words; empty for any."""
        if self.choices:
            return ", ".join(self.choices)
        if self.lower is None and self.upper is None:
            return ""
        least = "" if self.lower is None else f"{'above' if self.open else 'at least'} {self.lower:.9g}"
        most = "" if self.upper is None else f"at most {self.upper:.9g}"
        if least and most and not self.open:
            return f"{self.lower:.9g} to {self.upper:.9g}"
        return ", ".join(filter(None, [least, most]))

    def remark(self) -> str:
        """Meaning, unit, range, and when the value can change."""
        when = "live" if self.live else ""
        return "; ".join(filter(None, [self.meaning, f"[{self.unit}]" if self.unit else "", self.allowed(), when]))


def settings(config: Config) -> Iterator[Setting]:
    """All settings of a node with their values in ``config``, in the order of the tree."""
    yield from _settings(config, "")


def _settings(section: Section, prefix: str) -> Iterator[Setting]:
    for key, info in type(section).model_fields.items():
        value, name = getattr(section, key), prefix + key
        if isinstance(value, Section):
            if name not in _NOT_OF_A_NODE:
                yield from _settings(value, f"{name}.")
        else:
            yield _setting(name, value, info)


def _setting(name: str, value: Any, info: FieldInfo) -> Setting:
    extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    lower = upper = None
    above = False
    for limit in info.metadata:
        if isinstance(limit, annotated_types.Ge | annotated_types.Gt):
            above = isinstance(limit, annotated_types.Gt)
            lower = limit.gt if isinstance(limit, annotated_types.Gt) else limit.ge
        if isinstance(limit, annotated_types.Le | annotated_types.Lt):
            upper = limit.le if isinstance(limit, annotated_types.Le) else limit.lt
    return Setting(
        name=name,
        value=list(value) if isinstance(value, tuple) else value,
        meaning=info.description or "",
        unit=extra.get("unit", ""),
        lower=lower,  # type: ignore[arg-type]
        upper=upper,  # type: ignore[arg-type]
        open=above,
        choices=get_args(info.annotation) if get_origin(info.annotation) is Literal else (),
        live=bool(extra.get("live", False)),
        fixed=name.startswith(_FIXED),
    )


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """``{"mesh.upsample": 2}`` as ``{"mesh": {"upsample": 2}}``."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, key = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[key] = value
    return tree


def config_of(values: dict[str, Any]) -> Config:
    """The configuration of flat settings; :class:`ConfigError` where a value is not allowed."""
    return load_config(nested(values))


def check_names(names: Iterable[str], known: Sequence[str] = (), otherwise: str = _ALL) -> None:
    """Raise a :class:`ConfigError` for the first name that is not known; it says which one is meant, or ``otherwise``.

    Known are the settings, unless ``known`` names others.
    """
    known = known or [setting.name for setting in settings(Config())]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else otherwise
            raise ConfigError(f"unknown parameter {name!r}; {hint}")


def parameters_yaml(preset: str = DEFAULT_PRESET) -> str:
    """``config/tracking.yaml``: every parameter with its default, meaning, unit and range.

    Settings that the preset decides stand as comments, so that choosing another preset changes them.
    """
    by_preset = {name: {s.name: s.value for s in settings(load_config(name))} for name in PRESETS}
    lines = [
        "# Parameters of nr_tracking's tracking_node, all of them, with their defaults.",
        "# Generated from nr_tracking/config.py by `python -m nr_tracking.ros.settings`. Remarks tell meaning, [unit],",
        "# range; live: may change while the node is active, others while it is unconfigured. Lines commented out come",
        "# with the preset.",
        "/**:",
        "  ros__parameters:",
    ]
    section = ""
    for setting in settings(load_config(preset)):
        *path, key = setting.name.split(".")
        if path and path[0] != section:
            section = path[0]
            lines += ["", f"    {section}:"]
        indent = "      " if path else "    "
        varies = setting.name != "preset" and setting_varies(by_preset, setting.name)
        per_preset = ", ".join(f"{name} {yaml_value(by_preset[name][setting.name])}" for name in PRESETS)
        lines.append(f"{indent}# {setting.remark()}" + (f"; by preset: {per_preset}" if varies else ""))
        lines.append(f"{indent}{'# ' if varies else ''}{key}: {yaml_value(setting.value)}")
    return "\n".join(lines) + "\n"


def setting_varies(by_preset: dict[str, dict[str, Any]], name: str) -> bool:
    """Whether presets differ in a setting."""
    return len({repr(values[name]) for values in by_preset.values()}) > 1


def yaml_value(value: Any) -> str:
    """A value as YAML that both PyYAML and ROS's own parser read with the right type."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(yaml_value(item) for item in value)}]"
    if isinstance(value, float):
        return np.format_float_positional(value, trim="0")
    return str(value) if isinstance(value, int) or value else '""'


if __name__ == "__main__":
    print(parameters_yaml(), end="")

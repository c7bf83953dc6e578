"""From command-line options to a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nr_tracking.config import PRESETS, Config, ConfigError, load_config
from nr_tracking.presets import DEFAULT_PRESET
from nr_tracking.settings_file import merged, read_settings, yaml_value
from nr_tracking.types import InputError


def choose_config(
    preset: str | None = None,
    file: Path | None = None,
    settings: list[str] | None = None,
    device: str | None = None,
    default: str | None = None,
) -> Config:
    """Lay ``settings`` (``section.key=value``) over ``file`` over ``preset``; options win over the file.

    Without a preset it is the one that settings or file name, else ``default``, by default the best that has weights.
    The file may be one of a node's parameters, such as ``config/tracking.yaml``. :class:`ConfigError` where ``preset``
    or ``device`` and ``settings`` say different things.
    """
    values: dict[str, Any] = read_settings(file) if file else {}
    for text in settings or []:
        assigned = _assignment(text)
        for name, option in (("preset", preset), ("device", device)):
            if option and assigned.get(name, option) != option:
                raise ConfigError(f"--{name} {option} and --set {text} exclude each other: leave one of them out")
        values = merged(values, assigned)
    if preset:
        values["preset"] = preset
    if device:
        values["device"] = device
    if "preset" not in values:
        values["preset"] = default or (DEFAULT_PRESET if values.get("weights") else best_preset())
    return load_config(values)


def best_preset() -> str:
    """The largest preset whose weights are installed."""
    from nr_tracking.fields.weights import weights_path

    for preset in reversed(PRESETS):
        if preset != "test":
            try:
                weights_path(load_config(preset))
            except InputError:
                continue
            return preset
    return DEFAULT_PRESET  # the tracker then says where it looked for weights


def config_yaml(config: Config) -> str:
    """The whole tree as YAML with unit and meaning of every setting; ``load_config`` reads it back."""
    return "".join(_lines(config, ""))


def _lines(section: Any, indent: str) -> list[str]:
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if hasattr(type(value), "model_fields"):
            meaning = (type(value).__doc__ or "").strip().splitlines()[0]
            lines += [f"\n{indent}{name}:  # {meaning}\n", *_lines(value, indent + "  ")]
            continue
        text = yaml.safe_dump(section.model_dump(mode="json")[name], default_flow_style=True, width=1000)
        text = text.removesuffix("\n").removesuffix("\n...")
        extra = field.json_schema_extra or {}
        unit = f" [{extra['unit']}]" if isinstance(extra, dict) and extra.get("unit") else ""
        comment = f"  # {field.description}{unit}" if field.description else ""
        lines.append(f"{indent}{name}: {text}{comment}\n")
    return lines


def _assignment(text: str) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: expected section.key=value, for example window.stride=1")
    try:
        nested: Any = yaml_value(value)
    except (yaml.YAMLError, ValueError) as error:  # such as a date that is none
        raise ConfigError(f"--set {text}: {value!r} is not a YAML value: {error}") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)

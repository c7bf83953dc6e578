"""Settings as YAML says them: files of settings, and those of a node's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nr_tracking.presets import PRESET_VALUES
from nr_tracking.section import ConfigError

OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters that every node has; they are no settings."""


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a file by section; of a node's parameters, as ``config/tracking.yaml`` has them, those within.

    Raises:
        ConfigError: the file is missing, cannot be read, or holds no mapping.
    """
    values = read_yaml(path)
    node = next(iter(values.values())) if len(values) == 1 else None
    if not isinstance(node, dict) or "ros__parameters" not in node:
        return values
    parameters = node["ros__parameters"] or {}
    if not isinstance(parameters, dict):
        raise ConfigError(f"ros__parameters must be a mapping of settings, not {type(parameters).__name__}")
    try:
        settings = _nested(parameters)
    except RecursionError:
        raise ConfigError(f"{path}: its parameters contain themselves") from None
    return {name: value for name, value in settings.items() if name not in OF_ROS}


def _nested(parameters: dict[Any, Any]) -> dict[str, Any]:
    """Parameters by section, whether their names are dotted or nested."""
    tree: dict[str, Any] = {}
    for name, value in parameters.items():
        branch: Any = _nested(value) if isinstance(value, dict) else value
        for part in reversed(str(name).split(".")):
            branch = {part: branch}
        tree = merged(tree, branch)
    return tree


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader."""
    if not path.is_file():
        raise ConfigError(f"no configuration file {path} (and no preset of that name: {', '.join(PRESET_VALUES)})")
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

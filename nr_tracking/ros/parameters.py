"""The configuration as ROS parameters, with descriptors, and back.

Which values are right is decided in ``config.py`` alone; the descriptors repeat its ranges so that tools can show them.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from nr_tracking.config import Config, ConfigError, load_config
from nr_tracking.ros.settings import Setting, check_names, config_of, settings
from nr_tracking.settings_file import OF_ROS

_INT64 = (-(2**63), 2**63 - 1)
_DOUBLE = (-sys.float_info.max, sys.float_info.max)
_DEFAULTS = {setting.name: setting.value for setting in settings(Config())}


def declare(node: Node) -> Config:
    """Declare every setting on a node, with the values given at its start, and return them as a configuration.

    The preset is read first: it decides the defaults of others.

    Raises:
        ConfigError: a parameter was given that does not exist, has the wrong type, or is out of range.
    """
    check_names(given_names(node))
    given = _given(node)
    given.update({name: _as_declared(parameter) for name, parameter in given.items()})
    config = Config()
    for setting in settings(config):
        if setting.name == "preset":
            config = load_config({"preset": _declare(node, setting)})
    for setting in settings(config):
        if setting.name != "preset":
            _declare(node, setting)
    if hasattr(node, "add_pre_set_parameters_callback"):  # not in older ROS
        node.add_pre_set_parameters_callback(lambda changed: [_as_declared(each) for each in changed])
    return read(node)


def given_names(node: Node) -> list[str]:
    """Names of the parameters that a node was given at its start, without those that every node of ROS has."""
    return [name for name in _given(node) if name.split(".")[0] not in OF_ROS]


def read(node: Node, changes: dict[str, Any] | None = None) -> Config:
    """The configuration of a node's parameters, with ``changes`` laid over it."""
    values = {setting.name: node.get_parameter(setting.name).value for setting in settings(Config())}
    return config_of({**values, **(changes or {})})


def descriptor(setting: Setting) -> ParameterDescriptor:
    """Meaning, unit, range and whether the parameter is read-only."""
    description = ParameterDescriptor(
        name=setting.name,
        description=setting.remark(),
        read_only=setting.fixed,
        additional_constraints=setting.allowed(),
    )
    bounded = setting.lower is not None or setting.upper is not None
    if bounded and type(setting.value) is int:
        lower, upper = _bounds(setting, _INT64)
        description.integer_range = [IntegerRange(from_value=int(lower), to_value=int(upper), step=0)]
    elif bounded and isinstance(setting.value, float):
        lower, upper = _bounds(setting, _DOUBLE)
        if setting.open:
            lower = math.nextafter(lower, math.inf)
        description.floating_point_range = [
            FloatingPointRange(from_value=float(lower), to_value=float(upper), step=0.0)
        ]
    return description


def _bounds(setting: Setting, limits: tuple[float, float]) -> tuple[float, float]:
    lower, upper = setting.lower, setting.upper
    return limits[0] if lower is None else lower, limits[1] if upper is None else upper


def _given(node: Node) -> dict[str, Parameter[Any]]:
    """What --ros-args and the launch file set, which rclpy keeps to itself."""
    return getattr(node, "_parameter_overrides", {})


def _as_declared(parameter: Parameter[Any]) -> Parameter[Any]:
    """The parameter with its whole numbers as the decimals that its setting has: 3 is a fine number of metres."""
    default, value = _DEFAULTS.get(parameter.name), parameter.value
    if isinstance(default, float) and parameter.type_ == Parameter.Type.INTEGER:
        return Parameter(parameter.name, value=float(value))
    decimals = isinstance(default, list) and all(isinstance(each, float) for each in default)
    if decimals and parameter.type_ == Parameter.Type.INTEGER_ARRAY:
        return Parameter(parameter.name, value=[float(each) for each in value])
    return parameter


def _declare(node: Node, setting: Setting) -> Any:
    try:
        return node.declare_parameter(setting.name, setting.value, descriptor(setting)).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        allowed = setting.allowed()
        raise ConfigError(f"{setting.name}: {error}" + (f"; allowed: {allowed}" if allowed else "")) from None

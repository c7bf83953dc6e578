"""ROS parameters, their file and the configuration tree are one and the same."""

from pathlib import Path

import pytest
import yaml

from nr_tracking.config import Config, ConfigError, load_config
from nr_tracking.ros.settings import config_of, nested, parameters_yaml, settings

FILE = Path(__file__).parents[1] / "config" / "tracking.yaml"


def test_parameter_file_is_the_one_that_the_settings_give():
    assert FILE.read_text() == parameters_yaml(), "run: python -m nr_tracking.ros.settings > config/tracking.yaml"


def test_parameter_file_read_back_is_the_default_configuration():
    values = yaml.safe_load(FILE.read_text())["/**"]["ros__parameters"]
    assert load_config(values) == load_config()


def test_every_parameter_stands_in_the_file_and_says_what_it_is():
    text = FILE.read_text()
    for setting in settings(Config()):
        assert setting.meaning and setting.remark() in text and f"{setting.name.split('.')[-1]}: " in text


@pytest.mark.parametrize("preset", ["test", "lite", "base", "full"])
def test_settings_of_every_preset_give_its_configuration_back(preset):
    config = load_config(preset)
    assert config_of({setting.name: setting.value for setting in settings(config)}) == config


def test_names_nest_as_the_tree_does():
    assert nested({"a": 1, "b.c": 2, "b.d": 3}) == {"a": 1, "b": {"c": 2, "d": 3}}


@pytest.fixture
def make_node(ros_context):
    rclpy = pytest.importorskip("rclpy")
    nodes = []

    def make(**given):
        from rclpy.parameter import Parameter

        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in given.items()]
        nodes.append(rclpy.create_node("settings", context=ros_context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_declared_parameters_carry_meaning_range_and_read_only(make_node):
    from nr_tracking.ros import parameters

    node = make_node()
    assert parameters.declare(node) == load_config()
    iterations = node.describe_parameter("refinement.iterations")
    assert (iterations.integer_range[0].from_value, iterations.integer_range[0].to_value) == (0, 100)
    assert "Gauss-Newton" in iterations.description and not iterations.read_only
    depth = node.describe_parameter("subject.depth_max_m")
    assert depth.floating_point_range[0].to_value == 50.0 and "[m]" in depth.description
    assert node.describe_parameter("ros.queue_policy").additional_constraints == "latest, all"
    assert node.describe_parameter("model.resolution").read_only


def test_preset_decides_defaults_and_given_values_win(make_node):
    from nr_tracking.ros import parameters

    config = parameters.declare(make_node(preset="test", window__stride=1))
    assert config == load_config("test", window={"stride": 1})


def test_whole_numbers_are_decimals_where_a_setting_has_them(make_node):
    from rclpy.parameter import Parameter

    from nr_tracking.ros import parameters

    node = make_node(subject__depth_max_m=3, subject__region_min_m=[-1, -1, 0])
    config = parameters.declare(node)
    assert (config.subject.depth_max_m, config.subject.region_min_m) == (3.0, (-1.0, -1.0, 0.0))
    if not hasattr(node, "add_pre_set_parameters_callback"):
        pytest.skip("this ROS cannot change what was set while a node runs")
    results = node.set_parameters([Parameter("subject.depth_max_m", value=4), Parameter("mesh.upsample", value=1.0)])
    assert [each.successful for each in results] == [True, False], "a decimal is no whole number"
    assert parameters.read(node).subject.depth_max_m == 4.0


def test_what_is_read_once_at_the_start_cannot_be_set_later(make_node):
    from rclpy.parameter import Parameter

    from nr_tracking.ros import parameters

    node = make_node(ros__autostart=False)
    assert not parameters.declare(node).ros.autostart
    assert "read-only" in node.set_parameters([Parameter("ros.autostart", value=True)])[0].reason


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"subject__depth_max_m": 60}, "subject.depth_max_m.*at most 50"),
        ({"refinement__iteration": 3}, "refinement.iteration'; did you mean 'refinement.iterations"),
        ({"refinement__iterations": 101}, "refinement.iterations.*0 to 100"),
        ({"refinement__iterations": 1.5}, "refinement.iterations.*INTEGER"),
        ({"ros__queue_policy": "newest"}, "ros.queue_policy: 'newest'"),
        ({"subject__depth_max_m": 0.0}, "subject.depth_max_m.*above 0, at most 50"),
        ({"preset": "huge"}, "'huge' is none of test, lite, base, full"),
        ({"subject__region_min_m": [0.0, 1.0]}, "subject.region_min_m"),
    ],
)
def test_wrong_parameters_are_refused_by_name(make_node, given, complaint):
    from nr_tracking.ros import parameters

    with pytest.raises(ConfigError, match=complaint):
        parameters.declare(make_node(**given))

"""Settings: one tree, clear errors, YAML round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nr_tracking.commands.settings import choose_config
from nr_tracking.config import PRESETS, Config, ConfigError, Section, chosen_settings, load_config
from nr_tracking.settings_file import read_yaml


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_yaml(preset: str, tmp_path):
    config = load_config(preset)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(path) == config


def test_an_unknown_key_names_itself_and_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"window\.strid: unknown setting; did you mean 'stride'"):
        load_config("lite", window={"strid": 2})


def test_the_known_settings_are_listed_once():
    with pytest.raises(ConfigError) as caught:
        load_config({"zzz": 1, "qqq": 2, "window": {"zzz": 3}})
    said = str(caught.value)
    assert said.count("known: preset, device") == 1 and said.count("known: length, stride") == 1
    assert said.count("zzz: unknown setting") == 2 and "qqq: unknown setting" in said


def test_parameters_of_a_node_are_settings_too(tmp_path):
    shipped = Path(__file__).parents[1] / "config" / "tracking.yaml"
    assert choose_config(file=shipped) == load_config(shipped) == load_config("base")
    assert choose_config("lite", shipped).preset == "lite"
    file = tmp_path / "mine.yaml"
    names = "use_sim_time: true, qos_overrides./depth.subscription.depth: 3, qos_overrides: {/a: {publisher: 1}}"
    settings = "preset: test, window.stride: 2, window: {length: 7}, subject: {region_min_m: [-1.0, 0.0, 1.0]}"
    file.write_text(f"/nr_tracking: {{ros__parameters: {{{names}, {settings}}}}}")
    assert choose_config(file=file) == load_config(
        "test", window={"stride": 2, "length": 7}, subject={"region_min_m": (-1, 0, 1)}
    )
    assert load_config(file, window={"length": 9}) == choose_config(file=file, settings=["window.length=9"])
    for text, said in (
        ("{window.strid: 2}", r"window\.strid: unknown setting"),
        ("[1]", "must be a mapping"),
        ("&it {window: *it}", "contain themselves"),
    ):
        file.write_text(f"/**: {{ros__parameters: {text}}}")
        for read in (load_config, lambda path: choose_config(file=path)):
            with pytest.raises(ConfigError, match=said):
                read(file)
    file.write_text("/**: {ros__parameters: }")
    assert choose_config("lite", file) == load_config(file, preset="lite") == load_config("lite")


@pytest.mark.parametrize(
    ("option", "setting"), [({"preset": "base"}, "preset=lite"), ({"device": "cpu"}, "device=cuda")]
)
def test_an_option_and_a_setting_that_disagree_are_refused(option, setting):
    with pytest.raises(ConfigError, match=f"and --set {setting} exclude each other"):
        choose_config(settings=[setting], **option)


def test_a_value_out_of_range_names_key_value_and_limit():
    with pytest.raises(ConfigError, match=r"window\.stride: 99 .*less than or equal to 16"):
        load_config("lite", window={"stride": 99})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"subject": {"depth_min_m": 7.0}}, r"subject\.depth_min_m is 7\.0: it must be below depth_max_m, 6\.0"),
        (
            {"subject": {"region_min_m": [0, 60, 0]}},
            r"subject\.region_min_m is 60\.0 in y: .* region_max_m there, 50\.0",
        ),
        (
            {"volume": {"cubes": 3}},
            r"volume\.cubes is 3: with model\.ray_share 1 nothing is completed in a cube; set it to 1",
        ),
        ({"tracks": {"count": 9000}}, r"tracks\.budget is 4000: it must be at least count, 9000"),
    ],
)
def test_values_that_do_not_go_together_name_both(values, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        load_config("lite", **values)


def test_an_unknown_preset_lists_those_that_exist():
    with pytest.raises(ConfigError, match="lite"):
        load_config({"preset": "huge"})


def test_a_missing_file_and_a_broken_file_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(tmp_path / "list.yaml")


def test_overrides_leave_the_rest_of_a_section_alone():
    config = load_config("base", window={"stride": 2})
    assert config.window.stride == 2
    assert config.window.length == 2
    assert config.model.dense_blocks == 1


def test_windows_are_as_long_as_their_stride_needs():
    assert load_config("base").window_frames == 2
    assert load_config("base", window={"stride": 4}).window_frames == 5
    assert load_config("base", window={"stride": 2}).window_frames == 3
    assert load_config("lite", window={"stride": 2}).window_frames == 3, "along rays alone no frame needs another"


def test_what_was_chosen_beside_a_preset_makes_the_same_configuration():
    config = load_config("base", window={"stride": 2}, subject={"region_min_m": [-1, -1, 0]})
    chosen = chosen_settings(config)
    assert {name: values for name, values in chosen.items() if values} == {
        "window": {"stride": 2},
        "subject": {"region_min_m": [-1.0, -1.0, 0.0]},
    }
    assert load_config({"preset": "base", **chosen}) == config


def test_no_setting_lacks_a_meaning():
    def check(section: type[Section], path: str) -> None:
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                check(field.annotation, f"{path}{name}.")
            else:
                assert field.description, f"{path}{name} has no description"

    check(Config, "")


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_yaml_text_gives_a_configuration_or_a_clear_error(tmp_path_factory, text: str):
    path = tmp_path_factory.mktemp("fuzz") / "config.yaml"
    path.write_text(text)
    try:
        load_config(path)
    except ConfigError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("subject", "lost_s", False),  # what YAML makes of: off
        ("window", "stride", True),
        ("subject", "point_m", [0.0, True, 1.0]),
        ("tracks", "memory_s", float("inf")),
        ("subject", "region_max_m", [1.0, 1.0, float("inf")]),
    ],
)
def test_truths_and_infinities_are_no_numbers(section, name, value):
    with pytest.raises(ConfigError, match=rf"^{section}\.{name}[.0-9]*: \S.* is not allowed: ") as caught:
        load_config("lite", **{section: {name: value}})
    assert str(caught.value).count(name) == 1, "no other key is named, and none that does not exist"
    assert load_config("lite", window={"overlap": False}).window.overlap is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("window: {stride: 1}\nwindow: {length: 7}", "'window' is there twice"),
        ("window:\n  stride: 1\n  length: 7\n  stride: 2", "'stride' is there twice"),
        ("weights: 2001-99-99", "month must be in"),
    ],
)
def test_keys_that_are_there_twice_and_dates_that_are_none_are_named(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.yaml is not valid YAML: .*{said}"):
        load_config(tmp_path / "mine.yaml")


def test_keys_that_are_merged_may_be_there_already(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "a: &a {<<: &b {stride: 2, x: 1}, stride: 3}\nc: {<<: *a, stride: 4}\nd: {<<: [*a, *b], y: 2}\n"
    )
    a = {"stride": 3, "x": 1}
    assert read_yaml(tmp_path / "mine.yaml") == {"a": a, "c": {**a, "stride": 4}, "d": {**a, "y": 2}}


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("preset: lite # Größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml is not valid YAML"):
        load_config(tmp_path / "latin.yaml")

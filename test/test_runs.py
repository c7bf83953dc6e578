"""Runs: what they begin with and go on with, how they end, and what they leave behind."""

import json
import shutil

import numpy as np
import pytest
import torch
from bending_body import bending_window, write_cache

from nr_tracking.config import load_config
from nr_tracking.data.cache import read_manifest, write_manifest, write_shard
from nr_tracking.data.clip_cache import write_clips
from nr_tracking.data.clips import Clip
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.weights import read_weights, save_weights
from nr_tracking.training.checkpoints import SHARD_BYTES, load_checkpoint, save_checkpoint
from nr_tracking.training.journal import Journal
from nr_tracking.training.networks import build_networks, export_weights
from nr_tracking.training.trainer import Plan, Run, train
from nr_tracking.types import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"points": 200, "surface_points": 60, "contrast_points": 32, "workers": 0, "warmup_steps": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, windows=3, frames=3)
    return folder


def test_settings_must_not_change_under_a_run(cache, tmp_path):
    train(load_config("test", training=SMALL), cache, tmp_path, steps=1)
    with pytest.raises(InputError, match="another training") as caught:
        train(load_config("test", training={**SMALL, "learning_rate": 1e-5}), cache, tmp_path, steps=2)
    assert caught.value.reason == "other_run"


def test_patches_cache_and_starting_weights_must_not_change_under_a_run(cache, tmp_path):
    config = load_config("test", training=SMALL)
    shutil.copytree(cache, tmp_path / "cache")
    first = train(config, tmp_path / "cache", tmp_path / "first", steps=1)
    manifest = read_manifest(tmp_path / "cache")
    (tmp_path / "other").mkdir()
    write_manifest(tmp_path / "other", {**manifest, "recipe": {"seed": 8}})
    other = train(load_config("test", training={**SMALL, "seed": 5}), cache, tmp_path / "seed", steps=1)
    run = {"steps": 1, "start": first}
    train(config, tmp_path / "cache", tmp_path / "run", **run)
    patches = load_config("test", training=SMALL, deformation={"patches": config.deformation.patches + 1})
    for key, changed in (
        ("deformation", (patches, tmp_path / "cache", first)),
        ("cache", (config, tmp_path / "other", first)),
        ("start", (config, tmp_path / "cache", other)),
        ("start", (config, tmp_path / "cache", None)),
    ):
        with pytest.raises(InputError, match=f"another {key}:") as caught:
            train(*changed[:2], tmp_path / "run", steps=2, start=changed[2])
        assert caught.value.reason == "other_run"
    more = write_shard(tmp_path / "cache", 1, [bending_window(7, frames=3)])
    write_manifest(tmp_path / "cache", {**manifest, "shards": [*manifest["shards"], more]})
    train(config, tmp_path / "cache", tmp_path / "run", steps=2, start=first)
    steps = list(Journal(tmp_path / "run" / "log.jsonl").entries("step"))
    assert len(steps) == 2, "a cache may grow"


def test_errors_name_what_is_missing(cache, tmp_path):
    config = load_config("test", training=SMALL)
    with pytest.raises(InputError, match="no manifest"):
        train(config, tmp_path / "nothing", tmp_path / "run", steps=1)
    with pytest.raises(InputError, match="deformation schedule") as caught:
        train(config, cache, tmp_path / "run", steps=1, schedule="deformation")
    assert caught.value.reason == "no_weights"
    with pytest.raises(ValueError, match="either steps or minutes"):
        train(config, cache, tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint yet"):
        export_weights(config, tmp_path / "run", tmp_path / "w")


@pytest.mark.parametrize("plan", [{"steps": 0}, {"steps": -5}, {"minutes": -1.0}, {"minutes": float("nan")}])
def test_a_run_of_no_length_is_refused(cache, tmp_path, plan):
    with pytest.raises(InputError, match=next(iter(plan))) as caught:
        train(load_config("test", training=SMALL), cache, tmp_path / "run", **plan)
    assert caught.value.reason == "bad_plan" and not (tmp_path / "run").exists()


def test_a_run_that_can_learn_nothing_ends_and_says_why(cache, tmp_path, monkeypatch):
    def empty(*_):
        raise InputError("no_subject", "nothing is left")

    monkeypatch.setattr("nr_tracking.training.feed.prepare", empty)
    with pytest.raises(InputError, match="shows no subject") as caught:
        train(load_config("test", training=SMALL), cache, tmp_path / "run", minutes=60.0)
    assert caught.value.reason == "no_surface"
    short = train(load_config("test", training=SMALL), cache, tmp_path / "short", minutes=1e-6)
    assert read_weights(short).notes["steps"] == "0", "the minutes are over before a step"


def test_checkpoints_are_sharded_and_whole(tmp_path):
    big = {f"t{i}": torch.full((3 * 2**20,), float(i)) for i in range(4)}  # 12 MiB each
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, big, {"step_count": 3})
    files = list(folder.glob("*.safetensors"))
    assert len(files) == 4
    assert max(file.stat().st_size for file in files) <= 16 * 2**20
    loaded = load_checkpoint(folder)
    assert loaded.state == {"step_count": 3}
    assert all(torch.equal(loaded.tensors[name], value) for name, value in big.items())
    save_checkpoint(folder, {"a": torch.zeros(1)}, {"step_count": 4})  # replaces, leaves nothing behind
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    with pytest.raises(ValueError, match="more than one shard"):
        save_checkpoint(folder, {"a": torch.zeros(SHARD_BYTES // 4 + 1)}, {})
    assert load_checkpoint(folder).state == {"step_count": 4}
    (folder / "tensors-00000.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(folder)


def test_journal_forgets_what_will_be_done_again(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    for step in range(5):
        journal.write("step", step, loss=1.0)
    with journal.path.open("a") as file:
        file.write('{"kind": "step", "st')  # cut short by a kill
    journal.rewind(3)
    assert [entry["step"] for entry in journal.entries()] == [0, 1, 2]
    journal.write("step", 3, loss=2.0)
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [0, 1, 2, 3]


def test_journal_keeps_the_scores_that_came_before_a_checkpoint(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    assert journal.size == 0
    for step in range(2):
        journal.write("step", step, loss=1.0)
    journal.write("validation", 2, iou=0.5)
    saved = journal.size
    journal.write("gate", 2, reached=0.5)
    journal.write("step", 2, loss=1.0)
    journal.write("validation", 3, iou=0.6)
    for _ in range(2):  # killed once more before anything was logged
        journal.rewind(2, saved)
        assert [(entry["kind"], entry["step"]) for entry in journal.entries()] == [
            *(("step", 0), ("step", 1), ("validation", 2)),
        ]
        assert journal.size == saved


def scores_logged(run):
    entries = Journal(run / "log.jsonl").entries()
    return [(entry["kind"], entry["step"]) for entry in entries if entry["kind"] != "step"]


def test_a_run_that_is_extended_keeps_the_scores_that_it_had(cache, tmp_path):
    config = load_config("test", training=SMALL)
    for steps in (2, 2, 3):
        train(config, cache, tmp_path, steps=steps, validation=cache)
    assert scores_logged(tmp_path) == [(kind, step) for step in (2, 3) for kind in ("validation", "noisy_validation")]
    steps = [entry["step"] for entry in Journal(tmp_path / "log.jsonl").entries("step")]
    assert steps == [0, 1, 2]


def test_scores_that_are_found_again_after_a_kill_are_logged_once(cache, tmp_path, monkeypatch):
    config = load_config("test", training={**SMALL, "checkpoint_minutes": 1e-6})
    with monkeypatch.context() as patch:
        patch.setattr("nr_tracking.training.trainer.export_weights", lambda *given: None)
        checkpoint = Run.checkpoint

        def killed(run):
            if run.finished and scores_logged(tmp_path):
                raise KeyboardInterrupt
            checkpoint(run)

        patch.setattr(Run, "checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, cache, tmp_path, steps=2, validation=cache)
    assert scores_logged(tmp_path) == [("validation", 2), ("noisy_validation", 2)]
    train(config, cache, tmp_path, steps=2, validation=cache)
    assert scores_logged(tmp_path) == [("validation", 2), ("noisy_validation", 2)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_window_that_cannot_be_read_is_named_whoever_reads_it(cache, tmp_path, workers):
    shutil.copytree(cache, tmp_path / "cache")
    shard = next((tmp_path / "cache").glob("*.safetensors"), None) or max(
        (tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_size
    )
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(InputError, match=shard.name):
        train(
            load_config("test", training={**SMALL, "workers": workers}), tmp_path / "cache", tmp_path / "run", steps=1
        )


def test_a_decoder_goes_on_from_the_weights_that_have_one(cache, tmp_path):
    config = load_config("test", training=SMALL)
    first = train(config, cache, tmp_path / "fields", steps=1)
    fresh, decoder = build_networks(config, "deformation", first), DeformationDecoder(config.model)
    torch.nn.init.normal_(decoder.head[-1].weight)
    assert not fresh["deformation"].head[-1].weight.any(), "these weights have none"
    both = {"completion": fresh["completion"], "deformation": decoder}
    save_weights(tmp_path / "both", both, preset="test", model=config.model)
    for schedule in ("deformation", "paper"):
        found = build_networks(config, schedule, tmp_path / "both")["deformation"]
        assert torch.equal(found.head[-1].weight, decoder.head[-1].weight)


def test_windows_too_short_for_a_schedule_are_refused(tmp_path):
    clip = Clip("s", "object", "s", np.zeros((9, 3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    write_clips(tmp_path / "clips", [clip])
    for schedule, training, least in (("deformation", {}, 2), ("completion", {"cycle": 1.0}, 3), ("paper", {}, 3)):
        config = load_config("test", training={**SMALL, **training, "window_frames": least - 1})
        with pytest.raises(InputError, match=f"it takes {least} of them"):
            Run(config, tmp_path / "clips", tmp_path / "run", schedule, Plan(1, None), None, None)


def test_a_network_that_no_checkpoint_can_hold_is_refused_at_once(cache, tmp_path):
    model = {"latent_channels": 512, "dense_channels": (512, 8), "attention_heads": 2}
    with pytest.raises(InputError, match="choose a narrower network") as caught:
        train(load_config("test", model=model, training=SMALL), cache, tmp_path / "run", steps=1)
    assert caught.value.reason == "too_large"

"""Tracking a recording: every frame has its row, runs repeat to the bit, and interrupted ones go on."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import test_tracker
import torch
from ball_recording import (
    CONFIG,
    BallTracker,
    ball_frames,
    ball_tracker,
    ball_truth,
    contents,
    emptied,
    run,
)

from nr_tracking import Tracker
from nr_tracking.commands import checkpoint
from nr_tracking.commands import track as track_module
from nr_tracking.commands.recordings import Recording, Unusable, open_recordings
from nr_tracking.commands.track import track
from nr_tracking.config import Config, load_config
from nr_tracking.data.scans import write_scans
from nr_tracking.data.sequence import read_sequence, write_sequence
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.tracking.adaptation import DecoderAdapter
from nr_tracking.tracking.result import read_output
from nr_tracking.types import DepthFrame, InputError, TrackedFrame

pytestmark = pytest.mark.usefixtures("small_pictures")


def test_tracking_a_sequence_gives_every_file_and_scores(ball: Path, tmp_path: Path) -> None:
    done = run(ball, tmp_path / "out")
    assert done.run.dropped == {} and done.run.frames == 17
    output = read_output(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "meshes",
        "patches.npz",
        "report.html",
        "run.json",
        "tracks.npz",
    ]
    assert np.isfinite(output.positions).all() and len(output) == 17
    scores = done.scores[0].mean()
    assert scores["iou"] > 0.9 and scores["corr"] < 0.3 * scores["static_corr"]
    assert scores["visible_error"] < 0.1 and np.isfinite(scores["hidden_error"])
    html = (tmp_path / "out" / "report.html").read_text()
    for words in ("frames asked for", "network", "Scores", "IoU", "image/webp", "truth, from behind"):
        assert words in html
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_recording_gives_the_same_output_twice_and_as_a_bag(ball: Path, tmp_path: Path) -> None:
    bags = pytest.importorskip("nr_tracking.ros.bags")
    run(ball, tmp_path / "a")
    run(ball, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for storage in ("mcap", "sqlite3"):
        bag = bags.write_bag(tmp_path / storage, read_sequence(ball).frames(), storage)
        run(bag, tmp_path / f"out_{storage}")
        assert contents(tmp_path / f"out_{storage}") == contents(tmp_path / "a")


def test_start_and_frames_count_in_the_recording_and_rows_from_zero(ball: Path, tmp_path: Path) -> None:
    (ball / "depth" / "000002.png").write_bytes(b"nothing earlier is read")
    output = read_output(run(ball, tmp_path / "out", start=3, frames=5).output)
    np.testing.assert_array_equal(output.stamps_ns, read_sequence(ball).stamps_ns[3:8])
    mesh = output.mesh(0)
    assert mesh is not None and len(output) == 5
    np.testing.assert_allclose(mesh[0].mean(axis=0), ball_truth(4).vertices[3].mean(axis=0), atol=0.03)
    for start in (17, -1):
        with pytest.raises(InputError, match="frames 0 to 16"):
            run(ball, tmp_path / "other", start=start)


def test_a_bad_frame_keeps_its_row_and_is_named(tmp_path: Path) -> None:
    frames = ball_frames(10)
    frames[3] = emptied(frames[3])
    ball = write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=0.0001)
    (ball / "depth" / "000006.png").write_bytes(b"damaged")
    done = run(ball, tmp_path / "out")
    assert list(done.run.dropped) == [3, 6]
    output = read_output(done.output)
    assert [row for row in range(10) if output.mesh(row) is None] == [3, 6]
    np.testing.assert_array_equal(np.isnan(output.positions).all(axis=(1, 2)).nonzero()[0], [3, 6])
    np.testing.assert_array_equal(output.stamps_ns, [frame.stamp_ns for frame in frames])
    html = (done.output / "report.html").read_text()
    assert "every pixel is 0" in html and "000006.png is no PNG" in html


def test_a_frame_without_a_surface_says_so_whether_or_not_tracking_begins_anew_later(tmp_path: Path) -> None:
    frames = ball_frames(20)
    frames[8:12] = map(emptied, frames[8:12])
    ball = write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=0.0001)

    class Blind(BallTracker):
        def flush(self) -> list[TrackedFrame]:
            bare = [frames[row].stamp_ns for row in (2, 7)]  # the last one before the subject is lost, too
            return [result for result in super().flush() if result.stamp_ns not in bare]

    def trackers(config: Config) -> tuple[BallTracker, str]:
        return Blind(), "weights of a ball"

    for lost_s in (1.0, 0.1):
        config = CONFIG.model_copy(update={"subject": CONFIG.subject.model_copy(update={"lost_s": lost_s})})
        done = track(open_recordings(ball)[0], tmp_path / "out", config, points=2000, trackers=trackers).run
        assert list(done.dropped) == [2, *range(7, 12)]
        assert done.dropped[2] == done.dropped[7] == "no surface was found in the frame"


def test_a_frame_without_a_surface_is_named_with_the_reason_that_the_tracker_gives(tmp_path: Path) -> None:
    frames = ball_frames(12)
    ball = write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=0.0001)

    class Blind(BallTracker):
        def flush(self) -> list[TrackedFrame]:
            bare = frames[5].stamp_ns
            if any(frame.stamp_ns == bare for frame in self._waiting):
                self.on_no_result(bare, InputError("no_surface", "the field is nowhere negative"))
            return [result for result in super().flush() if result.stamp_ns != bare]

    def trackers(config: Config) -> tuple[BallTracker, str]:
        return Blind(), "weights of a ball"

    done = track(open_recordings(ball)[0], tmp_path / "out", CONFIG, points=2000, trackers=trackers)
    assert done.run.dropped == {5: "the field is nowhere negative"} and done.run.tracked == 11
    assert "the field is nowhere negative" in (done.output / "run.json").read_text()


def test_a_subject_that_returns_late_is_another_one(tmp_path: Path) -> None:
    frames = ball_frames(20)
    frames[6:12] = map(emptied, frames[6:12])  # for a fifth of a second
    ball = write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=0.0001)
    made: list[BallTracker] = []

    def trackers(config: Config) -> tuple[BallTracker, str]:
        made.append(BallTracker())
        return made[-1], "weights of a ball"

    for lost_s, pushed in ((1.0, 14), (0.15, 8)):
        config = CONFIG.model_copy(update={"subject": CONFIG.subject.model_copy(update={"lost_s": lost_s})})
        done = track(open_recordings(ball)[0], tmp_path / "out", config, points=2000, trackers=trackers).run
        assert list(done.dropped) == list(range(6, 12))
        assert made[-1].pushed == pushed  # since it was reset
        assert done.notices[0].startswith("row 6: no subject: every pixel is 0")
        assert done.notices[-1] == "row 12: there is a subject again after 0.20 s"
        assert (done.notices[1:-1] != []) == (lost_s < 0.2)


def test_another_subject_that_the_tracker_found_is_noted_also_in_a_run_that_goes_on(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track_module, "CHECKPOINT_FRAMES", 5)

    class Watchful(BallTracker):
        def push(self, frame: DepthFrame) -> list[TrackedFrame]:
            if self.pushed in (3, 13):
                self.on_another("another subject")
            return super().push(frame)

    def trackers(config: Config) -> tuple[BallTracker, str]:
        return Watchful(), "weights of a ball"

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(ball, 12).open(), tmp_path / "out", trackers=trackers)
    done = run(ball, tmp_path / "out", resume=True, trackers=trackers)
    assert done.run.notices == ["row 3: another subject", "row 13: another subject"]
    assert "row 13: another subject" in (done.output / "report.html").read_text()


def test_a_subject_without_masks_for_long_is_another_one(ball: Path, tmp_path: Path) -> None:
    frames = [replace(frame, mask=frame.depth > 0) for frame in ball_frames(20)]
    made: list[BallTracker] = []

    def trackers(config: Config) -> tuple[BallTracker, str]:
        made.append(BallTracker())
        return made[-1], "weights of a ball"

    def read(start: int, count: int | None) -> Iterator[DepthFrame | Unusable]:
        yield from frames[:6]
        yield from [Unusable(InputError("no_mask", "no mask has the stamp of the depth image"))] * 6
        yield from frames[12:]

    for lost_s, pushed in ((1.0, 14), (0.15, 8)):
        config = CONFIG.model_copy(update={"subject": CONFIG.subject.model_copy(update={"lost_s": lost_s})})
        recording = Recording("ball", 20, read, lambda start, count: None)
        done = track(recording, tmp_path / "out", config, points=2000, trackers=trackers).run
        assert len(done.dropped) == 6 and made[-1].pushed == pushed  # since it was reset
        told = ["row 12: no mask for 0.23 s: the next subject is a new one"]
        assert done.notices == (told if lost_s < 0.2 else [])


def test_nothing_to_track_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    empty = write_sequence(tmp_path / "empty", map(emptied, ball_frames(3)), fps=30.0)
    with pytest.raises(InputError, match="none of 3 frames could be tracked: every pixel is 0") as caught:
        run(empty, tmp_path / "out")
    assert str(caught.value).count("every pixel is 0") == 1, "once is enough"
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_is_wrong_with_every_frame_is_said_once(tmp_path: Path) -> None:
    def unusable(start: int, count: int | None) -> Iterator[Unusable]:
        for frame in range(30):
            yield Unusable(InputError("bad_image", f"depth/{frame:06}.png: 320 x 240 pixels, not 640"), frame)
        yield Unusable(InputError("bad_image", "depth/000030.png is cut short"), 30)

    recording = Recording("wrong", 31, unusable, lambda start, count: None)
    with pytest.raises(InputError, match="none of 31 frames") as caught:
        track(recording, tmp_path / "out", CONFIG, trackers=ball_tracker)
    said = "depth/000000.png: 320 x 240 pixels, not 640 (and 29 more like it); depth/000030.png is cut short"
    assert str(caught.value).endswith(said)


def test_tracking_without_the_scoring_package_still_gives_results(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "igl", None)
    done = run(ball, tmp_path / "out", frames=4)
    assert done.scores == [] and done.run.dropped == {}
    assert (
        "No scores: they need igl: pip install &#x27;.[data]&#x27; in the checkout"
        in (done.output / "report.html").read_text()
    )


def test_faulty_ground_truth_does_not_cost_the_results(ball: Path, tmp_path: Path) -> None:
    (ball / "ground_truth.npz").write_bytes(b"damaged")
    done = run(ball, tmp_path / "out", frames=4)
    assert done.scores == [] and len(read_output(done.output)) == 4
    assert "No scores: " in (done.output / "report.html").read_text()


class Interrupted:
    """A recording that is interrupted at a frame, once."""

    def __init__(self, path: Path, at: int) -> None:
        self.recording, self.at = open_recordings(path)[0], at

    def open(self) -> Recording:
        def read(start: int, count: int | None) -> Iterator[DepthFrame]:
            for index, item in enumerate(self.recording.read(start, count)):
                if index == self.at:
                    raise KeyboardInterrupt
                yield item

        return Recording(self.recording.name, self.recording.length, read, self.recording.ground_truth)


@pytest.fixture
def stopped(ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interrupted run with a checkpoint at frame 10 whose OUTPUT would have been ``out``."""
    monkeypatch.setattr(track_module, "CHECKPOINT_FRAMES", 5)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(ball, 12).open(), tmp_path / "out")
    return tmp_path / "out"


def test_an_interrupted_run_shows_nothing_and_goes_on_to_the_same_bytes(ball: Path, stopped: Path) -> None:
    assert not stopped.exists()
    trackers: list[BallTracker] = []

    def watched(config: Config) -> tuple[BallTracker, str]:
        trackers.append(BallTracker())
        return trackers[-1], "weights of a ball"

    # As a process leaves it that was killed while it wrote.
    (stopped.with_name(".out.partial") / ".checkpoint.npz.writing-4194999").write_bytes(b"half")
    pushed: list[int] = []
    original = BallTracker.push
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BallTracker, "push", lambda self, frame: pushed.append(frame.stamp_ns) or original(self, frame))
        run(ball, stopped, resume=True, trackers=watched)
    assert pushed == read_sequence(ball).stamps_ns[10:].tolist()
    run(ball, stopped.with_name("whole"))
    assert contents(stopped) == contents(stopped.with_name("whole"))


@pytest.mark.parametrize(("cut_off", "again"), [("tracking_report", 2), ("tidy_output", 0), ("replace_folder", 0)])
def test_a_run_that_is_cut_off_while_it_finishes_is_not_done_again(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: str, again: int
) -> None:
    """Only what came after the last checkpoint, if the report was not there yet, else nothing."""
    monkeypatch.setattr(track_module, "CHECKPOINT_FRAMES", 5)

    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(track_module, cut_off, interrupted)
        run(ball, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pushed: list[int] = []
    original = BallTracker.push
    with monkeypatch.context() as patch:
        patch.setattr(BallTracker, "push", lambda self, frame: pushed.append(frame.stamp_ns) or original(self, frame))
        done = run(ball, tmp_path / "out", resume=True)
    assert len(pushed) == again and done.run.tracked == 17
    run(ball, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (tmp_path / "out" / "report.html").is_file() and not list(tmp_path.glob(".*"))


def test_rows_that_are_gone_are_missed(ball: Path, stopped: Path) -> None:
    (stopped.with_name(".out.partial") / "rows" / "000000.npz").unlink()
    with pytest.raises(InputError, match=r"no longer holds 1 of the rows.*run without --resume"):
        run(ball, stopped, resume=True)


def test_surfaces_are_scored_against_scans_where_there_are_some(ball: Path, tmp_path: Path) -> None:
    truth = ball_truth(17)
    write_scans(ball, [(vertices, truth.faces) for vertices in truth.vertices])
    middles = truth.vertices.mean(axis=1, keepdims=True)
    np.savez(ball / "ground_truth.npz", vertices=0.5 * truth.vertices + 0.5 * middles, faces=truth.faces)
    scores = run(ball, tmp_path / "out").scores[0].mean()
    assert scores["iou"] > 0.9, "the body within the scan is not the surface"
    assert np.isnan(scores["visible_error"]) and np.isfinite(scores["hidden_error"]), "the scan hides the body"


def test_resuming_before_the_first_checkpoint_begins_anew_with_nothing_left_over(ball: Path, tmp_path: Path) -> None:
    frames = ball_frames(17)
    other = write_sequence(tmp_path / "other", frames[5:], fps=30.0, depth_unit_m=0.0001)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(ball, 12).open(), tmp_path / "out")
    run(other, tmp_path / "out", frames=3, resume=True)
    run(other, tmp_path / "whole", frames=3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_without_resume_an_interrupted_run_begins_anew(ball: Path, stopped: Path) -> None:
    run(ball, stopped, frames=3)
    assert len(read_output(stopped)) == 3
    assert [path.name for path in stopped.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("finished", [False, True])
def test_resume_refuses_what_does_not_agree(ball: Path, stopped: Path, finished: bool) -> None:
    if finished:
        run(ball, stopped)
    before = contents(stopped) if finished else None
    other = load_config("test", tracks={"count": 200})
    recording = open_recordings(ball)[0]
    with pytest.raises(InputError, match="different config"):
        track(recording, stopped, other, resume=True, trackers=ball_tracker)
    with pytest.raises(InputError, match="different weights"):
        run(ball, stopped, resume=True, trackers=lambda config: (BallTracker(), "other"))
    with pytest.raises(InputError, match="different start, frames"):
        run(ball, stopped, resume=True, start=1)
    frames = ball_frames(17)
    frames[4] = frames[5]
    changed = write_sequence(ball, frames, fps=30.0, depth_unit_m=0.0001)
    with pytest.raises(InputError, match="different input"):
        run(changed, stopped, resume=True)
    assert (contents(stopped) if finished else None) == before


def test_a_state_that_another_version_left_is_refused(
    ball: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track_module, "_FORMAT", track_module._FORMAT + 1)
    with pytest.raises(InputError, match=r"another version wrote .*run without --resume") as caught:
        run(ball, stopped, resume=True)
    assert caught.value.reason == "bad_checkpoint"


def test_resume_leaves_a_finished_run_as_it_is(ball: Path, tmp_path: Path) -> None:
    run(ball, tmp_path / "out")
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = run(ball, tmp_path / "out", resume=True, trackers=lambda config: (None, "weights of a ball"))
    assert done.run.frames == 17
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == marks


def test_a_checkpoint_that_names_foreign_code_is_refused(ball: Path, stopped: Path) -> None:
    file = stopped.with_name(".out.partial") / "checkpoint.npz"
    for foreign in ("posix:system", "nr_tracking.commands.checkpoint:importlib", "nr_tracking.config:BaseModel"):
        tree = json.dumps({"n": 0, "object": foreign, "state": []}).encode()
        np.savez(file, tree=np.frombuffer(tree, np.uint8))
        with pytest.raises(InputError, match=f"must not name {foreign}"):
            run(ball, stopped, resume=True)
    file.write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="run without --resume"):
        run(ball, stopped, resume=True)


class Surfaces(torch.nn.Module):
    """True surfaces in the place of a network: like a network, a checkpoint holds none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = test_tracker.TrueSurfaces()
        self.window, self.complete, self.surface = self.truth.window, self.truth.complete, self.truth.surface
        self.begin, self.forget = self.truth.begin, self.truth.forget


def true_surfaces() -> Tracker:
    tracker = test_tracker.tracker()
    tracker._reconstructor = Surfaces()
    return tracker


def shipped(preset: str) -> Tracker:
    return Tracker(load_config(preset, tracks={"count": 500}, refinement={"nodes": 40}))


@pytest.mark.parametrize("fresh", [true_surfaces, partial(shipped, "lite"), partial(shipped, "base")])
def test_the_real_tracker_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
    fresh: Callable[[], Tracker], tmp_path: Path
) -> None:
    frames = [test_tracker.frame_at(index) for index in range(12)]
    whole = fresh()
    results = [result for frame in frames[:7] for result in whole.push(frame)]
    early, left = len(results), 12 - len(results)
    checkpoint.save(tmp_path / "state", {"tracker": vars(whole)}, checkpoint.modules_of(vars(whole)))
    continued = fresh()
    vars(continued).update(checkpoint.load(tmp_path / "state", checkpoint.modules_of(vars(continued)))["tracker"])
    for tracker in (whole, continued):
        results += [result for frame in frames[7:] for result in tracker.push(frame)] + tracker.flush()
    assert 5 <= early < 12 and len(results) == early + 2 * left
    for ours, theirs in zip(results[early:12], results[12:], strict=True):
        assert ours.stamp_ns == theirs.stamp_ns
        np.testing.assert_array_equal(ours.tracks.ids, theirs.tracks.ids)
        np.testing.assert_array_equal(ours.tracks.positions, theirs.tracks.positions)
        np.testing.assert_array_equal(ours.canonical, theirs.canonical)


def test_what_a_decoder_learnt_from_the_subject_goes_on_too(tmp_path: Path) -> None:
    def adapter(seed: int) -> DecoderAdapter:
        torch.manual_seed(seed)
        return DecoderAdapter(DeformationDecoder(CONFIG.model), CONFIG)

    def weights(made: DecoderAdapter) -> list[torch.Tensor]:
        return [value.clone() for value in made.decoder.state_dict().values()]

    adapted, trained = adapter(0), weights(adapter(0))
    with torch.no_grad():
        for value in adapted.decoder.parameters():
            value += 0.1
    checkpoint.save(tmp_path / "state", {"adapter": adapted}, checkpoint.modules_of(adapted))
    fresh = adapter(0)
    continued = checkpoint.load(tmp_path / "state", checkpoint.modules_of(fresh))["adapter"]
    assert continued.decoder is fresh.decoder
    assert all(torch.equal(a, b) for a, b in zip(weights(continued), weights(adapted), strict=True))
    continued.reset()
    assert all(torch.equal(a, b) for a, b in zip(weights(continued), trained, strict=True))


def test_a_checkpoint_holds_types_and_leaves_out_what_is_made_anew(tmp_path: Path) -> None:
    grid = SparseGrid(torch.zeros((1, 4), dtype=torch.int32), 8, 1)
    grid.spconv_indices["neighbours"] = object()  # another library's, on a GPU
    checkpoint.save(tmp_path / "state", {"kind": torch.float64, "grid": grid}, [])
    state = checkpoint.load(tmp_path / "state", [])
    assert state["kind"] is torch.float64
    assert state["grid"].spconv_indices == {} and torch.equal(state["grid"].coords, grid.coords)


def test_a_fault_keeps_its_reason_on_the_way_from_another_process() -> None:
    there = pickle.loads(pickle.dumps(InputError("bad_file", "a.glb is cut short")))  # as multiprocessing does
    assert type(there) is InputError and (there.reason, str(there)) == ("bad_file", "a.glb is cut short")

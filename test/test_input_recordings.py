"""Recordings as commands open them: as the settings say, each under a name of its own, and without those at fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from ball_recording import ball_frames, ball_tracker
from test_bags import CAMERA, LENS, Bag, depth_frames

from nr_tracking import cli
from nr_tracking.commands import track as track_module
from nr_tracking.commands.batch import track_command
from nr_tracking.commands.recordings import Recording, open_recordings
from nr_tracking.config import RosConfig
from nr_tracking.ros.bags import write_bag
from nr_tracking.ros.messages import frame_messages
from nr_tracking.types import DepthFrame, InputError

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with the ball's tracker in the place of the real one."""
    monkeypatch.setitem(track_module.track.__kwdefaults__, "trackers", ball_tracker)


def first(recording: Recording) -> DepthFrame:
    frame = next(iter(recording.read(0, 1)))
    assert isinstance(frame, DepthFrame)
    return frame


@pytest.mark.parametrize("every_camera", [False, True])
def test_settings_tell_of_the_images_in_a_bag(tmp_path: Path, every_camera: bool) -> None:
    bag = write_bag(tmp_path / "bag", depth_frames(2, camera=LENS))

    def opened(**settings: object) -> DepthFrame:
        return first(open_recordings(bag, every_camera=every_camera, ros=RosConfig(**settings))[0])

    usual, tenth, straight = opened(), opened(depth_unit_m=0.0001), opened(image_rectified="always")
    assert usual.intrinsics == tenth.intrinsics == LENS
    np.testing.assert_allclose(tenth.depth, usual.depth / 10, rtol=1e-6)
    assert straight.intrinsics == replace(LENS, distortion_model="none", distortion=())
    np.testing.assert_array_equal(straight.depth, usual.depth)


def test_images_named_rectified_may_have_a_lens(tmp_path: Path) -> None:
    entries = []
    for frame in depth_frames(1, camera=LENS):
        for kind, message in frame_messages(frame, "camera").items():
            entries.append((f"/{'image_rect' if kind == 'depth' else kind}", kind, message, frame.stamp_ns))
    bag = Bag(tmp_path / "bag").write(*entries)
    assert first(open_recordings(bag)[0]).intrinsics.distortion == ()
    assert first(open_recordings(bag, ros=RosConfig(image_rectified="never"))[0]).intrinsics == LENS


def test_track_opens_bags_as_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so does `batch`, whose processes are such commands."""
    bag, seen = write_bag(tmp_path / "bag", depth_frames(1)), []

    def tracked(recording: Recording, *given: object, **named: object) -> None:
        seen.append(first(recording).depth.max())
        raise InputError("enough", "seen")

    monkeypatch.setattr(track_module, "track", tracked)
    command = track_command(bag, tmp_path / "out", ["--preset", "test", "--set", "ros.depth_unit_m=0.0001"])[3:]
    assert cli.main(command) == 2
    assert seen == [pytest.approx(next(depth_frames(1)).depth.max() / 10)]


def test_links_keep_their_names(tmp_path: Path, quick: None) -> None:
    (tmp_path / "links").mkdir()
    for day in ("monday", "tuesday"):
        bag = write_bag(tmp_path / day / "bag", ball_frames(2 if day == "monday" else 3))
        (tmp_path / "links" / day).symlink_to(bag)
    out = tmp_path / "out"
    assert cli.main(["track", str(tmp_path / "links"), "--output", str(out), "--preset", "test"]) == 0
    assert {path.name: len(list((path / "meshes").iterdir())) for path in out.iterdir()} == {"monday": 2, "tuesday": 3}


def test_a_folder_of_sequences_is_for_batch(ball: Path) -> None:
    with pytest.raises(InputError, match="it holds ball: use `nr_tracking batch`"):
        open_recordings(ball.parent)


def test_no_two_recordings_have_the_same_name(tmp_path: Path) -> None:
    entries = []
    for frame in depth_frames(1):
        for number, place in enumerate(("/a/b_c", "/a_b/c", "/a/b/c")):
            moved = replace(frame, intrinsics=replace(CAMERA, cx=CAMERA.cx + number))
            for kind, message in frame_messages(moved, "camera").items():
                entries.append((f"{place}/{'image_raw' if kind == 'depth' else kind}", kind, message, frame.stamp_ns))
    Bag(tmp_path / "bags" / "x").write(*entries)
    write_bag(tmp_path / "bags" / "x_a_b_c_image_raw_2", depth_frames(1))
    names = [recording.name for recording in open_recordings(tmp_path / "bags", every_camera=True)]
    assert len(set(names)) == 4 and names[0] == "x_a_b_c_image_raw" and names[3] == "x_a_b_c_image_raw_2"


def test_a_damaged_bag_does_not_stop_the_others(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bags, out = tmp_path / "bags", tmp_path / "out"
    write_bag(bags / "b", ball_frames(3))
    (bags / "a.mcap").write_bytes(b"\x89MCAP0\r\n damaged")
    request = ["track", str(bags), "--output", str(out), "--preset", "test"]
    assert cli.main(request) == 2
    said = capsys.readouterr()
    assert "b: 3 of 3 frames tracked" in said.out and "nr_tracking: a.mcap: " in said.err
    assert [path.name for path in out.iterdir()] == ["b"], "of a folder of two, whatever becomes of the other"
    assert cli.main([*request, "--every-camera", "--resume"]) == 2
    assert "b: 3 of 3 frames tracked" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"a\.mcap"):
        open_recordings(bags)

"""The demo's parts, with the real node and the shipped weights in processes of their own."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nr_tracking.commands import demo
from nr_tracking.commands.recordings import open_recordings
from nr_tracking.commands.track import track
from nr_tracking.config import load_config
from nr_tracking.fields import weights
from nr_tracking.ros.bags import write_bag
from nr_tracking.ros.demo_session import Figures, Session
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError

FRAMES = 5
QUICK = {"tracks": {"count": 500}, "mesh": {"upsample": 1}, "refinement": {"samples": 300, "nodes": 40}}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    return demo.make_recording(tmp_path_factory.mktemp("demo") / "sequence", FRAMES, seed=1)


def test_recording_shows_the_whole_dancer(sequence):
    truth = sequence.ground_truth()
    assert truth.vertices.shape[0] == len(sequence) == FRAMES
    for index in range(FRAMES):
        depth = sequence.frame(index).depth
        seen = depth > 0
        assert seen.sum() > 5000
        assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
        z = truth.vertices[index, :, 2]
        assert z.min() - 0.002 < depth[seen].min() and depth.max() < z.max() + 0.002


def test_node_and_command_line_give_the_same_output(ros_domain, sequence, tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", sequence.frames())
    flat = {f"{section}.{name}": value for section, values in QUICK.items() for name, value in values.items()}
    parameters = flat | {
        "preset": "lite",
        "ros.output_folder": tmp_path / "saved",
        "ros.queue_policy": "all",
        "ros.image_reliability": "reliable",
        "ros.image_history": 100,
        "ros.save_report": False,
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums are the same only where they are cut into the same parts
    with Session(parameters, tmp_path / "logs") as session:
        assert session.play(bag, rate=1.0) == FRAMES
        online = read_output(session.save())
        figures = session.finish(FRAMES)
    assert (figures.received, figures.tracked, figures.dropped) == (FRAMES, FRAMES, {})
    assert figures.clouds == FRAMES and figures.latency_p95_s >= figures.latency_p50_s > 0

    import torch

    monkeypatch.setattr("nr_tracking.commands.track.tracking_report", lambda *arguments, **options: "")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        track(open_recordings(bag)[0], tmp_path / "offline", load_config("lite", **QUICK), points=100)
    finally:
        torch.set_num_threads(threads)
    offline = read_output(tmp_path / "offline")
    np.testing.assert_array_equal(online.positions, offline.positions)
    np.testing.assert_array_equal(online.ids, offline.ids)
    for file in ("patches.npz", *(f"meshes/{row:06d}.ply" for row in range(FRAMES))):
        assert (online.path / file).read_bytes() == (offline.path / file).read_bytes(), file


def test_report_of_a_saved_output_has_scores_and_pictures(sequence, tmp_path, monkeypatch):
    from fake_tracker import tracked

    from nr_tracking.evaluation import report
    from nr_tracking.tracking.result import Run, write_output

    frames = [(row, tracked(int(stamp), 2.0)) for row, stamp in enumerate(sequence.stamps_ns)]
    output = write_output(tmp_path / "saved", sequence.stamps_ns, frames, Run(frames=FRAMES))
    (output / "timings.json").write_text('{"0": {"mesh": 0.25}}')
    given = {}
    monkeypatch.setattr(report, "tracking_report", lambda *a, **options: given.update(options, frames=a[1]) or "<html>")
    monkeypatch.setattr(demo, "_SCORED_POINTS", 200)
    path, scores = demo.write_report(sequence, output)
    assert path.read_text() == "<html>" and len(scores) == 1 and scores[0].mean()["static_corr"] > 0
    assert given["truth"] is not None and sorted(given["frames"]) == list(range(FRAMES))


def test_account_names_what_was_lost():
    figures = Figures(10, 7, {"overrun": 2, "no_depth": 1}, 7, 7, 0.25, 0.5, 0.1)
    assert figures.through == 10
    text = demo._account(10, figures, 0.5)
    assert "frames in 10, out 7, dropped 3 (1 no_depth, 2 overrun)" in text and "15.0 frames/s: p50 0.25 s" in text
    later = Figures(14, 10, {"overrun": 2, "no_depth": 2}).since(figures)
    assert (later.received, later.tracked, later.dropped) == (4, 3, {"no_depth": 1})


@pytest.mark.parametrize("arguments", [["--frames", "1"], ["--rate", "-1"], ["--seed", "-1"]])
def test_senseless_options_are_refused(arguments):
    with pytest.raises(InputError):
        demo.main(arguments)


def test_missing_weights_are_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_shipped_folders", lambda: [tmp_path / "models"])
    for given in (["--preset", "full"], ["--weights", str(tmp_path / "missing.safetensors")]):
        with pytest.raises(InputError) as caught:
            demo.main(["--output", str(tmp_path / "demo"), *given])
        assert caught.value.reason == "no_weights"
    assert not list(tmp_path.iterdir())


def test_node_that_cannot_start_says_why(ros_domain, tmp_path):
    with (
        pytest.raises(InputError, match=r"there is no file .*missing.safetensors"),
        Session({"weights": tmp_path / "missing.safetensors"}, tmp_path),
    ):
        pass

"""A node with the shipped weights in a process of its own: what a subscriber gets over DDS is the body, where it is."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_peer import LATCHED, Peer
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker

from nr_tracking.commands.demo import make_recording
from nr_tracking.evaluation.metrics import Mesh, compare_samples, sample
from nr_tracking.ros.conversions import stamp_ns
from nr_tracking.ros.demo_session import Session
from nr_tracking.ros.outputs import TRACK_FIELDS

FRAMES = 9
FRAME_ID = "camera_depth_optical_frame"
QUICK = {"preset": "lite", "volume.cubes": 1, "mesh.upsample": 1, "tracks.count": 1000, "ros.queue_policy": "all"}
AROUND = [
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
]


def change_quality(peer, reliability):
    """Take the node down to where the quality of its input can change, and up again."""
    for transition in AROUND:
        if transition == Transition.TRANSITION_CONFIGURE:
            quality = Parameter("ros.image_reliability", value=reliability).to_parameter_msg()
            request = SetParameters.Request(parameters=[quality])
            assert peer.call(SetParameters, "/nr_tracking/set_parameters", request).results[0].successful
        request = ChangeState.Request(transition=Transition(id=transition))
        assert peer.call(ChangeState, "/nr_tracking/change_state", request).success


def mesh_in(marker):
    corners = np.array([[point.x, point.y, point.z] for point in marker.points])
    return Mesh(corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))


def distances(marker, truth, row):
    """Mean distance of the surface to the true one and back, over the longest side of the body."""
    generator = np.random.default_rng(row)
    true = Mesh(truth.vertices[row], truth.faces)
    scores = compare_samples(sample(mesh_in(marker), 5000, generator), sample(true, 5000, generator))
    side = np.ptp(true.vertices, axis=0).max()
    return scores["accuracy"] / side, scores["completeness"] / side


def track_errors(clouds, truth):
    """Mean error of the tracks of all frames against points of the body, and what standing still would give."""
    rows = [np.frombuffer(bytes(cloud.data), TRACK_FIELDS) for _, cloud in sorted(clouds.items())]
    first = {int(each["id"]): np.array([each["x"], each["y"], each["z"]]) for each in rows[0]}
    start, end = min(clouds), max(clouds)
    place = np.array([first[int(i)] for i in rows[-1]["id"] if int(i) in first])
    found = np.array([[each["x"], each["y"], each["z"]] for each in rows[-1] if int(each["id"]) in first])
    nearest = np.linalg.norm(truth.vertices[start][None] - place[:, None], axis=2).argmin(axis=1)
    goal = place + truth.vertices[end][nearest] - truth.vertices[start][nearest]
    return np.linalg.norm(found - goal, axis=1).mean(), np.linalg.norm(place - goal, axis=1).mean()


def test_surface_and_tracks_are_those_of_the_body_at_a_subscriber_whatever_the_quality(ros_context, tmp_path):
    sequence = make_recording(tmp_path / "sequence", FRAMES, seed=77)
    truth, row_of = sequence.ground_truth(), {int(stamp): row for row, stamp in enumerate(sequence.stamps_ns)}
    peer = Peer(ros_context)
    try:
        with Session({**QUICK, "ros.image_reliability": "best_effort"}, tmp_path / "logs") as session:
            meshes, clouds = peer.listen(Marker, "/nr_tracking/mesh"), peer.listen(PointCloud2, "/nr_tracking/tracks")
            for reliability in ("best_effort", "reliable"):
                if reliability == "reliable":
                    change_quality(peer, reliability)
                meshes.messages.clear(), clouds.messages.clear()
                before = session.figures()
                quality = QoSProfile(depth=20, reliability=ReliabilityPolicy[reliability.upper()])
                peer.publish_inputs(quality).inputs_matched()
                # Of what is sent with best effort something may be lost, on a busy machine most of it: it is sent again
                # until a window is full. With nothing lost there are two.
                fewest = FRAMES if reliability == "reliable" else 5
                for _ in range(6 if reliability == "best_effort" else 1):
                    for frame in sequence.frames():
                        peer.send(frame, FRAME_ID)
                    if clouds.arrived(lambda got, fewest=fewest: len(got) >= fewest, 15.0):
                        break
                clouds.wait(lambda got, fewest=fewest: len(got) >= fewest)
                meshes.wait(lambda got, fewest=fewest: len(got) >= fewest)
                if reliability == "reliable":
                    assert session.finish(before.through + FRAMES).tracked == before.tracked + FRAMES
                seen = {row_of[stamp_ns(marker)]: marker for marker in list(meshes.messages)}
                assert all(marker.header.frame_id == FRAME_ID for marker in seen.values())
                accuracy, completeness = np.mean([distances(m, truth, row) for row, m in seen.items()], axis=0)
                assert accuracy < 0.015 and completeness < 0.015, (reliability, accuracy, completeness)
                error, still = track_errors({row_of[stamp_ns(cloud)]: cloud for cloud in list(clouds.messages)}, truth)
                assert error < 0.6 * still, (reliability, error, still)
                print(reliability, len(seen), accuracy, completeness, error, still)
            late = peer.listen(Marker, "/nr_tracking/mesh", LATCHED).wait(lambda got: got)[0]
            assert stamp_ns(late) == sequence.stamps_ns[-1]
            np.testing.assert_array_equal(mesh_in(late).vertices, mesh_in(seen[FRAMES - 1]).vertices)
    finally:
        peer.close()

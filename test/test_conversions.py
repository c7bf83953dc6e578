"""Messages that do not fit together are refused by name; patches go out on TF where that is installed."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from fake_tracker import CAMERA, flat_frame, tracked

from nr_tracking.ros.conversions import depth_frame, intrinsics, is_rectified
from nr_tracking.ros.messages import frame_messages
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.types import DepthFrame, InputError, Intrinsics


def messages(mask=None):
    return frame_messages(replace(flat_frame(0), mask=mask), "camera")


def reason(image, info, mask=None):
    with pytest.raises(InputError) as caught:
        depth_frame(image, info, mask)
    return caught.value.reason


def test_region_and_binning_describe_the_published_image():
    info = messages()["camera_info"]
    whole = intrinsics(replace(info, width=32, height=24, binning_x=2, binning_y=2))
    assert (whole.width, whole.height, whole.fx) == (16, 12, CAMERA.fx / 2)
    part = intrinsics(replace(info, roi=replace(info.roi, x_offset=4, y_offset=2, width=8, height=6)))
    assert (part.width, part.height, part.cx, part.cy) == (8, 6, CAMERA.cx - 4, CAMERA.cy - 2)


def test_depth_in_millimetres_of_either_byte_order_and_with_padded_rows():
    given = messages()
    units = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)
    padded = np.zeros((12, 40), np.uint8)
    padded[:, :32] = units.astype(">u2").view(np.uint8)
    image = replace(given["depth"], encoding="16UC1", is_bigendian=1, step=40, data=padded.reshape(-1))
    np.testing.assert_array_equal(depth_frame(image, given["camera_info"]).depth, (units * 0.001).astype(np.float32))


def test_masks_that_do_not_fit_are_named():
    given = messages(np.ones((12, 16), bool))
    image, info, mask = given["depth"], given["camera_info"], given["mask"]
    assert depth_frame(image, info, mask).mask.all()
    assert reason(image, info, replace(mask, encoding="rgb8")) == "mask_encoding"
    assert reason(image, info, replace(mask, width=15)) == "mask_size"
    assert reason(image, info, replace(mask, data=mask.data[:-1])) == "mask_size"


def test_depth_beyond_16_bits_of_millimetres_is_written_as_float():
    far = DepthFrame(0, np.full((12, 16), 70.0, np.float32), CAMERA)
    assert frame_messages(far, "camera")["depth"].encoding == "32FC1"
    assert frame_messages(flat_frame(0), "camera", "16UC1")["depth"].encoding == "16UC1"
    with pytest.raises(InputError):
        frame_messages(far, "camera", "16UC1")


class FakeNode:
    """Records what a node publishes."""

    def __init__(self):
        self.sent, self.warnings = [], []

    def get_fully_qualified_name(self):
        return "/front/nr_tracking"

    def get_logger(self):
        return SimpleNamespace(warning=lambda text, **options: self.warnings.append(text))

    def create_publisher(self, kind, topic, qos, *, qos_overriding_options):
        return SimpleNamespace(publish=lambda message: self.sent.append((topic, message)))

    def destroy_publisher(self, publisher):
        self.sent.append(("gone", None))


def test_nodes_become_tf_frames_under_lasting_names_where_tf_is_installed(monkeypatch):
    pytest.importorskip("rclpy")
    from nr_tracking.ros.patch_frames import PatchFrames

    module = ModuleType("tf2_msgs.msg")
    module.TFMessage = lambda transforms: transforms
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    node = FakeNode()
    frames = PatchFrames(node)
    frames.publish(tracked(1_500_000_000, 2.0), "optical")
    ((topic, transforms),) = node.sent
    names = [transform.child_frame_id for transform in transforms]
    assert topic == "/tf" and names == ["front/nr_tracking/patch_3", "front/nr_tracking/patch_7"]
    assert transforms[0].header.frame_id == "optical" and transforms[0].header.stamp.nanosec == 500_000_000
    assert transforms[1].transform.translation.x == 1.0 and transforms[1].transform.translation.z == 2.0
    turn = transforms[1].transform.rotation
    np.testing.assert_allclose([turn.x, turn.y, turn.z, turn.w], [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-6)
    frames.destroy()
    assert node.sent[-1] == ("gone", None)


def test_without_tf_a_warning_says_what_is_missing(monkeypatch):
    pytest.importorskip("rclpy")
    from nr_tracking.ros.patch_frames import PatchFrames

    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    node = FakeNode()
    PatchFrames(node).publish(tracked(0), "optical")
    assert not node.sent and "tf2_msgs" in node.warnings[0]


def test_images_without_stamps_are_told_from_two_drivers():
    order = StampOrder()
    for stamp, says in ((0, "have no stamps"), (5, "driver run twice")):
        order.accept(stamp)
        with pytest.raises(InputError, match=says) as caught:
            order.jumped_back(stamp)
        assert caught.value.reason == "stamp_repeated"
        order.forget()


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/depth/image_rect", True),
        ("/depth/image_rect/compressedDepth", True),
        ("/camera/depth/image_rect_raw", True),
        ("/depth/image_raw", False),
        ("/image_rect/points", False),
    ],
)
def test_rectified_images_are_known_by_the_name_of_their_topic(topic, rectified):
    assert is_rectified(topic) == rectified


def test_rectified_images_are_those_of_p_and_have_no_lens():
    image, info = messages()["depth"], messages()["camera_info"]
    info = replace(
        info,
        distortion_model="plumb_bob",
        d=np.array([-0.28, 0.07, 0.0, 0.0, 0.0]),
        p=np.array([99.0, 0, 7, 0, 0, 98.0, 8, 0, 0, 0, 1, 0]),
    )
    bent, straight = (depth_frame(image, info, rectified=rectified).intrinsics for rectified in (False, True))
    assert (bent.fx, bent.distortion_model) == (info.k[0], "plumb_bob")
    assert straight == Intrinsics(bent.width, bent.height, 99.0, 98.0, 7.0, 8.0)
    empty = replace(info, p=np.zeros(12))
    assert depth_frame(image, empty, rectified=True).intrinsics == replace(bent, distortion_model="none", distortion=())

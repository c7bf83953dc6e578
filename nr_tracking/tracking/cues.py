"""What the network knows about the way from one surface to the next, for the fit of the tracks."""

from __future__ import annotations

import numpy as np

from nr_tracking.config import DeformationConfig
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.deformation.prediction import PlacedFrame, predict_motion
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.fitting import Cues
from nr_tracking.types import Float32, Surface


def network_cues(
    settings: DeformationConfig,
    decoder: DeformationDecoder,
    last: tuple[PlacedFrame, PatchGraph],
    surface: Surface,
    newest: tuple[PlacedFrame, PatchGraph],
    change: Rigid | None,
) -> Cues | None:
    """The cues for the way from the ``last`` frame, whose surface is ``surface``, to the ``newest`` one.

    None where the settings do without. Each frame comes with the patches of its surface. ``change`` leads from the
    camera frame of the last one to that of the newest, None where the camera stands. The network runs when the guess is
    asked for, if it is.
    """
    if settings.backend == "none":
        return None

    def guess(points: Float32) -> Float32:
        motion = predict_motion(last, newest, decoder, settings.softmax_scale)
        return motion.carry(was(points), surface.vertices)

    def was(points: Float32) -> Float32:
        """Points of the last surface as its own camera saw them."""
        return points if change is None else change.inverse().points(points).astype(np.float32)

    return Cues(
        guess=guess,
        embed_previous=lambda points: last[0].embedding(was(points)).cpu().numpy(),
        embed_next=lambda points: newest[0].embedding(points).cpu().numpy(),
    )

"""Loose clothing and hair that move like cloth: extended position-based dynamics.

Macklin et al. 2016 ("XPBD") with small steps instead of iterations (Macklin et al. 2019): inertia, gravity, gusty wind
that pushes along the normals, edges that do not stretch, bending, and collision with friction against capsules around
the bones. What is half loose is pulled back to its place by a spring that weakens with looseness, so that a hem hangs
free and a waistband sits. The constraints come from :mod:`nr_tracking.data.sheet`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nr_tracking.data.capsules import Capsules, gap, nearest_on_axes
from nr_tracking.data.sheet import Sheet, sew
from nr_tracking.types import Float32

STEP_HZ = 180.0
"""Steps a second; stiffness and cost grow with it."""
GRAVITY = np.array([0.0, -9.81, 0.0])
_SETTLING_S = 0.3
_SLACK = 1.02  # of the way along the surface to where a particle is held
_AIR = 3.5  # 1/m: deceleration of light fabric by air that it meets flat, over the squared speed
_FIRMNESS_HZ = 2.0  # of the spring that holds what is half loose
_FASTEST = 12.0  # m/s


@dataclass(frozen=True)
class Cloth:
    """What a loose part is made of, and the weather.

    ``bending`` Hz: how fast a fold springs back (silk 5, felt 30); ``tether`` Hz: how firmly even the loosest part
    keeps its cut; ``damping`` 1/s; ``friction`` in [0, 1]: share of the sliding along the body that is lost in a step;
    ``thickness`` metres kept from the body; ``wind`` (3,) m/s, which comes in gusts of ``gust`` Hz.
    """

    bending: float = 12.0
    tether: float = 0.3
    damping: float = 0.8
    friction: float = 0.3
    thickness: float = 0.006
    wind: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gust: float = 1.0

    @staticmethod
    def draw(rng: np.random.Generator) -> Cloth:
        """A random fabric; in half of the cases the air is still."""
        wind = rng.normal(size=3) * [1, 0.15, 1] * rng.choice([0.0, 0.0, 1.0, 2.5])
        return Cloth(
            bending=float(np.exp(rng.uniform(np.log(5.0), np.log(30.0)))),
            tether=rng.uniform(0.1, 0.8),
            damping=rng.uniform(0.3, 1.5),
            friction=rng.uniform(0.1, 0.6),
            thickness=rng.uniform(0.004, 0.01),
            wind=tuple(wind.tolist()),
            gust=rng.uniform(0.4, 1.5),
        )


def swing(
    skinned: np.ndarray,
    faces: np.ndarray,
    rest: np.ndarray,
    looseness: np.ndarray,
    fps: float,
    cloth: Cloth,
    body: Capsules | None = None,
    ends: np.ndarray | None = None,
) -> Float32:
    """Let the loose points of a skinned surface (T, V, 3), metres, y up, move as cloth does.

    ``rest`` (V, 3) is the rest pose, in which the cloth fits; ``looseness`` (V,) in [0, 1]: 0 stays where skinning puts
    it, 1 hangs free. ``ends`` (T, K, 2, 3) are the axes of ``body``'s capsules in each frame. What lies inside a
    capsule at rest may stay that deep. The cloth has settled in the first frame's pose before time begins.
    """
    sheet = sew(rest, faces, looseness)
    out = skinned.astype(np.float32)
    if sheet is None:
        return out
    target = skinned[:, sheet.vertices].astype(np.float64)
    obstacle = None
    if body is not None and ends is not None and len(body.joints):
        obstacle = _Obstacle(body, ends, rest[sheet.vertices], cloth)
    for frame, place in enumerate(_simulated(sheet, target, fps, cloth, obstacle)):
        out[frame, sheet.vertices] = place
        out[frame, sheet.web] += sheet.follow(place - target[frame])
    return out


def _simulated(
    sheet: Sheet, target: np.ndarray, fps: float, cloth: Cloth, obstacle: _Obstacle | None
) -> Iterator[np.ndarray]:
    """The particles' places (P, 3), frame by frame, where skinning wants them at ``target`` (T, P, 3)."""
    substeps = max(1, round(STEP_HZ / fps))
    step = _Step(sheet, cloth, 1 / (fps * substeps))
    place, speed = target[0].copy(), np.zeros_like(target[0])
    for _ in range(round(_SETTLING_S * STEP_HZ)):
        place, speed = step(place, 0.97 * speed, target[0], 0.0, obstacle, 0, 1.0, 1.0)
    yield place
    for frame in range(1, len(target)):
        for part in range(1, substeps + 1):
            share, before = part / substeps, (part - 1) / substeps
            goal = target[frame - 1] + (target[frame] - target[frame - 1]) * share
            time = (frame - 1 + share) / fps
            place, speed = step(place, speed, goal, time, obstacle, frame - 1, share, before)
        yield place


class _Step:
    """One step of ``dt`` seconds."""

    def __init__(self, sheet: Sheet, cloth: Cloth, dt: float) -> None:
        self.sheet, self.cloth, self.dt = sheet, cloth, dt
        self.free = sheet.looseness > 0
        moves = self.free.astype(float)
        bend = 1 / (2 * np.pi * cloth.bending * dt) ** 2
        self.springs = [
            (
                *(colour.first, colour.second, colour.length, moves[colour.first], moves[colour.second]),
                moves[colour.first] + moves[colour.second] + np.where(colour.bends, bend, 0.0),
            )
            for colour in sheet.colours
        ]
        loose = np.maximum(sheet.looseness, 1e-6)
        rate = 2 * np.pi * (cloth.tether + _FIRMNESS_HZ * (1 - loose) / loose) * dt
        self.pull = np.where(self.free, rate**2 / (1 + rate**2), 1.0)[:, None]
        self.held = np.flatnonzero(self.free & np.isfinite(sheet.reach))

    def __call__(
        self,
        place: np.ndarray,
        speed: np.ndarray,
        goal: np.ndarray,
        time: float,
        obstacle: _Obstacle | None,
        frame: int,
        share: float,
        before: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """New places and speeds (P, 3); the obstacle stands ``share`` of the way from ``frame`` to the next."""
        speed = speed + self.dt * (GRAVITY + self._air(place, speed, time))
        old, place = place, place + self.dt * speed
        place += self.pull * (goal - place)
        for first, second, length, moves, yields, weight in self.springs:
            apart = place[first] - place[second]
            now = np.sqrt(np.einsum("cx,cx->c", apart, apart))
            apart *= ((now - length) / (np.maximum(now, 1e-9) * weight))[:, None]
            place[first] -= moves[:, None] * apart
            place[second] += yields[:, None] * apart
        self._hold(place)
        if obstacle is not None:
            obstacle.push(place, old, self.free, frame, share, before)
        speed = (place - old) / self.dt * np.exp(-self.cloth.damping * self.dt)
        fast = np.linalg.norm(speed, axis=1, keepdims=True)
        return place, speed * np.minimum(1, _FASTEST / np.maximum(fast, 1e-9))

    def _air(self, place: np.ndarray, speed: np.ndarray, time: float) -> np.ndarray:
        """Acceleration (P, 3) by the air that a particle meets along its normal."""
        a, b, c = (place[self.sheet.faces[:, k]] for k in range(3))
        normal = self.sheet.normals @ np.cross(b - a, c - a)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        wind = np.array(self.cloth.wind)
        if wind.any():
            # Gusts travel with the wind: ripples of about a metre.
            phase = 2 * np.pi * (self.cloth.gust * time - place @ wind / np.linalg.norm(wind))
            wind = wind * (1 + 0.6 * np.sin(phase) + 0.3 * np.sin(2.7 * phase))[:, None]
        met = ((wind - speed) * normal).sum(1)
        push = _AIR * np.abs(met)
        return (met * push / (1 + self.dt * push))[:, None] * normal

    def _hold(self, place: np.ndarray) -> None:
        """Nothing gets farther from where it is held than along the surface."""
        anchor, reach = self.sheet.anchor[self.held], _SLACK * self.sheet.reach[self.held]
        apart = place[self.held] - place[anchor]
        far = np.linalg.norm(apart, axis=1)
        place[self.held] = place[anchor] + apart * np.minimum(1, reach / np.maximum(far, 1e-9))[:, None]


class _Obstacle:
    """A moving body that pushes particles out."""

    def __init__(self, body: Capsules, ends: np.ndarray, rest: np.ndarray, cloth: Cloth) -> None:
        clearance = gap(rest, body.rest(), body.radii)
        near = clearance.min(0) < 0.35 * float(np.ptp(body.rest().reshape(-1, 3), axis=0).max())
        self.ends, self.radii, self.friction = ends[:, near], body.radii[near], cloth.friction
        self.least = np.minimum(clearance[:, near], cloth.thickness)

    def push(
        self, place: np.ndarray, old: np.ndarray, free: np.ndarray, frame: int, share: float, before: float
    ) -> None:
        """Move particles out of the capsule that they are deepest in, and slow their sliding along it."""
        if not len(self.radii):
            return
        following = self.ends[min(frame + 1, len(self.ends) - 1)]
        now = self.ends[frame] + share * (following - self.ends[frame])
        past = self.ends[frame] + before * (following - self.ends[frame])
        along, distance = nearest_on_axes(place, now)
        room = distance - (self.radii[:, 0] + along * (self.radii[:, 1] - self.radii[:, 0])) - self.least
        deepest = room.argmin(1)
        row = np.flatnonzero(free & (room[np.arange(len(room)), deepest] < 0))
        which = deepest[row]
        mix = along[row, which][:, None]
        axis = (1 - mix) * now[which, 0] + mix * now[which, 1]
        outward = (place[row] - axis) / np.maximum(distance[row, which], 1e-9)[:, None]
        place[row] -= room[row, which][:, None] * outward
        carried = axis - (1 - mix) * past[which, 0] - mix * past[which, 1]
        slid = place[row] - old[row] - carried
        slid -= (slid * outward).sum(1, keepdims=True) * outward
        place[row] -= self.friction * slid

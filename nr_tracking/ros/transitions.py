"""Transitions of a managed node that tell why they fail."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from nr_tracking.config import ConfigError
from nr_tracking.types import InputError

if TYPE_CHECKING:
    from nr_tracking.ros.tracking_node import TrackingNode

Transition = Callable[["TrackingNode", LifecycleState], TransitionCallbackReturn]


def said(verb: str) -> Callable[[Transition], Transition]:
    """A transition whose failure is told, since rclpy swallows it; ``on_error`` then frees everything."""

    def decorate(transition: Transition) -> Transition:
        @functools.wraps(transition)
        def guarded(node: TrackingNode, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                done = transition(node, state)
            except Exception as error:  # whatever it was, somebody waits for a node that does not come
                node.failed_transition(f"cannot be {verb}: {told(error)}")
                return TransitionCallbackReturn.ERROR
            node.failed_transition("")
            return done

        return guarded

    return decorate


def told(error: Exception) -> str:
    """An error in words; one that is not meant to be read by itself with its kind."""
    named = isinstance(error, ConfigError | InputError | OSError)
    return str(error) if named else f"{type(error).__name__}: {error}"

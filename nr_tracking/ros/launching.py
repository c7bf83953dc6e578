"""What launch files need besides ``launch_ros``."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from typing import Any

import yaml

_WHICH = "/**/nr_tracking"  # tracking nodes in every namespace
_SHOWN = ("mesh", "tracks", "patches", "correspondences")  # outputs of the node in config/tracking.rviz


def overriding_file(values: Mapping[str, Any]) -> str:
    """A params file whose values hold for all tracking nodes, whatever files before it say.

    Sections are applied in the order in which their names first appear: values that come later, but under a name that
    an earlier file has as well, are overruled by what that file says in its other sections. Whoever launches the
    nodes removes the file when they have ended.
    """
    with tempfile.NamedTemporaryFile("w", prefix="nr_tracking_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({_WHICH: {"ros__parameters": dict(values)}}, file)
    return file.name


def viewer_remappings(namespace: str, topics: Mapping[str, str]) -> list[tuple[str, str]]:
    """From the names in ``config/tracking.rviz`` to those of a tracking node in ``namespace``, which may be empty.

    ``topics`` maps inputs of the node that RViz shows or publishes, such as ``clicked_point``, to what they are
    remapped to: names without a leading slash are in the namespace.
    """
    outputs = {f"/nr_tracking/{name}": f"nr_tracking/{name}" for name in _SHOWN}
    inputs = {f"/{name}": given for name, given in topics.items()}
    return [(name, posixpath.join("/", namespace, given)) for name, given in (outputs | inputs).items()]

"""What launch files need besides ``launch_ros``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import yaml

_WHICH = "/**/nr_tracking"  # tracking nodes in every namespace


def overriding_file(values: Mapping[str, Any]) -> str:
    """A params file whose values hold for all tracking nodes, whatever files before it say.

    Sections are applied in the order in which their names first appear: values that come later, but under a name that
    an earlier file has as well, are overruled by what that file says in its other sections.
    """
    with tempfile.NamedTemporaryFile("w", prefix="nr_tracking_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({_WHICH: {"ros__parameters": dict(values)}}, file)
    return file.name

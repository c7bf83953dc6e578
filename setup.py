"""Installs with pip and with colcon (ament_python) alike."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

NAME = "nr_tracking"
HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / NAME / "__init__.py").read_text()).group(1)

ROS = [
    "rclpy",
    "rmw-fastrtps-cpp",
    "geometry-msgs",
    "lifecycle-msgs",
    "sensor-msgs",
    "std-msgs",
    "visualization-msgs",
]
EXTRAS = {
    "ros": ["rosbags>=0.11", *(f"ros-kilted-{name}" for name in ROS), "ros-std-srvs", "ros-diagnostic-msgs"],
    "data": ["trimesh>=4", "embreex", "libigl>=2.5", "h5py"],
    "view": ["rerun-sdk"],
    "cuda": ["spconv-cu126"],
    "cluster": ["ray>=2.9"],
    "test": ["pytest", "pytest-cov", "hypothesis", "ruff", "mypy", "import-linter", "types-PyYAML"],
}

DATA_FILES = [
    ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
    (f"share/{NAME}", ["package.xml"]),
    *(
        (f"share/{NAME}/{folder}", sorted(str(path.relative_to(HERE)) for path in (HERE / folder).glob("*.*")))
        for folder in ("launch", "config", "models")
    ),
]
if "bdist_wheel" in sys.argv:
    # pip puts console scripts into bin/ whatever setup.cfg says, where `ros2 run` and launch do not look for them.
    DATA_FILES.append((f"lib/{NAME}", [f"scripts/{node}" for node in ("tracking_node", "cameras_node", "replay_node")]))

setup(
    name=NAME,
    version=VERSION,
    description="A depth stream in; a complete, tracked surface of whatever deforms in front of the camera out.",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    author="The nr_tracking developers",
    maintainer="The nr_tracking maintainers",
    maintainer_email="nr-tracking-maintainers@example.org",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=DATA_FILES,
    zip_safe=False,
    install_requires=[
        "torch>=2.5",
        "numpy>=1.26",
        "numba>=0.60",
        "scipy>=1.11",
        "scikit-image>=0.22",
        "imageio>=2.31",
        "safetensors>=0.4",
        "pydantic>=2.5",
        "PyYAML>=6",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "nr_tracking = nr_tracking.cli:main",
            "tracking_node = nr_tracking.ros.tracking_node:main",
            "cameras_node = nr_tracking.ros.cameras_node:main",
            "replay_node = nr_tracking.ros.replay_node:main",
        ]
    },
)

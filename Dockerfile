# nr_tracking with ROS 2 as wheels, from the versions that CI uses. Build: docker build -t nr_tracking .
# Run: docker run --rm --net=host --ipc=host nr_tracking --ros-args -r depth/image_raw:=/camera/depth/image_rect_raw
#   -r depth/camera_info:=/camera/depth/camera_info
# --ipc=host lets images pass through shared memory, which Fast DDS opens to one user only: where the camera's driver
# runs as root add --user 0, or no image arrives. With a GPU: docker build --build-arg TORCH_INDEX= -t nr_tracking .
# and docker run --gpus all ... -p device:=cuda
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/nr_tracking
COPY constraints.txt .
RUN pip install --no-cache-dir $(grep '^torch==' constraints.txt) ${TORCH_INDEX:+--index-url $TORCH_INDEX}
COPY . .
ARG EXTRAS=ros
RUN pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"

ENV AMENT_PREFIX_PATH=/usr/local FASTDDS_DEFAULT_PROFILES_FILE=/usr/local/share/nr_tracking/config/fastdds.xml
# Whoever --user names has a home to write logs and results to.
RUN useradd --create-home robot && chmod 1777 /home/robot
ENV HOME=/home/robot
USER robot
# Loops compiled once, for processors like this one; whoever --user names may add to them.
RUN umask 000 && python3 -c "from nr_tracking.config import load_config; \
from nr_tracking.ros.networks import build_tracker, prepare_loops; \
[prepare_loops(build_tracker(load_config(preset))) for preset in ('base', 'lite')]"
WORKDIR /home/robot
# Python as the first process ignores SIGTERM until rclpy handles it; SIGINT it heeds from the start.
STOPSIGNAL SIGINT
ENTRYPOINT ["python3", "-m", "nr_tracking.ros.tracking_node"]

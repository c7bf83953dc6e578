# nr_tracking with ROS 2 as wheels, from the versions that CI uses. Build: docker build -t nr_tracking .
# Run: docker run --rm --net=host --ipc=host nr_tracking --ros-args -p preset:=lite -r depth/image_raw:=/camera/depth/image_rect_raw
# --ipc=host lets images pass through shared memory. For a GPU leave TORCH_INDEX empty and add --gpus all.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/nr_tracking
COPY constraints.txt .
RUN pip install --no-cache-dir $(grep '^torch==' constraints.txt) ${TORCH_INDEX:+--index-url $TORCH_INDEX}
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[ros]'

ENV AMENT_PREFIX_PATH=/usr/local FASTDDS_DEFAULT_PROFILES_FILE=/usr/local/share/nr_tracking/config/fastdds.xml
RUN useradd --create-home robot
USER robot
WORKDIR /home/robot
ENTRYPOINT ["python3", "-m", "nr_tracking.ros.tracking_node"]

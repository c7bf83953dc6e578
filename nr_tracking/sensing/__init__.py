"""From a depth image to a sparse TSDF of the subject."""

"""What the core logs, in the log of the node: on the console of ROS and on /rosout."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

_CORE = logging.getLogger("nr_tracking")


class CoreLog(logging.Handler):
    """Hands records of the logger ``nr_tracking`` on to the logger of a node, with their level, until it is closed.

    Of several nodes of a process the one that has been there longest does so: the core does not know for which of them
    it works.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger
        _CORE.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record."""
        if next((each for each in _CORE.handlers if isinstance(each, CoreLog)), None) is not self:
            return
        try:
            self._say(record.levelno, self.format(record))
        except Exception:  # a line that cannot be told must not end what told it
            self.handleError(record)

    def close(self) -> None:
        """Hand on nothing more."""
        _CORE.removeHandler(self)
        super().close()

    def _say(self, level: int, text: str) -> None:
        # A line of the code for each level: rclpy refuses another level from the same one.
        if level >= logging.CRITICAL:
            self._logger.fatal(text)
        elif level >= logging.ERROR:
            self._logger.error(text)
        elif level >= logging.WARNING:
            self._logger.warning(text)
        elif level >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)

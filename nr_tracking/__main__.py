"""``python -m nr_tracking`` is ``nr_tracking``."""

import sys

from nr_tracking.cli import main

sys.exit(main())

"""``python -m guts``: the ``guts`` command of this interpreter."""

import sys

from guts.cli import main

sys.exit(main())

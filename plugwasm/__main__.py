"""The command line, as `python -m plugwasm`."""

import sys

from .cli import main

sys.exit(main())

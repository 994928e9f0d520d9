"""`python -m plugwasm` is the command line."""

import sys

from plugwasm.cli import main

sys.exit(main())

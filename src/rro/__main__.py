"""`python -m rro`."""

import sys

from rro.cli import main

sys.exit(main())

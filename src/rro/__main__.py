"""`python -m rro`."""

import sys

from rro.cli.main import main

sys.exit(main())

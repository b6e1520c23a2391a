"""`python -m rro`."""

import sys

from rro.cli.main import main

code = main()
# Where Ctrl-C landed in the `exec` of a text, as in the making of a dataclass, Python would end
# `python -m` by SIGINT, whatever became of the interrupt; the next such `exec` makes it forget.
exec("")
sys.exit(code)

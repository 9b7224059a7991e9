"""``python -m recbole_e2urec`` is the command ``recbole-e2urec``."""

import sys

from recbole_e2urec.cli import main

if __name__ == "__main__":
    sys.exit(main())

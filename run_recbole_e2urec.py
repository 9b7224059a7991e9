"""Run the command line from a checkout: ``python run_recbole_e2urec.py --model=E2URec``."""

import sys

from recbole_e2urec.cli import main

if __name__ == "__main__":  # the processes of a comparison import this file as well
    sys.exit(main())

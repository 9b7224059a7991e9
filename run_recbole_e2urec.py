"""Run the command line from a checkout: ``python run_recbole_e2urec.py --model=E2URec``."""

import sys

from recbole_e2urec.cli import main

sys.exit(main())

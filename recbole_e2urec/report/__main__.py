"""``python -m recbole_e2urec.report saved/results.jsonl``: results as a table or a page."""

import sys

from recbole_e2urec.report.report import main

if __name__ == "__main__":
    sys.exit(main())

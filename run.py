"""longspan from a checkout: `python run.py --help`."""

import sys
from pathlib import Path

from longspan.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent / "conf"))

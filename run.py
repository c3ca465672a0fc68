"""longspan from a checkout: `python run.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from pathlib import Path

        from longspan.cli import main

        code = main(sys.argv[1:], Path(__file__).parent / "conf")
    except KeyboardInterrupt:  # while modules were loaded
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)

"""See `cli`. The tests' folder is made known first, as pytest does it: they import each other from there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from roles.chaos.cli import main

    sys.exit(main())

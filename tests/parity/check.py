"""``python -m tests.parity.check DIR``: compare this code with the original's recorded numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.parity.cases import check_of
from tests.parity.golden import load_case
from tests.parity.report import table


def main(argv: Sequence[str] | None = None) -> int:
    """Check every case of a folder; 0 if all agree, 1 if one differs, 2 if there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity.check", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds NAME.json and NAME.npz of each case")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="check these cases only")
    arguments = parser.parse_args(argv)
    found = sorted(path.stem for path in arguments.folder.glob("*.npz"))
    wanted = [name for name in found if not arguments.only or name in arguments.only]
    checks = {name: check for name in wanted if (check := check_of(name)) is not None}
    if not checks:
        sys.stderr.write(f"{arguments.folder} holds no case that can be checked.\n")
        return 2
    findings = [
        finding
        for name, check in checks.items()
        for finding in check(load_case(arguments.folder, name))
    ]
    sys.stdout.write(table(findings) + "\n")
    for name in wanted:
        if name not in checks:
            sys.stdout.write(f"not covered: {name} (its model is not built yet)\n")
    return 0 if all(finding.agrees for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())

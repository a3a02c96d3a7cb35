"""`python -m ros2_nodes.interfaces`: give this environment the message packages it lacks.

Ends with 0 when all are there, 1 when a build failed, 2 when this machine cannot build them.
"""

from __future__ import annotations

import sys
import time

from ros2_nodes.interfaces.building import build_packages, installed_distribution
from ros2_nodes.interfaces.errors import InterfacesError, ToolsMissingError
from ros2_nodes.interfaces.packages import PACKAGES
from ros2_nodes.interfaces.state import is_current, is_provided


def main() -> int:
    """Build what is missing; say on stderr what was done."""
    wanted = [package for package in PACKAGES if not is_provided(package.name)]
    if not wanted:
        return 0
    try:
        distribution = installed_distribution()
        missing = [
            package
            for package in wanted
            if not is_current(package.name, package.fingerprint(distribution.fingerprint()))
        ]
        if missing:
            names = " and ".join(package.name for package in missing)
            _say(f"building {names} for ROS 2 {distribution.name} (once; a minute)")
            start = time.monotonic()
            build_packages(missing, distribution)
            _say(f"built {names} in {time.monotonic() - start:.0f} s")
    except ToolsMissingError as error:
        names = " and ".join(package.name for package in wanted)
        _say(f"warning: {names} cannot be built here: {error}")
        return 2
    except InterfacesError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a program's only output


if __name__ == "__main__":
    sys.exit(main())

"""`python -m ros2_nodes.reference`: print the tables of parameters that docs/nodes.md holds."""

from __future__ import annotations

import sys

from ros2_nodes import bag_player_node, camera_sim, dashboard, latency_monitor, parameters
from ros2_nodes.declarations import markdown_table

DECLARATIONS = {
    "classifier": parameters.DECLARATIONS,
    bag_player_node.NAME: bag_player_node.DECLARATIONS,
    camera_sim.NAME: camera_sim.DECLARATIONS,
    dashboard.NAME: dashboard.DECLARATIONS,
    latency_monitor.NAME: latency_monitor.DECLARATIONS,
}


def main() -> int:
    """Print each node's name and its table; return the exit code of the process."""
    for node, declarations in DECLARATIONS.items():
        sys.stdout.write(f"{node}\n\n{markdown_table(declarations)}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The packages that are built, and their source folders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from qpde_perception.bags.definitions import MESSAGE_TEXTS

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST = """\
<?xml version="1.0"?>
<package format="3">
  <name>{name}</name>
  <version>{version}</version>
  <description>The messages of {name} that qpde_perception sends and reads.</description>
  <maintainer email="maintainers@qpde-perception.invalid">qpde_perception</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend>
{dependencies}
  <exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""


@dataclass(frozen=True)
class InterfacePackage:
    """A package of messages.

    Attributes:
        name: As `import` and `ros2 interface` know it.
        version: Of the public package whose fields these messages have.
        dependencies: The packages whose messages it contains.
    """

    name: str
    version: str
    dependencies: tuple[str, ...]

    def sources(self) -> dict[str, str]:
        """Return the texts of the package's source folder, by relative path."""
        messages = {
            f"msg/{name.split('/')[2]}.msg": text
            for name, text in MESSAGE_TEXTS.items()
            if name.startswith(f"{self.name}/")
        }
        dependencies = "\n".join(f"  <depend>{name}</depend>" for name in self.dependencies)
        manifest = _MANIFEST.format(name=self.name, version=self.version, dependencies=dependencies)
        cmake = files(__package__).joinpath("CMakeLists.txt").read_text(encoding="utf-8")
        return {**messages, "package.xml": manifest, "CMakeLists.txt": cmake}

    def write(self, folder: Path) -> None:
        """Write the source folder."""
        for name, text in self.sources().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    def fingerprint(self, *surroundings: str) -> str:
        """Return a hash of the sources and of what else decides the result of a build."""
        parts = [*surroundings, *(f"{name}\n{text}" for name, text in self.sources().items())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


PACKAGES = (
    InterfacePackage("vision_msgs", "4.1.1", ("std_msgs", "geometry_msgs")),
    InterfacePackage("foxglove_msgs", "3.1.0", ("builtin_interfaces",)),
)

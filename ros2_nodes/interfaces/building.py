"""Building an interface package into the Python environment that runs this."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_nodes.interfaces.errors import InterfacesError, ToolsMissingError
from ros2_nodes.interfaces.state import stamp_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ros2_nodes.interfaces.packages import InterfacePackage

# The distributions whose wheels are known, by the major version of rclpy.
DISTRIBUTIONS = {"7": "jazzy", "9": "kilted"}
_LAST_LINES = 40


@dataclass(frozen=True)
class Distribution:
    """The ROS 2 wheels that are installed, and the build tools that fit them.

    Attributes:
        name: Of the ROS 2 distribution.
        rclpy: The version of its wheel.
        tools: What pip installs into the throw-away environment of a build, every version pinned.
    """

    name: str
    rclpy: str
    tools: str

    def fingerprint(self) -> str:
        """Return all that decides the result of a build, besides the sources."""
        return "\n".join((self.rclpy, str(sys.implementation.cache_tag), self.tools))


def installed_distribution() -> Distribution:
    """Return the ROS 2 wheels of this environment.

    Raises:
        ToolsMissingError: If there are none, or none with known build tools.
    """
    try:
        rclpy = version("ros-rclpy")
    except PackageNotFoundError:
        msg = (
            'install the wheels of ROS 2 (pip install -e ".[ros]"), or source an installation'
            " that has the packages (sudo apt install ros-$ROS_DISTRO-vision-msgs)"
        )
        raise ToolsMissingError(msg) from None
    name = DISTRIBUTIONS.get(rclpy.split(".")[0])
    if name is None:
        known = " or ".join(DISTRIBUTIONS)
        msg = f"ros-rclpy {rclpy} has no known build tools; install version {known}"
        raise ToolsMissingError(msg)
    tools = files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return Distribution(name, rclpy, tools)


def check_tools() -> None:
    """Check that this machine can compile Python modules.

    Raises:
        ToolsMissingError: If it lacks a compiler or Python's headers.
    """
    compilers = {"C": ("CC", "cc", "gcc", "clang"), "C++": ("CXX", "c++", "g++", "clang++")}
    for language, (variable, *names) in compilers.items():
        candidates = [os.environ[variable]] if variable in os.environ else names
        if not any(shutil.which(name) for name in candidates):
            msg = f"no {language} compiler; install one, for example: sudo apt install g++"
            raise ToolsMissingError(msg)
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        msg = "Python.h is missing; install it, for example: sudo apt install python3-dev"
        raise ToolsMissingError(msg)


def build_packages(packages: Sequence[InterfacePackage], distribution: Distribution) -> None:
    """Build packages and install them into `sys.prefix`.

    The build tools live in a folder that is removed afterwards; of the environment itself nothing
    changes but the packages.

    Raises:
        ToolsMissingError: If this machine cannot compile Python modules.
        InterfacesError: If a step of the build fails.
    """
    check_tools()
    with tempfile.TemporaryDirectory(prefix="ros_interfaces_") as name:
        tools = _make_tools(Path(name), distribution)
        for package in packages:
            _compile(package, Path(name) / package.name, tools)
            fingerprint = package.fingerprint(distribution.fingerprint())
            stamp_of(package.name).write_text(fingerprint, encoding="utf-8")


def _make_tools(folder: Path, distribution: Distribution) -> Path:
    """Make the environment of the build; it sees this environment's packages behind its own."""
    environment = folder / "tools"
    lock = folder / "tools.txt"
    lock.write_text(distribution.tools, encoding="utf-8")
    _run("venv", [sys.executable, "-m", "venv", "--without-pip", str(environment)])
    python = environment / "bin" / "python"
    own = sysconfig.get_path("purelib", vars={"base": str(environment)})
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run("pip", [*pip, "install", "--quiet", "--no-deps", "--requirement", str(lock)])
    (Path(own) / "environment.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return environment


def _compile(package: InterfacePackage, folder: Path, tools: Path) -> None:
    prefix = Path(sys.prefix)
    source, build = folder / "source", folder / "build"
    package.write(source)
    packages = Path(sysconfig.get_path("purelib")).relative_to(prefix)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": str(prefix),
        "CMAKE_PREFIX_PATH": f"{tools};{prefix}",
        "Python3_EXECUTABLE": str(tools / "bin" / "python"),
        "PYTHON_INSTALL_DIR": str(packages),
        "BUILD_TESTING": "OFF",
        "PACKAGE": package.name,
        "PACKAGE_DEPENDENCIES": ";".join(package.dependencies),
    }
    cmake = str(tools / "bin" / "cmake")
    configure = [cmake, "-G", "Ninja", "-S", str(source), "-B", str(build)]
    path = os.pathsep.join((str(tools / "bin"), os.environ.get("PATH", os.defpath)))
    prefixes = os.pathsep.join((str(tools), str(prefix)))
    variables = {**os.environ, "PATH": path, "AMENT_PREFIX_PATH": prefixes}
    _run("configure", [*configure, *(f"-D{k}={v}" for k, v in options.items())], variables)
    _run("compile", [cmake, "--build", str(build)], variables)
    # An installation that is interrupted leaves a stamp that fits nothing.
    stamp = stamp_of(package.name)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text("unfinished", encoding="utf-8")
    _run("install", [cmake, "--install", str(build)], variables)


def _run(step: str, command: Sequence[str], variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(  # noqa: S603 - a list of our own making, no shell
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
        msg = f"the step {step!r} failed ({command[0]}):\n{last}"
        raise InterfacesError(msg)

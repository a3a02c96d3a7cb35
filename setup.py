"""What `colcon build` installs besides the Python packages; everything else: pyproject.toml."""

from pathlib import Path

import setuptools

NAME = "qpde_perception"
SHARE = Path("share") / NAME
ROOT = Path(__file__).parent

if int(setuptools.__version__.split(".")[0]) < 61:
    message = (
        f"setuptools {setuptools.__version__} does not read pyproject.toml; "
        'install a newer one: python3 -m pip install "setuptools>=61,<80"'
    )
    raise SystemExit(message)


def shared(folder: str, pattern: str) -> list[tuple[str, list[str]]]:
    """Return the entries of data_files that keep a folder's tree under share/qpde_perception."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern))
    files = [path for path in found if (ROOT / path).is_file() and path.name[0] != "."]
    parents = sorted({path.parent for path in files})
    return [(str(SHARE / p), [str(f) for f in files if f.parent == p]) for p in parents]


setuptools.setup(
    # Two fields of pyproject.toml stand here: the setuptools of ROS 2 installations takes no SPDX
    # expression there, and colcon cannot read the object that a `requires-python` there becomes.
    license="Apache-2.0",
    python_requires=">=3.10",
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        *shared("launch", "*.launch.py"),
        *shared("launch", "*.yaml"),
        *shared("launch", "*.xml"),
        *shared("models", "*"),
        *shared("samples", "*"),
        *shared("security", "*.xml"),
    ],
)

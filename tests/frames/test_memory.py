"""Memory that is kept: frames that come and go cost no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from qpde_perception.frames import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
    keep_memory()
for number in range(40):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # Larger than the last one each time, so that glibc's own threshold keeps too low.
    np.ones(48_000_000 + 8192 * number, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_is_kept_is_not_paged_in_again_and_again():
    faults = {
        case: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, case], capture_output=True, check=True
            ).stdout
        )
        for case in ("kept", "handed back")
    }
    assert faults["kept"] * 10 < faults["handed back"], faults

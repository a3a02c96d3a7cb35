"""What a call of the command gave."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """What a call of the command gave."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)

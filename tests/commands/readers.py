"""What tests send to other processes; these import nothing heavy for it."""

from __future__ import annotations

import os


class CrashingReader:
    """Ends its process when it reads the second thing."""

    def read(self, position: int) -> None:
        """Read one thing."""
        if position == 1:
            os._exit(3)

    def close(self) -> None:
        """Nothing was started."""

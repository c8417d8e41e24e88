"""What broken files may make of the processes that look at them; imports nothing heavy."""

from __future__ import annotations

import os
import signal
import time

from alpro.commands.check_data.probe import Item, Probe, probe_item
from alpro.commands.check_data.sources import Sampling


def hang_or_crash(item: Item, *, sampling: Sampling, full: bool) -> Probe:
    """Look at a video, or misbehave as its name says."""
    if item.video_id == "hangs":
        time.sleep(60)
    if item.video_id == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item.video_id == "locked":
        raise PermissionError("permission denied")
    return probe_item(item, sampling=sampling, full=full)

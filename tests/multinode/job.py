"""One process of a rehearsed run: the retrieval entry script on made-up videos.

    python -m tests.multinode.job FOLDER FLAG...

It notes in FOLDER where it runs. If FOLDER/fault.json is there, ``{"rank": R, "read": N, "what":
"kill" | "hang"}``, then rank R removes it when it has read N videos, and kills itself with SIGKILL
or hangs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

from alpro.datasets.decoding import FrameSelector, Video
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.program import run_script
from tasks import run_video_retrieval
from tests.factories import FakeDecoder

PLACES = "places.jsonl"
FAULT = "fault.json"


class FaultyDecoder(FakeDecoder):
    """Ends or stops its process after N reads, as ``fault.json`` has it for this rank."""

    def __init__(self, folder: Path, *, rank: int) -> None:
        super().__init__()
        self.wish = folder / FAULT
        self.rank = rank

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        if self.wish.exists():
            wish = json.loads(self.wish.read_text())
            if (wish["rank"], wish["read"]) == (self.rank, self.reads.total()):
                self.wish.unlink()
                if wish["what"] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                while True:
                    time.sleep(1)
        return super().read(video, select, preprocessing=preprocessing)


def place() -> dict[str, int | str]:
    """Host, rank, number of processes, and number on the host, as the launcher tells them."""
    under_horovod = "HOROVOD_RANK" in os.environ
    names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    if under_horovod:
        names = {key: "HOROVOD_" + name.replace("WORLD_", "") for key, name in names.items()}
    return {
        "host": socket.gethostname(),
        **{key: int(os.environ.get(name, "0")) for key, name in names.items()},
    }


def main() -> None:
    """Note the place, then run the entry script with made-up videos."""
    folder = Path(sys.argv.pop(1))
    here = place()
    with (folder / PLACES).open("a", encoding="utf-8") as places:
        places.write(json.dumps(here) + "\n")
    decoder = FaultyDecoder(folder, rank=int(here["rank"]))
    with mock.patch("alpro.experiment.data.make_decoder", return_value=decoder):
        run_video_retrieval.main()


if __name__ == "__main__":
    run_script(main)

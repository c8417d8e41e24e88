"""Stand-ins for programs: a folder for the PATH whose programs only note how they were called."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from alpro.tasks.pretraining.config import PostPretrainConfig, PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.registry import TASKS
from alpro.tasks.retrieval.config import RetrievalConfig

ROOT = Path(__file__).parents[2]
BASH = "/bin/bash"

RETRIEVAL = RetrievalConfig.SCRIPT
ANSWERING = QaConfig.SCRIPT
PROMPTER = PrompterConfig.SCRIPT
PRETRAINING = PretrainConfig.SCRIPT
POST_PRETRAINING = PostPretrainConfig.SCRIPT
CONFIG_OF = {config.SCRIPT: config for config in TASKS.values()}
"""Entry script -> the configuration it reads."""

# A call as it is noted: name, arguments, a mark; folder, variables, a mark; each ends in a null.
_MARK = "\x1e"
_RECORD = f"""\
{{
    printf '%s\\0' "${{0##*/}}" "$@" $'{_MARK}' "$PWD"
    /usr/bin/env -0
    printf '%s\\0' $'{_MARK}'
}} >>"$STUB_CALLS" || exit 99
"""


_GETENT = rf"""#!{BASH}
[[ $2 =~ ^([abc](\.lan)?|[0-9a-f:.]+)$ ]] && echo "${{ADDRESS:-192.0.2.1}} STREAM"
"""


@dataclass
class Call:
    """How a stand-in was called."""

    words: list[str]
    folder: str
    environment: dict[str, str]


class Stubs:
    """A folder of stand-ins and the calls they took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "stubs"
        self.folder.mkdir()
        self.notes = folder / "calls"

    def add(self, *names: str, then: str = "exit 0") -> None:
        """Add programs that write their call down and go on with the shell lines `then`."""
        for name in names:
            (self.folder / name).write_text(f"#!{BASH}\n{_RECORD}{then}\n")
            (self.folder / name).chmod(0o755)

    def add_hosts(self) -> None:
        """Let there be hosts called a, b and c, and no others; calls are not written down."""
        (self.folder / "getent").write_text(_GETENT)
        (self.folder / "getent").chmod(0o755)

    def link(self, *names: str) -> None:
        """Add the machine's own programs of these names."""
        for name in names:
            place = next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists())
            (self.folder / name).symlink_to(place)

    def run(
        self,
        script: str | Path,
        *arguments: str,
        folder: Path,
        path: str = "/usr/bin:/bin",
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a bash script of the repository in `folder`, with nothing of our environment."""
        variables = {
            "HOME": str(folder),
            "PATH": f"{self.folder}:{path}" if path else str(self.folder),
            "STUB_CALLS": str(self.notes),
            "ALPRO_VENV": str(folder / "no-environment"),
            **environment,
        }
        variables = {name: value for name, value in variables.items() if value}
        return subprocess.run(
            [BASH, str(ROOT / script), *arguments],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self, *names: str) -> list[Call]:
        """The calls so far, of these programs only if some are named."""
        if not self.notes.exists():
            return []
        parts = self.notes.read_text().split(f"{_MARK}\0")
        calls = [_read_call(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        return [call for call in calls if not names or call.words[0] in names]


def _read_call(words: str, surroundings: str) -> Call:
    folder, *variables = surroundings.split("\0")[:-1]
    environment = dict(variable.split("=", 1) for variable in variables)
    return Call(words.split("\0")[:-1], folder, environment)


def bash(lines: str, **environment: str) -> str:
    """Run lines of bash in the repository root and return what they print."""
    done = subprocess.run(
        [BASH, "-euc", lines],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()

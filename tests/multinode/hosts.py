"""Two hosts on one machine: each has network, name, processes and mounts of its own (namespaces).

A host lives as long as its first process, which reads from a pipe of ours: when we end, however
that may be, the pipe closes, and the kernel ends all processes of the host and takes its network
away. Nothing of the machine itself is changed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESSES = {"hosta": "10.77.0.1", "hostb": "10.77.0.2"}
"""Names are in small letters, as name servers have them."""
NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")
NEEDED = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}
"""Program -> Debian package."""
SSH_SERVER = Path("/usr/sbin/sshd")
POLL = 0.05  # seconds
SSH_PROGRAMS = ("ssh", "ssh-keygen", str(SSH_SERVER))

# First process of a host: arguments are its name, and a folder with hosts and, perhaps, ssh/.
_FIRST = """
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs tmpfs /run && mkdir /run/sshd
[ ! -d "$2/ssh" ] || mount --bind "$2/ssh" /etc/ssh
ip link set lo up
echo ready
cat >/dev/null
true  # keeps bash, which takes leave of processes that have lost their parents
"""
_SSHD_CONFIG = """
HostKey /etc/ssh/key
AuthorizedKeysFile /etc/ssh/key.pub
StrictModes no
PermitRootLogin prohibit-password
UsePAM no
PidFile none
"""
_SSH_CONFIG = """
Host *
    IdentityFile /etc/ssh/key
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking no
    LogLevel ERROR
"""


def what_is_missing() -> list[str]:
    """What the machine lacks for hosts, in words that say what to do."""
    missing = [
        f"the program {program} (apt-get install {package})"
        for program, package in NEEDED.items()
        if shutil.which(program) is None
    ]
    if os.geteuid() != 0:
        missing.append("root: namespaces are made and joined by root")
    return missing


def ssh_is_there() -> bool:
    """Whether hosts can have ssh servers."""
    return all(shutil.which(program) for program in SSH_PROGRAMS)


class Host:
    """One of the hosts."""

    def __init__(self, name: str, first: subprocess.Popen[str]) -> None:
        self.name = name
        self.address = ADDRESSES[name]
        (child,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        self.pid = int(child)  # of the host's first process, as the machine sees it
        self.is_there = True
        self._own: set[str] = set()

    def start(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a command here, in the repository root; all it prints goes to the end of a file."""
        with log.open("a", encoding="utf-8") as output:
            return subprocess.Popen(
                self._inside(command),
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, *command: str) -> str:
        """Run a short command here and return what it prints."""
        done = subprocess.run(
            self._inside(command), capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def processes(self) -> list[str]:
        """Process number, state and command line of all that has been started here and lives."""
        if not self.is_there:
            return []
        lines = self.run("ps", "-e", "-o", "pid=,stat=,args=").splitlines()
        found = []
        for line in lines:
            pid, state, words = line.split(maxsplit=2)
            is_alive = state[0] != "Z"
            if is_alive and pid not in self._own and not words.startswith("ps -e"):
                found.append(" ".join(line.split()))
        return found

    def settle(self) -> None:
        """Take what runs here now as the host's own: the first process, the ssh server."""
        self._own = {line.split()[0] for line in self.processes()}

    def cut_off(self) -> None:
        """Pull the cable, then the plug: nobody is told that the processes end."""
        self.run("ip", "link", "set", "eth0", "down")
        os.kill(self.pid, signal.SIGKILL)
        self.is_there = False

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--all", f"--wdns={ROOT}", *command]


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Hosts ``hosta`` and ``hostb`` with a cable between them, and ssh servers where there are any.

    Args:
        folder: receives keys, settings and the servers' logs.
    """
    folder.mkdir(parents=True)
    names = [f"{address} {name}\n" for name, address in ADDRESSES.items()]
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names))
    if ssh_is_there():
        _write_ssh_settings(folder / "ssh")
    with ExitStack() as stack:
        one, other = (stack.enter_context(_host(name, folder)) for name in ADDRESSES)
        _join(one, other)
        if ssh_is_there():
            for host in (one, other):
                _start_ssh_server(host, folder / f"sshd_{host.name}.log")
        for host in (one, other):
            host.settle()
        yield one, other


@contextmanager
def _host(name: str, folder: Path) -> Iterator[Host]:
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as complaints:
        first = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", "--mount-proc", "bash", "-euc", _FIRST, "bash", name,
             str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )  # fmt: skip
    assert first.stdin is not None
    assert first.stdout is not None
    try:
        if first.stdout.readline() != "ready\n":
            first.wait()
            raise OSError(f"{name}: no namespaces on this machine:\n{log.read_text()}")
        yield Host(name, first)
    finally:
        first.stdin.close()  # ends the first process, and so the host
        first.wait()
        first.stdout.close()


def _join(one: Host, other: Host) -> None:
    """Lay a cable between two hosts."""
    subprocess.run(
        ["ip", "link", "add", "eth0", "netns", str(one.pid), "type", "veth",
         "peer", "name", "eth0", "netns", str(other.pid)],
        check=True,
    )  # fmt: skip
    for host in (one, other):
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")


def _write_ssh_settings(folder: Path) -> None:
    """One key for both hosts and for who logs in there."""
    folder.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True
    )
    (folder / "sshd_config").write_text(_SSHD_CONFIG)
    (folder / "ssh_config").write_text(_SSH_CONFIG)


def _start_ssh_server(host: Host, log: Path) -> None:
    """Start a server, and wait until it listens."""
    server = host.start([str(SSH_SERVER), "-D", "-e"], log=log, environment={})
    while "Server listening" not in log.read_text():
        if server.poll() is not None:
            raise OSError(f"{host.name}: the ssh server does not start:\n{log.read_text()}")
        time.sleep(POLL)

"""Which launcher a run script takes, and what it makes of hosts; stand-ins note their calls."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.scripts.stubs import RETRIEVAL, Stubs

SCRIPT = "run_scripts/ft_msrvtt_ret.sh"
RENDEZVOUS = ["--rdzv_backend", "c10d", "--rdzv_endpoint"]


def train(
    stubs: Stubs, folder: Path, *, script: str = SCRIPT, **variables: str
) -> subprocess.CompletedProcess[str]:
    return stubs.run(script, folder=folder, **{"OUTPUT_DIR": "o", **variables})


def launcher_words(
    stubs: Stubs, folder: Path, *, script: str = SCRIPT, **variables: str
) -> list[str]:
    """The words of the one program that a training script starts, up to the flags of training."""
    done = train(stubs, folder, script=script, **variables)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    return call.words[: call.words.index("--config")]


@pytest.fixture
def both(stubs: Stubs) -> Stubs:
    """Both launchers; there are hosts called a, b and c, and no others."""
    stubs.add("horovodrun", "torchrun", "python")
    stubs.add_hosts()
    return stubs


def test_torchrun_is_taken_where_there_is_no_horovod(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("torchrun", "python")
    assert launcher_words(stubs, tmp_path) == [
        "torchrun", "--standalone", "--nproc_per_node", "8", RETRIEVAL,
    ]  # fmt: skip


def test_the_launcher_can_be_chosen(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(both, tmp_path, LAUNCHER="torchrun", NUM_PROCESSES="2")
    assert words == ["torchrun", "--standalone", "--nproc_per_node", "2", RETRIEVAL]


def test_horovodrun_is_taken_where_both_are(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(both, tmp_path, HOSTS="a:2,b:1")
    assert words == ["horovodrun", "-np", "3", "-H", "a:2,b:1", "python", RETRIEVAL]


@pytest.mark.parametrize("script", [SCRIPT, "run_scripts/pt_alpro.sh"])
def test_torchrun_meets_at_the_first_host(script: str, both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(
        both, tmp_path, script=script, LAUNCHER="torchrun", HOSTS="a.lan:4,b.lan:4,c.lan:4"
    )
    assert words[:-1] == [
        "torchrun", "--nnodes", "3", "--nproc_per_node", "4", *RENDEZVOUS, "a.lan:29500",
    ]  # fmt: skip


def test_port_and_restarts_are_read(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(
        both, tmp_path, LAUNCHER="torchrun", HOSTS="a:1,b:1", PORT="4000", MAX_RESTARTS="2"
    )
    assert words[5:] == [*RENDEZVOUS, "a:4000", "--max_restarts", "2", RETRIEVAL]


def test_one_process_can_begin_again_too(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(both, tmp_path, LAUNCHER="torchrun", NUM_PROCESSES="1", MAX_RESTARTS="3")
    assert words == [
        "torchrun", "--standalone", "--nproc_per_node", "1", "--max_restarts", "3", RETRIEVAL,
    ]  # fmt: skip


@pytest.mark.parametrize("script", [SCRIPT, "run_scripts/pt_alpro.sh"])
@pytest.mark.parametrize("variables", [{}, {"NUM_PROCESSES": "1"}])
def test_one_process_on_another_host_is_started_there(
    script: str, variables: dict[str, str], both: Stubs, tmp_path: Path
) -> None:
    words = launcher_words(both, tmp_path, script=script, HOSTS="b:1", **variables)
    assert words[:-1] == ["horovodrun", "-np", "1", "-H", "b:1", "python"]


def test_torchrun_starts_one_process_where_hosts_says(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(both, tmp_path, LAUNCHER="torchrun", HOSTS="b:1", NUM_PROCESSES="1")
    assert words == [
        "torchrun", "--nnodes", "1", "--nproc_per_node", "1", *RENDEZVOUS, "b:29500", RETRIEVAL,
    ]  # fmt: skip


def test_inference_uses_hosts_with_its_own_folder(both: Stubs, tmp_path: Path) -> None:
    done = both.run(
        "run_scripts/inf_msvd_qa.sh", folder=tmp_path, LAUNCHER="torchrun", HOSTS="a:4,b:4"
    )
    assert done.returncode == 0, done.stderr
    (call,) = both.calls()
    assert call.words[:5] == ["torchrun", "--nnodes", "2", "--nproc_per_node", "4"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LAUNCHER": "mpirun"}, "LAUNCHER is 'mpirun': set it to horovodrun or torchrun"),
        ({"MAX_RESTARTS": "2"}, "MAX_RESTARTS is for torchrun: set LAUNCHER=torchrun"),
        ({"LAUNCHER": "torchrun", "HOSTS": "a:4,b"}, "HOSTS is 'a:4,b': it must look like a:4,b:4"),
        ({"HOSTS": "a:4,b:0"}, "HOSTS is 'a:4,b:0': it must look like a:4,b:4"),
        (
            {"LAUNCHER": "torchrun", "HOSTS": "a:4,b:2"},
            "HOSTS is 'a:4,b:2': torchrun needs the same number of processes on every host",
        ),
        (
            {"LAUNCHER": "torchrun", "HOSTS": "a:4,b:4", "NUM_PROCESSES": "4"},
            "NUM_PROCESSES is 4, but HOSTS is 'a:4,b:4': leave NUM_PROCESSES out",
        ),
        (
            {"LAUNCHER": "torchrun", "HOSTS": "b:4", "NUM_PROCESSES": "1"},
            "NUM_PROCESSES is 1, but HOSTS is 'b:4': leave NUM_PROCESSES out",
        ),
        (
            {"LAUNCHER": "torchrun", "HOSTS": "a:4,b:4", "OUTPUT_DIR": ""},
            "OUTPUT_DIR is not set: the default has the time in it, which differs from host",
        ),
        *(
            ({"NUM_PROCESSES": value}, f"NUM_PROCESSES is '{value}': it must be a whole number, at")
            for value in ("0", "-1", "two", "2.0", " ", "08", "1e3", "9" * 30, "a[0]")
        ),
        ({"MAX_RESTARTS": "often"}, "MAX_RESTARTS is 'often': it must be a whole number, at least"),
        ({"HOSTS": "a:4,x.typo:4"}, "HOSTS is 'a:4,x.typo:4': there is no host x.typo (getent"),
        ({"LAUNCHER": "torchrun", "HOSTS": "x:1"}, "there is no host x ("),
        *(
            ({"HOSTS": value}, f"HOSTS is '{value}': it must look like a:4,b:4 (IPv6: [fe80::1]:4,")
            for value in ("a", ":4", "a:4:4", "fe80::1:4", "[fe80::1]", "[a:4", "a:-1", "a:4;b:4")
        ),
        *(
            ({"LAUNCHER": "torchrun", "HOSTS": "a:4", "PORT": value}, f"PORT is '{value}': it must")
            for value in ("0", "-1", "http", "65536", "99999999999")
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)
def test_what_cannot_be_is_refused(
    variables: dict[str, str], message: str, both: Stubs, tmp_path: Path
) -> None:
    done = train(both, tmp_path, **variables)
    assert done.returncode == 1
    assert message in done.stderr
    assert both.calls() == []


def test_the_launcher_that_is_missing_is_named(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("horovodrun", "python")
    done = train(stubs, tmp_path, LAUNCHER="torchrun")
    assert done.returncode == 1
    assert "torchrun not found: run env/install_pkg.sh, or set NUM_PROCESSES=1" in done.stderr


def test_without_a_launcher_one_process_needs_no_hosts(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("python")
    done = train(stubs, tmp_path, HOSTS="b:1")
    assert done.returncode == 1
    assert "horovodrun not found" in done.stderr
    assert "or set NUM_PROCESSES=1 and leave HOSTS out" in done.stderr
    assert stubs.calls() == []


def test_hosts_may_have_spaces_between_them(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(both, tmp_path, HOSTS=" a:2, b:1 c:1,")
    assert words[:5] == ["horovodrun", "-np", "4", "-H", "a:2,b:1,c:1"]


def test_hosts_may_be_addresses(both: Stubs, tmp_path: Path) -> None:
    words = launcher_words(
        both, tmp_path, LAUNCHER="torchrun", HOSTS="[fe80::1]:2,[fe80::2]:2", PORT="4000"
    )
    assert words[1:-1] == [
        "--nnodes", "2", "--nproc_per_node", "2", *RENDEZVOUS, "[fe80::1]:4000",
    ]  # fmt: skip


def test_a_port_in_use_on_this_machine_is_named(both: Stubs, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        variables = {"LAUNCHER": "torchrun", "HOSTS": "a:1", "PORT": port}
        done = train(both, tmp_path, **variables, ADDRESS="127.0.0.1")
        assert done.returncode == 1
        assert f"PORT is {port}: another program uses it on a; set PORT to another" in done.stderr
        assert both.calls() == []
    words = launcher_words(both, tmp_path, **variables, ADDRESS="127.0.0.1")
    assert words[-2:] == [f"a:{port}", RETRIEVAL]


def test_torchrun_passes_on_what_slurm_warns_by(both: Stubs, tmp_path: Path) -> None:
    assert train(both, tmp_path, LAUNCHER="torchrun").returncode == 0
    (call,) = both.calls()
    assert "SIGUSR1,SIGUSR2" in call.environment["PET_SIGNALS_TO_HANDLE"]

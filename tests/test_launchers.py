"""Hosts that a launcher started find each other by its variables: JAX reads them, and no flag says who is who."""

import random
import socket

import pytest
from programs import TINY, subprocess_of
from test_distributed import finish

FIRST_PORT = 2**16 - 2**12  # JAX takes one of the last 2^12 ports, which the number of the job chooses


def free_port() -> int:
    """One of those that JAX chooses from, and hardly the one that somebody beside us found."""
    for port in random.sample(range(FIRST_PORT, 2**16), 100):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports are taken")


def slurm(port, index):
    """What srun gives each of two tasks on one node."""
    return {
        "SLURM_JOB_ID": str(5 * 2**12 + port - FIRST_PORT),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


def open_mpi(port, index):
    """What mpirun of Open MPI 4 gives each of two processes; jobs are numbered by multiples of 2^12."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{(port - FIRST_PORT) * 2**12}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
    }


LAUNCHERS = {"SLURM": slurm, "Open MPI": open_mpi}
NAMES = {name for launcher in LAUNCHERS.values() for name in launcher(FIRST_PORT, 0)} | {"JAX_COORDINATOR_PORT"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_hosts_of_a_launcher_meet(launcher, tmp_path):
    """Two that had not met would each be the first of a run, and refuse the folder in their own words."""
    (tmp_path / "note.txt").write_text("mine")
    port, children = free_port(), []
    for index in (1, 0):
        variables = dict.fromkeys(NAMES) | LAUNCHERS[launcher](port, index)
        variables["JAX_COORDINATOR_BIND_ADDRESS"] = f"127.0.0.1:{port}"  # by default every network of this machine
        children.append(subprocess_of([*TINY["q_learning"], "--distributed", "--out", tmp_path], **variables))
    (second, _, silent), (first, _, said) = finish(children)
    assert (first, second) == (2, 2), said + silent
    assert "is not empty: choose another folder" in said
    assert silent == ""

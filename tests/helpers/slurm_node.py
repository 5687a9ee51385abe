"""A SLURM cluster of one node on this machine: daemons, ports, keys and files of its own, gone at the end."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be none here, or ""."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    return f"needs {', '.join(absent)} (apt-get install slurm-wlm)" if absent else "" if os.geteuid() == 0 else "needs root"


@contextlib.contextmanager
def node(folder: Path, cores: int = 2):
    """The environment in which the commands of SLURM talk to it."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(), cores=cores))
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": _path()}
    places = [f"--{name}={folder}/munge/{file}" for name, file in
              (("socket", "socket"), ("key-file", "key"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))]  # fmt: skip
    commands = [["munged", "--foreground", "--force", *places], ["slurmctld", "-D"], ["slurmd", "-D"]]
    with contextlib.ExitStack() as running:
        for command in commands:
            daemon = running.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            running.callback(daemon.terminate)
            time.sleep(1)
        until = time.monotonic() + 30
        while b"idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True).stdout:
            assert time.monotonic() < until, (folder / "slurmctld.log").read_text()
            time.sleep(0.2)
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=True)


def _free_ports():
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _path():
    return os.pathsep.join((os.environ["PATH"], "/usr/sbin"))

"""SLURM on this host: a controller and some nodes, as processes that end with the test.

Debian's slurmd lets several nodes of one host be told apart by their names. Nothing is left for a system's services: keys,
ports, states and logs are of one folder. The nodes share the host's cores, and say that they have more than it has.
"""

from __future__ import annotations

import getpass
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support import DYING_WITH_PARENT
from support.programs import SYSTEM_PATH, program
from support.waiting import wait_until

__all__ = ["PACKAGES", "PROGRAMS", "Slurm"]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
PACKAGES = "slurmd slurmctld slurm-client munge"
"""Debian's packages that have them."""
START_S = 60.0
COMMAND_S = 60.0
CPUS = 4
"""Cores that a node says it has."""
CONFIGURATION = """\
ClusterName=tb
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits for as long as a credential lasts, which are two minutes if nothing is said.
AuthInfo=socket={folder}/munge/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# The nodes say that they have more cores and memory than this host.
SlurmdParameters=config_overrides
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Decided at once, lost nodes are known within seconds, and come back by themselves; ended jobs are remembered.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdTimeout=6
KillWait=1
ReturnToService=2
JobRequeue=1
MinJobAge=3600
"""


class Slurm:
    """A running cluster.

    Parameters
    ----------
    folder
        Folder of its own, short, since sockets lie in it.
    nodes
        Names of the nodes.
    """

    def __init__(self, folder: Path, nodes: Sequence[str]) -> None:
        self.folder = folder
        self.nodes = tuple(nodes)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        # Jobs get the environment of who submits them: none of it is of an outer job or launcher.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "TENSORBANK_"))}
        kept["PATH"] = SYSTEM_PATH
        self.environment = {**kept, "SLURM_CONF": str(folder / "slurm.conf")}

    @classmethod
    @contextmanager
    def running(cls, folder: Path, nodes: Sequence[str] = ("n1", "n2", "n3")) -> Iterator[Slurm]:
        """Run a cluster until the block ends."""
        cluster = cls(folder, nodes)
        with ExitStack() as ends:
            ends.callback(cluster.stop)
            cluster.start()
            yield cluster

    def start(self) -> None:
        """Start all daemons, and wait until the nodes are idle."""
        self.folder.chmod(0o755)  # munge refuses a socket that not everybody can reach
        for name in ("munge", "state", "spool", "run", "log", "jobs"):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        ports = _free_ports(1 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        lines = [
            CONFIGURATION.format(host=host, user=getpass.getuser(), folder=self.folder, ports=ports),
            *(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=64000 State=UNKNOWN\n"
                for node, port in zip(self.nodes, ports[1:], strict=True)
            ),
            "PartitionName=main Nodes=ALL Default=YES State=UP\n",
        ]
        (self.folder / "slurm.conf").write_text("".join(lines))
        munge = self.folder / "munge"
        self._start(
            "munged",
            *("--foreground", "--force", f"--key-file={key}", f"--socket={munge}/munge.socket"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        wait_until((munge / "munge.socket").exists, lambda: self.told("munged"), limit_s=START_S)
        self._start("slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.idle_nodes() == set(self.nodes), self._all_told, limit_s=START_S)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def _start(self, daemon: str, *arguments: str, name: str | None = None) -> None:
        name = name or daemon
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [sys.executable, "-c", DYING_WITH_PARENT, program(daemon), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
            )

    def stop(self) -> None:
        """End all jobs and daemons, also of a cluster that has not come up."""
        try:
            if (ctld := self._daemons.get("slurmctld")) is not None and ctld.poll() is None:
                self.run("scancel", "--full", "--state=PENDING", check=False)
                self.run("scancel", "--full", "--signal=KILL", check=False)
        finally:
            for daemon in reversed(self._daemons.values()):
                if daemon.poll() is None:
                    daemon.terminate()
            for daemon in self._daemons.values():
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            _kill(self.processes())

    def processes(self, **variables: str) -> list[int]:
        """Return what runs for this cluster, daemons included, and has these variables in its environment."""
        wanted = {"SLURM_CONF": str(self.folder / "slurm.conf"), **variables}
        marks = [f"{name}={value}".encode() for name, value in wanted.items()]
        return [pid for pid, environment in _environments() if all(mark in environment for mark in marks)]

    def lose_node(self, node: str) -> None:
        """Kill all that runs on a node, at once, as a machine that loses its power."""
        daemon = self._daemons[node]
        daemon.kill()
        daemon.wait()
        running = self.processes(SLURMD_NODENAME=node)
        parents = {_status(pid, "PPid") for pid in running}
        steps = [
            pid for pid in parents if _status(pid, "Name") == "slurmstepd"
        ]  # they would tell of their tasks' end
        _kill([*map(int, steps), *running])

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        limit_s: float = COMMAND_S,
        folder: Path | None = None,
        **variables: str,
    ) -> str:
        """Run one of SLURM's commands, or a program that does, and return what it printed."""
        done = subprocess.run(
            [program(str(command[0])), *map(str, command[1:])],
            capture_output=True,
            text=True,
            timeout=limit_s,
            cwd=folder,
            env={**self.environment, **variables},
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr}\n{done.stdout}"
            )
        return done.stdout

    def submit(self, *options: str | Path, script: Path) -> str:
        """Queue a script, and return the number of its job. What it prints goes to files below ``jobs``."""
        out = self.folder / "jobs"
        said = self.run("sbatch", "--parsable", "--output", out / "%A_%a.out", *options, script)
        return said.strip().partition(";")[0]

    def jobs(self, job: str) -> list[dict[str, str]]:
        """Return what SLURM says of a job, or of the tasks of an array job: a record each, those that have not begun in one."""
        lines = self.run("scontrol", "show", "job", job, "-o").splitlines()
        records = [dict(word.partition("=")[::2] for word in line.split() if "=" in word) for line in lines]
        return sorted(records, key=lambda r: r.get("ArrayTaskId", ""))

    def states(self, job: str) -> list[str]:
        """Return the states of a job, or of the tasks of an array job."""
        return [record["JobState"] for record in self.jobs(job)]

    def wait(self, job: str, *states: str, limit_s: float = 300.0) -> list[dict[str, str]]:
        """Wait until a job, or all tasks of it, are in one of some states."""
        wait_until(
            lambda: set(self.states(job)) <= set(states),
            lambda: f"{self.run('scontrol', 'show', 'job', job)}\n{self.output()}\n{self._all_told()}",
            limit_s=limit_s,
        )
        return self.jobs(job)

    def nodes_of(self, job: str) -> list[str]:
        """Return the nodes that a job runs on, or has run on at last."""
        return self.run("scontrol", "show", "hostnames", self.jobs(job)[0]["NodeList"]).split()

    def idle_nodes(self) -> set[str]:
        """Return the nodes that are there and have nothing to do."""
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %t", check=False).splitlines()
        return {name for name, state in map(str.split, lines) if state == "idle"}

    def output(self) -> str:
        """Return the ends of what jobs have printed."""
        return "\n".join(f"{p.name}: {p.read_text()[-3000:]}" for p in sorted(self.folder.glob("jobs/*")))

    def output_of(self, job: str) -> str:
        """Return what a job without tasks has printed."""
        return (self.folder / "jobs" / f"{job}_4294967294.out").read_text()

    def told(self, name: str) -> str:
        """Return the end of what a daemon has printed."""
        return f"{name}: {(self.folder / 'log' / f'{name}.out').read_text()[-1500:]}"

    def _all_told(self) -> str:
        return "\n".join(map(self.told, self._daemons))


def _free_ports(n: int) -> list[int]:
    with ExitStack() as ends:
        sockets = [ends.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _environments() -> Iterator[tuple[int, frozenset[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                yield int(entry.name), frozenset((entry / "environ").read_bytes().split(b"\0"))
            except OSError:  # gone meanwhile, or another user's
                continue


def _status(pid: int | str, field: str) -> str:
    """Return a field of the status of a process; empty if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "")


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue

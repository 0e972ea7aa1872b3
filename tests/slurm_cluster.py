"""A real Slurm for the tests: munged, slurmctld and one slurmd on loopback, in a folder of their own.

The daemons run below a supervisor (this file as a program), which ends them, every job they started and the
folder when it is told to or when the tests die. It is a subreaper: what slurmd detaches stays below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
N_CPUS = 4
REQUEUE_DELAY_S = 6  # cred_expire + 1: until then the node refuses a requeued job
PR_SET_CHILD_SUBREAPER = 36

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=2
SlurmdTimeout=5
InactiveLimit=0
# As many processors and as much memory as the jobs of the tests ask for, whatever the machine has.
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory=1000000
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(RuntimeError):
    """Slurm is installed and does not do what it should."""


def missing_programs() -> list[str]:
    """The programs of Debian's `slurm-wlm` and `munge` that are not installed."""
    return [name for name in (*DAEMONS, *CLIENTS) if _program(name) is None]


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))


def _without_slurm(environment: dict[str, str]) -> dict[str, str]:
    """The environment without the variables of a Slurm job in which the tests may run."""
    prefixes = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_", "SCONTROL_")
    return {name: value for name, value in environment.items() if not name.startswith(prefixes)}


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass
class SlurmCluster:
    """A running cluster of one node, `node1`, with one partition, `main`, and without accounting.

    `environment` is what a process needs to reach it: set these variables (and no other of Slurm's).
    """

    folder: Path
    environment: dict[str, str]
    _supervisor: subprocess.Popen[str] = field(repr=False)

    def run(self, *command: str, script: str | None = None) -> str:
        """What a client of Slurm prints; SlurmError where it fails."""
        done = subprocess.run(
            command,
            input="" if script is None else script,
            capture_output=True,
            text=True,
            timeout=60,
            env=_without_slurm(dict(os.environ)) | self.environment,
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self, script: str, output: Path, *options: str) -> str:
        """The id of a batch job: `script` in bash, in the folder of `output`, to which it prints."""
        files = (f"--output={output}", "--open-mode=append", f"--chdir={output.parent}")
        return self.run("sbatch", "--parsable", *files, *options, script=f"#!/bin/bash\n{script}\n")

    def job(self, job: str, name: str) -> str:
        """One field of `scontrol show job`, such as JobState, Restarts, Reason or ExitCode.

        A node that has just come back may refuse its first job, which Slurm then holds until somebody
        releases it: that is done here.
        """
        record = self.run("scontrol", "--oneliner", "show", "job", job)
        if _value(record, "Reason") == "launch_failed_requeued_held":
            self.run("scontrol", "release", job)
        return _value(record, name)

    def state(self, job: str) -> str:
        """The job's state, such as PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, TIMEOUT or CANCELLED."""
        return self.job(job, "JobState")

    def wait(self, job: str, *states: str, timeout_s: float = 30) -> str:
        """The first of `states` that the job is seen in; without any, the first in which it has ended."""
        running = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"}

        def arrived() -> bool:
            state = self.state(job)
            return state in states if states else state not in running

        if not wait_until(arrived, timeout_s):
            reason = self.job(job, "Reason")
            raise SlurmError(f"job {job} is {self.state(job)} ({reason}) after {timeout_s} s")
        return self.state(job)

    def queue(self) -> list[tuple[str, str, str]]:
        """(id, state, reason) of every job that has not ended, each task of an array on its own."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%r").splitlines()
        return [(job, state, reason) for job, state, reason in (line.split("|") for line in lines)]

    def cancel(self, *options: str) -> None:
        """`scancel`: a job's id, and before it perhaps --signal=USR1, --batch or --full."""
        self.run("scancel", *options)

    def requeue(self, job: str) -> None:
        """`scontrol requeue`: the job ends and starts again, REQUEUE_DELAY_S later at the earliest."""
        self.run("scontrol", "requeue", job)

    def node_state(self) -> str:
        """The node's state, such as idle, mixed or down; a star at the end while slurmd does not answer."""
        return self.run("sinfo", "--noheader", "--format=%T")

    def kill_slurmd(self) -> None:
        """SIGKILL to slurmd alone: the jobs and their slurmstepd go on."""
        self._tell("kill slurmd")

    def kill_node(self) -> None:
        """SIGKILL to slurmd and to everything that jobs started, as if the node had lost its power.

        The controller is told, as it would take 25 s to notice; it puts the jobs back in the queue.
        """
        self._tell("kill node")
        self.run("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=killed")

    def start_slurmd(self) -> None:
        """Start slurmd, where it is not running, and wait until the controller has heard of it."""
        if "slurmd" in self._tell("list"):
            return
        started = int(time.time())
        self._tell("start slurmd")

        def registered() -> bool:
            node = self.run("env", "SLURM_TIME_FORMAT=%s", "scontrol", "--oneliner", "show", "node", "node1")
            start = _value(node, "SlurmdStartTime")
            return start.isdigit() and int(start) >= started and not self.node_state().endswith(("*", "down"))

        if not wait_until(registered, 30):
            raise SlurmError(f"slurmd did not come back\n{self.logs()}")

    def clear(self) -> None:
        """Bring slurmd back, cancel every job and wait until the node is idle."""
        self.start_slurmd()
        for job in {job.split("_")[0] for job, _, _ in self.queue()}:
            self.cancel(job)
        if not wait_until(lambda: not self.queue() and self.node_state() == "idle", 30):
            raise SlurmError(f"jobs do not end: {self.queue()}, node {self.node_state()}\n{self.logs()}")

    def logs(self, n_lines: int = 30) -> str:
        """The last lines of what the daemons wrote."""
        parts = []
        for path in sorted(self.folder.glob("*.out")):
            lines = path.read_text(errors="replace").splitlines()[-n_lines:]
            parts.append("\n".join([f"{path.name}:", *lines]))
        return "\n".join(parts)

    def _tell(self, command: str) -> list[str]:
        """Ask the supervisor for something; the daemons that run afterward."""
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._supervisor.stdin.write(f"{command}\n")
        self._supervisor.stdin.flush()
        answer = self._supervisor.stdout.readline()
        if not answer:
            raise SlurmError(
                f"the supervisor ended, asked to {command}: exit status {self._supervisor.wait()}"
            )
        running: list[str] = json.loads(answer)
        return running

    def _start(self) -> None:
        def up(daemon: str, sign: Callable[[], bool]) -> None:
            self._tell(f"start {daemon}")
            if not wait_until(lambda: daemon not in self._tell("list") or sign(), 30) or not sign():
                raise SlurmError(f"{daemon} does not start\n{self.logs()}")

        up("munged", (self.folder / "munge.socket").is_socket)
        up("slurmctld", lambda: "is UP" in self._attempt("scontrol", "ping"))
        up("slurmd", lambda: self._attempt("sinfo", "--noheader", "--format=%T") == "idle")

    def _attempt(self, *command: str) -> str:
        try:
            return self.run(*command)
        except SlurmError:
            return ""


def _value(record: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S*)", record)
    if found is None:
        raise SlurmError(f"no {name} in: {record}")
    return found.group(1)


@contextlib.contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster that lives as long as the context, up in a second or two.

    Raises:
        SlurmError: a daemon does not start; the message has the ends of the logs.
    """
    # Not below TMPDIR: paths of sockets must stay under 108 characters. 711, as munged demands.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o711)
    supervisor = subprocess.Popen(
        [sys.executable, "-I", __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which then end the cluster
        env=_without_slurm(dict(os.environ)) | {"SLURM_CONF": str(folder / "slurm.conf")},
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    try:
        _configure(folder)
        cluster = SlurmCluster(folder, {"SLURM_CONF": str(folder / "slurm.conf")}, supervisor)
        cluster._start()
        yield cluster
    finally:
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.write("end\n")
            supervisor.stdin.close()
        supervisor.stdout.close()
        supervisor.wait(timeout=30)


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    with socket.socket() as a, socket.socket() as b:
        for each in (a, b):
            each.bind(("127.0.0.1", 0))
        ports = {"slurmctld_port": a.getsockname()[1], "slurmd_port": b.getsockname()[1]}
    user = pwd.getpwuid(os.getuid()).pw_name
    text = CONFIGURATION.format(folder=folder, user=user, n_cpus=N_CPUS, **ports)
    (folder / "slurm.conf").write_text(text)


def _supervise(folder: Path) -> None:
    """Start and kill daemons as standard input says, and everything and the folder when it ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for line in sys.stdin:
            verb, _, name = line.strip().partition(" ")
            if verb == "end":
                break
            if verb == "start":
                daemons[name] = _start_daemon(name, folder)
            elif verb == "kill":
                daemons["slurmd"].kill()
                daemons["slurmd"].wait()
            if name == "node":
                _kill_descendants([daemons[other].pid for other in ("munged", "slurmctld")])
            print(json.dumps([each for each in daemons if daemons[each].poll() is None]), flush=True)
    finally:
        _kill_descendants([])
        shutil.rmtree(folder, ignore_errors=True)


def _start_daemon(name: str, folder: Path) -> subprocess.Popen[bytes]:
    options = {
        "munged": [
            "--foreground",
            "--origin=127.0.0.1",
            f"--socket={folder}/munge.socket",
            f"--key-file={folder}/munge.key",
            f"--log-file={folder}/munged.log",
            f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed",
        ],
        "slurmctld": ["-D"],
        "slurmd": ["-D", "-N", "node1"],
    }
    program = _program(name)
    assert program is not None
    with (folder / f"{name}.out").open("ab") as output:
        return subprocess.Popen(
            [program, *options[name]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
        )


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_descendants(spared: list[int]) -> None:
    """SIGKILL to every process below this one, but not to the spared ones and those below them."""

    def done() -> bool:
        found = _descendants(os.getpid(), spared)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait_until(done, 10)


def _descendants(root: int, spared: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += [child for child in children.get(pid, []) if child not in spared]
    return found[1:]


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]))

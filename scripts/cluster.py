#!/usr/bin/env python3
"""A standalone Spark cluster on loopback: master and workers that share only `shared/` with the driver.

    scripts/cluster.py up --dir D      start, print the master's URL (anything else goes to stderr)
    scripts/cluster.py down --dir D    stop all of it; also after a start that failed half-way

What is in D: `shared/` the storage both sides see (lake, landing, output), `driver/` scratch for the driver,
`env/` the workers' own Python environment, `master-url`, `worker-python`, `pids/`, `logs/`, `workers/`.

On a real cluster a path of the driver means nothing to a worker; on one machine it quietly works. So the
workers run from an environment of their own and, where the kernel lets us make a mount namespace, see an
empty folder in place of the checkout and of `driver/`: a path that leaks fails here too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60
STOP_SECONDS = 15
CLASS = "org.apache.spark.deploy"


class ClusterError(Exception):
    """What did not start, and what its log says."""


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


# --- the workers' environment ------------------------------------------------------------------


def prepare_environment(folder: Path) -> Path:
    """The locked runtime, unpacked at `folder` with the driver's JARs; returns its SPARK_HOME."""
    driver_python, uv = ROOT / ".venv/bin/python", ROOT / ".tools/uv/bin/uv"
    lock = ROOT / "lock" / "runtime.txt"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != lock.read_text():
        say(f"workers' environment in {folder}")
        base = capture([driver_python, "-c", "import sys; print(sys._base_executable)"])
        capture([uv, "venv", "--quiet", "--clear", "--python", base, folder])
        install = ["--quiet", "--python", folder / "bin/python", "--require-hashes", lock]
        try:  # the set-up has filled uv's cache: no network is needed
            capture([uv, "pip", "sync", "--offline", *install])
        except ClusterError:
            capture([uv, "pip", "sync", *install])
        ready.write_text(lock.read_text())
    home = spark_home(folder / "bin/python")
    for jar in (spark_home(driver_python) / "jars").glob("*.jar"):  # Delta's, and PostgreSQL's driver
        if not (home / "jars" / jar.name).exists():
            link_or_copy(jar, home / "jars" / jar.name)
    return home


def link_or_copy(source: Path, target: Path) -> None:
    """As uv places the other JARs: one file in two folders, for which Java keeps one archive of classes."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy(source, target)


def spark_home(python: Path) -> Path:
    return Path(capture([python, "-c", "import pyspark; print(pyspark.__path__[0])"]))


def capture(command: list[object]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise ClusterError(f"{' '.join(words)} failed:\n{done.stderr.strip()[-1500:]}")
    return done.stdout.strip()


# --- hiding the driver's folders ---------------------------------------------------------------

# "$1" is how many folders to cover; then the folders; then the command that must not see them.
COVER = """
n=$1; shift
while [ "$n" -gt 0 ]; do mount -t tmpfs -o ro,size=4k hidden "$1"; shift; n=$((n-1)); done
exec "$@"
"""


def hidden_from(command: list[str], folders: list[Path]) -> list[str]:
    """The command in a mount namespace of its own, each of the folders replaced by an empty one."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    return [*unshare, "sh", "-ec", COVER, "cover", str(len(folders)), *map(str, folders), *command]


def can_hide() -> bool:
    with tempfile.TemporaryDirectory() as probe:
        (Path(probe) / "seen").touch()
        command = hidden_from(["sh", "-c", f"! test -e {probe}/seen"], [Path(probe)])
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


# --- starting ----------------------------------------------------------------------------------


def daemon_environment(home: Path, scratch: Path) -> dict[str, str]:
    """A fresh environment: nothing of the driver's Python or Spark reaches a worker through it."""
    kept = ("PATH", "HOME", "LANG", "JAVA_HOME", "JAVA_TOOL_OPTIONS", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    for name in ("tmp", "local"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    return env | {
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(scratch / "none"),  # no folder: one on the class path shuts out Java's archives
        "SPARK_LOCAL_DIRS": str(scratch / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "TMPDIR": str(scratch / "tmp"),
        "PYSPARK_PYTHON": str(home.parents[3] / "bin/python"),
    }


@dataclass(frozen=True)
class Site:
    """Where the cluster lives, which Spark it runs, and what its workers must not see."""

    folder: Path
    home: Path
    hide: list[Path]


@dataclass(frozen=True)
class Daemon:
    """A started master or worker."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, pattern: str) -> str:
        """The first group of the pattern, as soon as the log holds it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found:
                return found[1]
            time.sleep(0.1)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterError(f"{self.name} did not start (given {START_SECONDS} s). Its log ends:\n{tail}")


def start(site: Site, name: str, *arguments: str) -> Daemon:
    """Start one daemon of the cluster; its process id is noted before anything can go wrong with it."""
    kind, options = ("master.Master", "MASTER") if name == "master" else ("worker.Worker", "WORKER")
    log, scratch = site.folder / "logs" / f"{name}.log", site.folder / "workers" / name
    env = daemon_environment(site.home, scratch) | {f"SPARK_{options}_OPTS": mark_of(site.folder)}
    # Port 0: the daemon takes a free one and says which in its log; nobody can take it in between.
    command = [str(site.home / "bin/spark-class"), f"{CLASS}.{kind}", "--host", "127.0.0.1", "--port", "0"]
    command += ["--webui-port", "0", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            hidden_from(command, site.hide) if site.hide else command,
            env=env,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its process group is the daemon with its executors
        )
    (site.folder / "pids" / f"{name}.pid").write_text(str(process.pid))
    return Daemon(name, process, log)


def up(folder: Path, *, workers: int, cores: int, memory: str, visible: bool) -> str:
    """Start the cluster in `folder` and return its URL; what was started is stopped again on failure."""
    if folder == ROOT or ROOT in folder.parents:
        raise ClusterError(f"{folder} lies inside the checkout, which workers must not see; choose another")
    down(folder)
    for name in ("pids", "logs", "workers", "shared", "driver"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    hide = [] if visible or not can_hide() else [ROOT, folder / "driver"]
    say("the checkout is hidden from the workers" if hide else "the checkout stays visible to the workers")
    try:
        site = Site(folder, prepare_environment(folder / "env"), hide)
        url = start(site, "master").wait_for(r"Starting Spark master at (spark://\S+)")
        sizes = ("--cores", str(cores), "--memory", memory)
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        started = [
            start(site, name, *sizes, "--work-dir", str(folder / "workers" / name / "apps"), url)
            for name in names
        ]
        for worker in started:
            worker.wait_for(r"Successfully registered with master (\S+)")
    except BaseException:
        down(folder)
        raise
    (folder / "worker-python").write_text(str(folder / "env/bin/python"))
    (folder / "master-url").write_text(url)
    say(f"{workers} workers with {cores} core and {memory} each at {url}")
    return url


# --- stopping ----------------------------------------------------------------------------------


def mark_of(folder: Path) -> str:
    """What a daemon of the cluster in `folder` carries in its command line."""
    return f"-Drecsys.cluster={folder}"


def command_of(pid: int) -> str:
    """The command line of a process; empty where there is none any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    done = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def down(folder: Path) -> None:
    """Stop what `up` started here, workers first; a pid that now belongs to another program is left alone."""
    pids = sorted((folder / "pids").glob("*.pid"), reverse=True)
    for path in pids:
        pid = int(path.read_text() or 0)
        ours = mark_of(folder)
        deadline = time.monotonic() + STOP_SECONDS
        if ours in command_of(pid):
            signal_group(pid, signal.SIGTERM)
        while ours in command_of(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if ours in command_of(pid):
            signal_group(pid, signal.SIGKILL)
        path.unlink()
    (folder / "master-url").unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="per worker")
    parser.add_argument("--memory", default="1536m", help="per worker, for its executors' heaps")
    parser.add_argument("--visible", action="store_true", help="do not hide the checkout from the workers")
    given = parser.parse_args()
    folder = given.dir.resolve()
    try:
        if given.action == "down":
            down(folder)
        else:
            sizes = {"workers": given.workers, "cores": given.cores, "memory": given.memory}
            print(up(folder, **sizes, visible=given.visible))
    except ClusterError as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

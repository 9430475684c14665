"""Prepare an environment of the project: `python3 scripts/setup.py spark|airflow|docs`.

Runs on the standard library of any Python 3.8+, and may run any number of times: what is in place
is left alone. Called by the Makefile, which skips it while nothing it depends on has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools"
UV = TOOLS / "uv" / "bin" / "uv"
PYTHONS = ((3, 11), (3, 12), (3, 13))
JAVAS = range(17, 22)
JARS = {
    "delta-spark_4.1_2.13-4.4.0.jar": "io.delta:delta-spark_4.1_2.13:4.4.0",
    "delta-storage-4.4.0.jar": "io.delta:delta-storage:4.4.0",
    "postgresql-42.7.7.jar": "org.postgresql:postgresql:42.7.7",
}
# Everything the JARs' poms ask for beside them is in Spark already, or serves what we do not use;
# fetched in full it is 33 files. The patterns must not match the JARs themselves.
NOT_NEEDED = (
    "org.a*:*,org.c*:*,org.s*:*,com.*:*,javax.*:*,jakarta.*:*,"
    "io.unitycatalog:*,io.delta:delta-kernel*,*:antlr*"
)


class SetupError(Exception):
    """What is wrong and what to type, in words for the person at the keyboard."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line per step: its name before, its seconds after."""
    print(f"  {what} …", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def run(command: Sequence[object], problem: str, env: dict[str, str] | None = None) -> str:
    """Output of the command, kept quiet; if it fails, `problem` and its last lines."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    output = (done.stdout + done.stderr).strip()
    if done.returncode:
        tail = "\n    ".join(output.splitlines()[-12:])
        raise SetupError(f"{problem}\n    {tail}")
    return output


def answer_of(command: Sequence[object]) -> str | None:
    """What the command prints, or None where it does not exist or fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None


def apt_install(*packages: str) -> bool:
    """Install system packages where that is allowed: as root, with apt-get."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"apt-get install {' '.join(packages)}"):
        subprocess.run(["apt-get", "update"], env=env, capture_output=True, check=False)
        install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        return subprocess.run(install, env=env, capture_output=True, check=False).returncode == 0


# --- Python ------------------------------------------------------------------------------------


def version_of(python: object) -> str | None:
    return answer_of([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])


def find_python() -> str:
    """An interpreter that every locked package supports; the one that runs this script if it will do."""
    supported = ["{}.{}".format(*version) for version in PYTHONS]
    for name in (sys.executable, *(f"python{version}" for version in reversed(supported))):
        if version_of(name) in supported:
            return name
    raise SetupError(
        f"Python {supported[0]} to {supported[-1]} is needed; python3 here is {version_of('python3')}.\n"
        "  On Debian or Ubuntu: sudo apt-get install python3.12 python3.12-venv\n"
        "  On macOS: brew install python@3.12"
    )


def bootstrap_uv(python: str) -> None:
    """The pinned installer in .tools, from PyPI by whatever pip this Python offers."""
    lock = ROOT / "lock" / "bootstrap.txt"
    wanted = re.search(r"^uv==(\S+)", lock.read_text(), re.MULTILINE)
    if wanted and f"uv {wanted[1]}" in (answer_of([UV, "--version"]) or ""):
        return
    with step("installer (uv, pinned by hash)"):
        pip = find_pip(python)
        shutil.rmtree(UV.parents[1], ignore_errors=True)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        run(
            [*pip, "install", *options, "--target", UV.parents[1], "-r", lock],
            "The installer could not be fetched from PyPI; is the network (or PIP_INDEX_URL) right?",
        )


def find_pip(python: str) -> list[str]:
    """How to call pip: the interpreter's own, or one in a throw-away environment."""
    if answer_of([python, "-m", "pip", "--version"]):
        return [python, "-m", "pip"]
    boot = TOOLS / "pip"
    if answer_of([python, "-m", "venv", "--clear", boot]) is None:
        version = version_of(python)
        apt_install(f"python{version}-venv") or apt_install("python3-venv")
        run(
            [python, "-m", "venv", "--clear", boot],
            f"{python} has neither pip nor venv: sudo apt-get install python{version}-venv",
        )
    return [str(boot / "bin" / "python"), "-m", "pip"]


def make_environment(folder: Path, python: str) -> Path:
    """The environment's interpreter; one that is broken, moved or of another Python is made anew."""
    own = folder / "bin" / "python"
    supported = ["{}.{}".format(*version) for version in PYTHONS]
    prefix = answer_of([own, "-c", "import sys; print(sys.prefix)"])
    if prefix != str(folder) or version_of(own) not in supported:
        with step(f"{folder.name} with Python {version_of(python)}"):
            # Without pip: uv installs into it, and Debian's Python often lacks ensurepip.
            run([python, "-m", "venv", "--clear", "--without-pip", folder], f"{python} -m venv failed:")
    return own


def sync(python: Path, lock: str) -> None:
    """Exactly the locked packages, checked by hash, and no others."""
    with step(f"python packages of {lock}"):
        command = [UV, "pip", "sync", "--python", python, "--require-hashes", ROOT / lock]
        run(command, f"{lock} could not be installed:")


# --- Java --------------------------------------------------------------------------------------


def java_major(java: object) -> int | None:
    """17 for an OpenJDK 17; None where there is none, or none with the module Spark starts with."""
    found = re.search(r'version "(\d+)', answer_of([java, "-version"]) or "")
    modules = answer_of([java, "--list-modules"]) or ""
    return int(found[1]) if found and "jdk.incubator.vector" in modules else None


def find_java() -> Path | None:
    """The first Java from 17 to 21: JAVA_HOME's, the path's, then those that packages install."""
    on_path = shutil.which("java")
    places = [Path(os.environ["JAVA_HOME"]) / "bin" / "java"] if os.environ.get("JAVA_HOME") else []
    places += [Path(on_path)] if on_path else []
    for root in ("/usr/lib/jvm", "/Library/Java/JavaVirtualMachines", "/opt/homebrew/opt"):
        places += sorted(Path(root).glob("*/bin/java")) + sorted(Path(root).glob("*/Contents/Home/bin/java"))
    return next((java for java in places if java_major(java) in JAVAS), None)


def ensure_java() -> None:
    """Find Java or install it; note its home for the Makefile when Spark would not find it alone."""
    java = find_java()
    if java is None and (apt_install("openjdk-17-jre-headless") or apt_install("openjdk-21-jre-headless")):
        java = find_java()
    if java is None:
        raise SetupError(
            "Java 17 or 21 is needed and was not found.\n"
            "  On Debian or Ubuntu: sudo apt-get install openjdk-17-jre-headless\n"
            "  On macOS: brew install openjdk@17"
        )
    usual = (
        Path(os.environ["JAVA_HOME"]) / "bin" / "java"
        if os.environ.get("JAVA_HOME")
        else shutil.which("java")
    )
    note, home = TOOLS / "java_home", java.resolve().parents[1]
    note.unlink() if note.exists() else None
    if str(java) != str(usual):
        note.write_text(str(home))
        print(f"  using the Java in {home}; outside make: export JAVA_HOME={home}")


# --- Delta's JARs ------------------------------------------------------------------------------


def jars_folder(python: Path) -> Path:
    found = run([python, "-c", "import pyspark; print(pyspark.__path__[0])"], "pyspark is not installed:")
    return Path(found.splitlines()[-1]) / "jars"


def expected_hashes() -> dict[str, str]:
    lines = (ROOT / "lock" / "jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def is_in_place(jar: Path, digest: str) -> bool:
    return jar.is_file() and hashlib.sha256(jar.read_bytes()).hexdigest() == digest


def install_jars(python: Path) -> None:
    """Delta's and PostgreSQL's JARs where this environment's Spark finds them: no session resolves again."""
    folder, expected = jars_folder(python), expected_hashes()
    if all(is_in_place(folder / name, digest) for name, digest in expected.items()):
        return
    with step("Delta's and PostgreSQL's JARs, by Spark's resolver"), tempfile.TemporaryDirectory() as scratch:
        fetch_jars(python, Path(scratch))
        for name, digest in expected.items():
            group = JARS[name].split(":")[0]
            fetched = Path(scratch) / "ivy" / "jars" / f"{group}_{name}"
            if not is_in_place(fetched, digest):
                raise SetupError(
                    f"{name} is missing or not the file of lock/jars.sha256; nothing was installed."
                )
        for name in expected:
            fetched = Path(scratch) / "ivy" / "jars" / f"{JARS[name].split(':')[0]}_{name}"
            shutil.copyfile(str(fetched), str(folder / name))


def fetch_jars(python: Path, scratch: Path) -> None:
    """Let spark-submit resolve the coordinates into `scratch/ivy`, running an empty application."""
    (scratch / "nothing.py").touch()
    env = {**os.environ, "PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python)}
    env.update(SPARK_LOCAL_IP="127.0.0.1", SPARK_SUBMIT_OPTS=proxy_options())
    for name in ("SPARK_HOME", "SPARK_CONF_DIR", "PYTHONPATH"):
        env.pop(name, None)
    run(
        [
            *(
                python.parent / "spark-submit",
                "--master",
                "local[1]",
                "--conf",
                f"spark.jars.ivy={scratch}/ivy",
            ),
            *(
                "--packages",
                ",".join(JARS.values()),
                "--exclude-packages",
                NOT_NEEDED,
                scratch / "nothing.py",
            ),
        ],
        f"the JARs ({', '.join(JARS.values())}) could not be fetched. Behind a proxy set https_proxy; "
        f"or put these files into {jars_folder(python)} by hand and run this again. Spark's resolver said:",
        env,
    )


def proxy_options() -> str:
    """Java reads no proxy variables; hand it the one that pip and uv use."""
    given = os.environ.get("SPARK_SUBMIT_OPTS", "")
    proxy = urlsplit(os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY") or "")
    if not proxy.hostname or "proxyHost" in given:
        return given
    return f"{given} -Dhttps.proxyHost={proxy.hostname} -Dhttps.proxyPort={proxy.port or 80}".strip()


# --- the environments ----------------------------------------------------------------------


def prepare_spark(python: str) -> Path:
    ensure_java()
    own = make_environment(ROOT / ".venv", python)
    sync(own, "lock/spark.txt")
    with step("the project itself, editable"):
        options = ["--no-deps", "--build-constraints", "lock/spark.txt", "--editable", ROOT]
        run([UV, "pip", "install", "--python", own, *options], "The project could not be installed:")
    install_jars(own)
    return own


def prepare_airflow(python: str) -> Path:
    own = make_environment(ROOT / ".venv-airflow", python)
    sync(own, "lock/airflow.txt")
    return own


def prepare_docs(python: str) -> Path:
    own = make_environment(ROOT / ".venv-docs", python)
    sync(own, "lock/docs.txt")
    return own


PREPARE = {"spark": prepare_spark, "airflow": prepare_airflow, "docs": prepare_docs}


def main() -> int:
    which = sys.argv[1] if len(sys.argv) > 1 else "spark"
    print(f"Setting up the {which} environment (once; a few minutes when nothing is cached)", flush=True)
    TOOLS.mkdir(exist_ok=True)
    try:
        python = find_python()
        bootstrap_uv(python)
        own = PREPARE[which](python)
    except SetupError as problem:
        print(f"\nset-up stopped: {problem}", file=sys.stderr)
        return 2
    # Says where it was made: an environment does not survive a move of its folder.
    (own.parents[1] / ".ready").write_text(str(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

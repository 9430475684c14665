"""implicit, in an environment of its own (.tools/peers): made on first use, versions pinned in peers.txt.

peers.py recommend FOLDER CORES    implicit's `recommend` with the seen filter, the best of three, on
                                   FOLDER's users.npy, items.npy and seen.npy
peers.py fit FOLDER CORES          an iteration of implicit's conjugate gradient, the median of four, on
                                   confidence.npz, of the rank in rank.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".tools" / "peers" / "bin" / "python"


def peer_seconds(what: str, folder: Path, cores: int) -> float | None:
    """Their time on what is in `folder`; None, with a sentence, where the package cannot be had."""
    uv, pins = ROOT / ".tools/uv/bin/uv", ROOT / "benchmarks" / "peers.txt"
    home = PYTHON.parents[1]
    ready = home / ".ready"
    try:
        if not ready.exists() or ready.read_text() != pins.read_text():
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
            fill = [uv, "pip", "install", "--quiet", "--python", PYTHON, "--only-binary", ":all:", "-r", pins]
            subprocess.run(fill, check=True)
            ready.write_text(pins.read_text())
        threads = {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **threads}
        command = [PYTHON, __file__, what, folder, str(cores)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        told = (getattr(error, "stderr", None) or "").strip().splitlines()[-1:]
        print(f"  {what}: implicit could not be had or run: {error} {' '.join(told)}")
        return None
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def recommend(folder: Path, _: int) -> float:
    import numpy as np  # noqa: PLC0415  # of the other environment
    from implicit.als import AlternatingLeastSquares  # noqa: PLC0415
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    users, items, seen = (np.load(folder / f"{name}.npy") for name in ("users", "items", "seen"))
    model = AlternatingLeastSquares(factors=users.shape[1])
    model.user_factors, model.item_factors = users, items
    indptr = np.arange(0, seen.size + 1, seen.shape[1])
    liked = csr_matrix((np.ones(seen.size, np.float32), seen.ravel(), indptr), (len(users), len(items)))
    model.recommend(np.arange(256), liked[:256], N=10)
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        model.recommend(np.arange(len(users)), liked, N=10, filter_already_liked_items=True)
        spent.append(time.perf_counter() - start)
    return min(spent)


def fit(folder: Path, cores: int) -> float:
    from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415
    from scipy.sparse import load_npz  # noqa: PLC0415

    rank = json.loads((folder / "rank.json").read_text())
    model = AlternatingLeastSquares(
        factors=rank, regularization=0.05, iterations=4, num_threads=cores, use_cg=True
    )
    spent: list[float] = []
    model.fit(
        load_npz(folder / "confidence.npz"), show_progress=False, callback=lambda *at: spent.append(at[1])
    )
    return statistics.median(spent)


def main() -> None:
    what, folder, cores = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    work = {"recommend": recommend, "fit": fit}[what]
    print(json.dumps({"seconds": work(folder, cores)}))


if __name__ == "__main__":
    main()

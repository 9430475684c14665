"""implicit, in an environment of its own (.tools/peers): made on first use, versions pinned in peers.txt.

`peers.py FOLDER` times its `recommend` with the seen filter, the best of three, on FOLDER's users.npy,
items.npy and seen.npy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".tools" / "peers" / "bin" / "python"


def implicit_seconds(folder: Path, cores: int) -> float | None:
    """Their time on the arrays in `folder`; None, with a sentence, where the package cannot be had."""
    uv, pins = ROOT / ".tools/uv/bin/uv", ROOT / "benchmarks" / "peers.txt"
    ready = PYTHON.parents[1] / ".ready"
    try:
        if not ready.exists() or ready.read_text() != pins.read_text():
            make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, ready.parent]
            subprocess.run(make, check=True)
            fill = [uv, "pip", "install", "--quiet", "--python", PYTHON, "--only-binary", ":all:", "-r", pins]
            subprocess.run(fill, check=True)
            ready.write_text(pins.read_text())
        environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run([PYTHON, __file__, folder], check=True, capture_output=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  implicit could not be had or run: {error}")
        return None
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    import numpy as np  # noqa: PLC0415  # of the other environment
    from implicit.als import AlternatingLeastSquares  # noqa: PLC0415
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    folder = Path(sys.argv[1])
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
    print(json.dumps({"seconds": min(spent)}))


if __name__ == "__main__":
    main()

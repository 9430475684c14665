"""The README's pictures of the demo's report and of a mail, as a phone shows them, by headless Chromium.

Made where Chromium and the demo's output are, and where the picture is older than what it shows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
OUTPUT = Path(os.environ.get("RECSYS_OUTPUT") or ROOT / "data" / "output")
NIGHT = OUTPUT / "2017-12-03"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MAX_BYTES = 200_000
PHONE = "390,844"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def shoot(browser: str, page: Path, picture: Path) -> None:
    """The page's first screen, as sharp as fits into MAX_BYTES."""
    for scale in (2, 1.5, 1.25, 1):
        with tempfile.TemporaryDirectory() as profile:
            options = (
                f"--user-data-dir={profile}",
                f"--force-device-scale-factor={scale}",
                f"--window-size={PHONE}",
                f"--screenshot={picture}",
            )
            command = [browser, *FLAGS, *options, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        if picture.stat().st_size <= MAX_BYTES:
            print(f"made docs/pictures/{picture.name} ({picture.stat().st_size // 1000} kB)")
            return
    sys.exit(f"docs/pictures/{picture.name} is larger than {MAX_BYTES // 1000} kB at any sharpness")


def main() -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    mails = sorted((NIGHT / "mails" / "weekly_staples").glob("*.html"))
    if browser is None or not mails:
        missing = "Chromium" if browser is None else f"the demo's output in {OUTPUT}"
        print(f"the pictures of report and mail stay as they are: {missing} is not here")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in (("report.png", NIGHT / "report.html"), ("mail.png", mails[0])):
        picture = FOLDER / name
        if not picture.exists() or picture.stat().st_mtime < page.stat().st_mtime:
            shoot(browser, page, picture)


if __name__ == "__main__":
    main()

"""Pages of the documentation, run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

LEARN = Path(__file__).parents[2] / "docs" / "learn"


def run_page(name: str, folder: Path) -> list[str]:
    """Run the blocks of a page in a folder, one after another in one shell, and return what each one printed."""
    blocks = re.findall(
        r"^```bash\n(.*?)^```$", (LEARN / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    # An answer without a newline at its end must not hide the next mark.
    script = "set -eu\n" + "\n".join(f"echo; echo '== {number}'\n{block}" for number, block in enumerate(blocks))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)[1:]

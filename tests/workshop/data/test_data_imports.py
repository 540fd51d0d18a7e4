"""What the data room imports, and when."""

import subprocess
import sys

import pytest

LIGHT = ("settings", "locations", "rows", "formats", "readers", "sources", "duplicates", "decontamination", "mix")
HEAVY = ("pyarrow", "huggingface_hub", "torch", "datasets")


@pytest.mark.parametrize("modules", [LIGHT, ("manifest", "downloads")])
def test_recipes_are_read_without_heavy_libraries(modules: tuple[str, ...]) -> None:
    names = ", ".join(f"commonweight.workshop.data.{name}" for name in modules)
    code = f"import sys, {names}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

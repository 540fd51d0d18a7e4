"""Certificates of machines that exist for the length of a test."""

import shutil
import subprocess
from pathlib import Path

import pytest

with_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
"""For tests that need it to make some."""


def certificate(folder: Path, *options: str) -> tuple[Path, Path]:
    """One for this machine, signed by itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*request, *names, *files, *(options or ["-nodes"])], check=True, capture_output=True)
    return cert, key

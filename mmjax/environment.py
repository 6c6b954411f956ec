"""What a number was measured with."""

import importlib.metadata
import pathlib
import platform
import subprocess

import jax

import mmjax

__all__ = ["device", "environment"]


def environment() -> dict[str, str]:
    """Versions, device and commit; the commit is ``unknown`` where mmjax is installed without its repository."""
    root = pathlib.Path(mmjax.__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "mmjax": mmjax.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in ("jax", "flax", "optax", "numpy")},
        "device": device(),
        "dtype": "float32",
        "commit": git.stdout.strip() or "unknown",
    }


def device() -> str:
    """Number and kind of the devices."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"

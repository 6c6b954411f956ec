"""Settings of the whole suite; they must stand before jax starts."""

import os

os.environ.setdefault("MMJAX_CHECK_SHAPES", "1")  # shapes in signatures are checked under test
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as on the command line
os.environ.setdefault("NPROC", "16")  # a batch of LAPACK calls waits for threads of XLA:CPU's pool: give it more than 2
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import pathlib

import pytest

pytest_plugins = ["tests.fusion.cost"]  # prints what the contract suite costs a method


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data named by MMJAX_DATA_DIR; tests that need it are skipped where it is not set."""
    folder = os.environ.get("MMJAX_DATA_DIR")
    if not folder:
        pytest.skip("MMJAX_DATA_DIR is not set: no real data")
    return pathlib.Path(folder)

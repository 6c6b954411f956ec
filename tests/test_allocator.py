"""Freed memory stays in the process: told by the page faults of taking it again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from mmjax.allocator import keep_freed_memory
if "keep" in sys.argv and not keep_freed_memory():
    sys.exit(77)
np.ones(2**23)  # 64 MB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no GNU C library here")
    assert not done.returncode, done.stderr
    return int(done.stdout)


def test_memory_taken_again_faults_no_more():
    assert faults("keep") * 10 < faults()

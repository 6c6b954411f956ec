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


RETURNS = """
import sys
import numpy as np
from mmjax.allocator import keep_freed_memory, return_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if not keep_freed_memory():
    sys.exit(77)
before = resident_mb()
np.ones(2**23)  # 64 MB, freed at once
kept, returned = resident_mb() - before, return_freed_memory()
print(kept, returned, resident_mb() - before)
"""


def test_what_was_freed_goes_back_when_told():
    done = subprocess.run([sys.executable, "-c", RETURNS], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no GNU C library here")
    kept, returned, left = done.stdout.split()
    assert float(kept) > 60
    assert returned == "True"
    assert float(left) < 8

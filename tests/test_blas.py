"""Products of NumPy take one thread: told by the threads of the process."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from mmjax.blas import keep_blas_to_one_thread
if "keep" in sys.argv and not keep_blas_to_one_thread():
    sys.exit("numpy was there before")
import numpy as np
np.ones((500, 500)) @ np.ones((500, 500))
print(len(__import__("os").listdir("/proc/self/task")))
"""


def threads(*arguments: str, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed on Linux alone")
def test_a_product_takes_one_thread_unless_the_user_says_otherwise():
    assert threads("keep") == 1
    assert threads("keep", OMP_NUM_THREADS="2") == threads(OMP_NUM_THREADS="2")
    assert threads("keep", OPENBLAS_NUM_THREADS="2") == threads(OPENBLAS_NUM_THREADS="2")


def test_it_is_too_late_once_numpy_is_there():
    program = "import numpy; from mmjax.blas import keep_blas_to_one_thread as keep; print(keep())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_command_line_begins_with_it():
    program = "import os, sys; sys.argv = ['mmjax', 'list']\nfrom mmjax import cli\ncli.leave = lambda status: None\n"
    program += "cli.script(); print(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n1 False\n")

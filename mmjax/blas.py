"""One thread for NumPy's and SciPy's products: those of tables are small, and a second thread waits by turning."""

import os
import sys

__all__ = ["keep_blas_to_one_thread"]

LIBRARIES = ("OPENBLAS", "MKL", "BLIS")


def keep_blas_to_one_thread() -> bool:
    """Tells BLAS libraries that are not loaded yet to use one thread; returns whether that is early enough.

    The fit of a stacking of 20 scores by 10 classes on 360 items is a thousand products of microseconds each: with two
    threads of OpenBLAS it takes fifteen times the CPU seconds, spent on waiting (``benchmarks/README.md``).
    The numbers stay the same. It holds for the whole process, so that programs call it at their start and the library
    never does. What the environment says of threads (``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``) stays as it is.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        for library in LIBRARIES:
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    return "numpy" not in sys.modules

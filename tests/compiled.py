"""A cache of compiled programs for tests that compile the same one several times, here or in processes they start."""

import contextlib
import os

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextlib.contextmanager
def cached_programs(folder):
    """Keeps compiled programs in ``folder`` while it lasts."""
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: (getattr(jax.config, name), os.environ.get(name.upper())) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, (setting, variable) in before.items():
            jax.config.update(name, setting)
            os.environ.pop(name.upper())
            if variable is not None:
                os.environ[name.upper()] = variable
        compilation_cache.reset_cache()

"""Runs of whole tables in a few seconds: what is compiled once is compiled once, and nothing is drawn."""

import contextlib

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from mmjax.experiment import runner


@contextlib.contextmanager
def quickly(folder):
    """Plots have tests of their own, compiled programs are kept in ``folder``, and no commit comes in between."""
    options = {"jax_compilation_cache_dir": str(folder)}
    options |= {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
    before = {name: getattr(jax.config, name) for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.plots.write_plots", lambda *arguments: {})
        patch.setattr(runner, "environment", lambda: {"commit": "any"})
        _configure(options)
        try:
            yield
        finally:
            _configure(before)


def _configure(options):
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()

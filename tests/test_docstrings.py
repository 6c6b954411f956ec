"""Every public class and function of these modules has an example in its docstring, and it runs."""

import doctest
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.stream import Stream

MODULES = (
    "mmjax.decoder",
    "mmjax.encoders.normalisation",
    "mmjax.fusion.attention",
    "mmjax.fusion.bottleneck",
    "mmjax.fusion.concat",
    "mmjax.fusion.decision",
    "mmjax.fusion.gated",
    "mmjax.fusion.joint",
    "mmjax.fusion.sets",
    "mmjax.losses",
)
NAMES = {"jax": jax, "jnp": jnp, "np": np, "Stream": Stream}
"""What an example may use without importing it, beside what its module holds."""
INNER = {  # parts of a method that is shown
    "Cache",
    "DecoderBlock",
    "Stacking",
    "cross_fit_stacking",
    "fit_stacking",
    "normalise_groups",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    shown = set()
    for public in module.__all__:
        thing = inspect.unwrap(getattr(module, public))
        for test in doctest.DocTestFinder(recurse=False).find(thing, public, globs={**vars(module), **NAMES}):
            shown |= {public} if test.examples else set()
            report: list[str] = []
            runner.run(test, out=report.append)
            assert not report, "".join(report)
    assert shown >= set(module.__all__) - INNER, f"{name} lacks examples of {set(module.__all__) - INNER - shown}"

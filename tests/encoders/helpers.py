"""What the tests of encoders share."""

import jax

from tests.draw import draw_params

QUICK = {"xla_backend_optimization_level": 0}  # halves the time of a compilation


def compiled(encoder, *inputs):
    """Drawn variables and a compiled ``apply(variables, *inputs)``."""
    variables = {"params": draw_params(encoder, *inputs)}
    return variables, jax.jit(encoder.apply, compiler_options=QUICK)

"""One preparation of a data set has a name of its own."""

import dataclasses

from mmjax.datasets.digits import RECIPE


def test_other_code_options_or_files_are_another_preparation():
    def other(options, folder):
        return {}

    options = RECIPE.options()
    keys = {
        RECIPE.key(options, {}),
        RECIPE.key(RECIPE.options(seed=1), {}),
        RECIPE.key(options, {"a": "sha256"}),
        dataclasses.replace(RECIPE, version="9").key(options, {}),
        dataclasses.replace(RECIPE, read=other).key(options, {}),
    }
    assert len(keys) == 5 and RECIPE.key(options, {}) == RECIPE.key(RECIPE.options(), {})

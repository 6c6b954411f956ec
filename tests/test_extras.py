"""The core alone serves who imports a part; what lacks an extra says so in one line."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from mmjax.extras import EXTRAS, MissingExtra, extra

ROOT = pathlib.Path(__file__).parents[1]
# Flax itself requires these, so they are there with the core.
WITH_FLAX = {"optax", "orbax", "rich"}
BLOCKED = sorted((set(EXTRAS) | {"chex", "pandas"}) - WITH_FLAX - {"scipy"})  # jax requires scipy

BLOCK = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
"""

CORE = """
import mmjax, jax, jax.numpy as jnp
from mmjax import Stream
from mmjax.encoders import FeatureMLP
from mmjax.fusion import GMU, AdditiveAttention, Concat, JointTransformer
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal

model = Multimodal({"a": FeatureMLP(dim=8)}, AdditiveAttention(dim=8), ClassificationHead(3))
streams = {"a": Stream.of(jnp.ones((2, 3, 4))), "b": Stream.of(jnp.ones((2, 5, 6)))}
print(jax.eval_shape(model.init, jax.random.key(0), streams)["params"].keys())
"""


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120, cwd=ROOT, **options
    )


def test_a_fusion_needs_the_core_alone():
    done = run(CORE)
    assert done.returncode == 0, done.stderr
    assert "fusion" in done.stdout


def test_a_command_that_lacks_an_extra_says_so_in_one_line(tmp_path):
    code = (
        f"import sys; from mmjax.cli import main; sys.exit(main(['table', 'digits', '--workdir', {str(tmp_path)!r}]))"
    )
    done = run(code)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: this needs the package \w+: pip install 'mmjax\[\w+\]' \(or 'mmjax\[all\]'\)\n", done.stderr
    )
    listed = run("from mmjax.cli import main; main(['list'])")
    assert listed.returncode == 0 and "digits" in listed.stdout


def test_every_package_is_brought_by_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]}
    assert core == {"jax", "flax", "numpy", "jaxtyping"}
    distributions = {"orbax": "orbax-checkpoint", "sklearn": "scikit-learn", "PIL": "pillow"}
    for package, name in EXTRAS.items():
        brought = {re.match(r"[\w-]+", one)[0].replace("-", "_") for one in project["optional-dependencies"][name]}
        assert distributions.get(package, package).replace("-", "_") in brought, package
        assert name in project["optional-dependencies"]["all"][0]


def test_other_modules_that_are_not_there_stay_errors():
    with pytest.raises(MissingExtra, match=r"mmjax\[data\]"), extra():
        raise ModuleNotFoundError("No module named 'soundfile'", name="soundfile")
    with pytest.raises(ModuleNotFoundError) as error, extra():
        raise ModuleNotFoundError("No module named 'mine'", name="mine")
    assert not isinstance(error.value, MissingExtra)

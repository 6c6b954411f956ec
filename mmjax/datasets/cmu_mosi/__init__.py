"""CMU-MOSI: sentiment of 2,199 utterances in 93 videos, features of text, audio and video (Zadeh et al. 2016)."""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.cmu_mosi.examples import VALIDATION_VIDEOS, read
from mmjax.datasets.recipe import Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="cmu_mosi",
    description=(
        "2,199 opinion segments (utterances) of 93 YouTube videos, one speaker each; text-CNN (100), openSMILE (73) "
        "and 3D-CNN (100) features of each utterance, from the code of Poria et al. (ACL 2017), with its split into "
        f"62 training and 31 test videos; the validation part is one fixed draw of {VALIDATION_VIDEOS} of the 62. "
        "Classes train 738/709, test 285/467: ignoring the input reaches 62.1 % on test, chance is 50 %."
    ),
    kinds={"text": "feature", "audio": "feature", "video": "feature"},
    metric="acc2_has0",
    num_classes=2,
    class_names=("negative", "positive"),
    group="video",
    noise={name: "standardised features + N(0, (2 severity)^2)" for name in ("text", "audio", "video")},
    licence=(
        "features: MIT (declare-lab/multimodal-deep-learning); the corpus is CMU MultiComp's, without a data licence "
        "in that repository: research use"
    ),
    source=(
        "github.com/declare-lab/multimodal-deep-learning, commit 111b401, bc-LSTM/data; scores: CMU_MOSI_Labels.csd of "
        "CMU MultiComp. Zadeh et al., arXiv 1606.06259; Poria et al., ACL 2017"
    ),
    caution=(
        "The text and video features were learned on the labels of the 62 training videos, so validation videos cut "
        "from them are optimistic: a linear model fits the training videos at 98 % (text) and 92 % (video), the test "
        "videos at 76 % and 52 %."
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``target``: ``label`` (score >= 0, two classes) or ``score`` (mean of the annotators, in [-3, 3])."""

    target: str = "label"

    def __post_init__(self):
        if self.target not in ("label", "score"):
            raise UsageError(f"cmu_mosi: target is 'label' or 'score', got {self.target!r}")


def _card(options: Options) -> Card:
    if options.target == "label":
        return CARD
    return dataclasses.replace(
        CARD, name="cmu_mosi (score)", num_classes=None, class_names=(), primary_metric="mae", metric=""
    )


def _builder() -> type:
    from mmjax.datasets.cmu_mosi.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"bclstm-62/31, validation {VALIDATION_VIDEOS} of 62 videos",
    read=read,
    builder=_builder,
    files=lambda options: {
        "cmu_mosi/mosi_utterance.npz": "0a132f6b3ea4bd1351af4ee83803325d511917a9462bd72e3cb165befdca4a4d"
    },
    fetch=(
        "Fetch bc-LSTM/data of github.com/declare-lab/multimodal-deep-learning (commit 111b401) and run "
        "'python -m mmjax.datasets.cmu_mosi.convert BC_LSTM_DATA DIR/cmu_mosi'."
    ),
)

"""Interpretation: weights that a model reports, attributions of its score to its input, and checks of faithfulness.

Functions take a score, a function of streams with one number per example; ``model_score`` makes one of any model.
"""

from mmjax.evaluation.interpretation.faithfulness import Curves as Curves
from mmjax.evaluation.interpretation.faithfulness import relevance_mass as relevance_mass
from mmjax.evaluation.interpretation.faithfulness import removal_curves as removal_curves
from mmjax.evaluation.interpretation.gradients import completeness as completeness
from mmjax.evaluation.interpretation.gradients import gradient_times_input as gradient_times_input
from mmjax.evaluation.interpretation.gradients import integrated_gradients as integrated_gradients
from mmjax.evaluation.interpretation.gradients import per_item as per_item
from mmjax.evaluation.interpretation.gradients import per_modality as per_modality
from mmjax.evaluation.interpretation.randomisation import rank_correlation as rank_correlation
from mmjax.evaluation.interpretation.randomisation import reinitialise as reinitialise
from mmjax.evaluation.interpretation.randomisation import weight_randomisation as weight_randomisation
from mmjax.evaluation.interpretation.scores import ModelScore as ModelScore
from mmjax.evaluation.interpretation.scores import Score as Score
from mmjax.evaluation.interpretation.scores import model_score as model_score
from mmjax.evaluation.interpretation.weights import attention_maps as attention_maps
from mmjax.evaluation.interpretation.weights import attention_rollout as attention_rollout
from mmjax.evaluation.interpretation.weights import collect as collect
from mmjax.evaluation.interpretation.weights import modality_weights as modality_weights
from mmjax.evaluation.interpretation.weights import token_weights as token_weights

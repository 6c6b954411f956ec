"""The task of a shared space: its loss by hand, what takes no part in it, and training in both feeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import losses
from mmjax.dual_encoder import Embedded
from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.evaluation.scores import score
from mmjax.metrics import compute
from mmjax.models import DualEncoder
from mmjax.resident import fit
from mmjax.retrieval import Retrieval
from mmjax.stream import Batch, Stream
from mmjax.streaming import fit_streaming
from mmjax.training import Train

TASK = Retrieval("image", "text")


def outputs_of(slots, rows=6, seed=0, scale=3.0, train=True):
    rng = np.random.default_rng(seed)
    embeddings = {}
    for name, count in slots.items():
        values = rng.normal(size=(rows, count, 4)).astype(np.float32)
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
        embeddings[name] = Stream(jnp.asarray(values), jnp.ones((rows, count), bool))
    return Embedded(embeddings, jnp.float32(scale), jnp.float32(0), train)


def batch_of(rows, weight=None, group=None, target=None):
    number = np.arange(rows, dtype=np.int32)
    weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
    return Batch({}, number if target is None else target, weight, number, number if group is None else group)


def info_nce(products, positives):
    """By NumPy: mean over both ways of the cross-entropy of the positives, which share the target."""
    total = 0
    for p in (products, products.T):
        log_share = p - np.log(np.exp(p).sum(1, keepdims=True))
        total = total - (log_share * positives).sum(1) / positives.sum(1)
    return total / 2


def flat(stream, repeats, outer):
    values = np.asarray(stream.values)
    shape = (len(values), *repeats, 4)
    return np.broadcast_to(values[:, :, None] if outer else values[:, None, :], shape).reshape(-1, 4)


def test_several_captions_are_positives_of_their_photograph():
    outputs, rows = outputs_of({"image": 1, "text": 3}), np.repeat(np.arange(6), 3)
    left, right = flat(outputs.embeddings["image"], (1, 3), True), flat(outputs.embeddings["text"], (1, 3), False)
    expected = info_nce(3 * left @ right.T, rows[:, None] == rows[None]).reshape(6, 3).mean(1)
    np.testing.assert_allclose(TASK.loss(outputs, batch_of(6)), expected, rtol=1e-5)


def test_positives_by_group_and_by_target():
    outputs, group = outputs_of({"image": 1, "text": 1}), np.asarray([0, 0, 1, 1, 1, 2])
    x, y = (np.asarray(outputs.embeddings[name].values[:, 0]) for name in ("image", "text"))
    expected = info_nce(3 * x @ y.T, group[:, None] == group[None])
    by_group = dataclasses.replace(TASK, positives="group").loss(outputs, batch_of(6, group=group))
    by_target = dataclasses.replace(TASK, positives="target", label="class")
    np.testing.assert_allclose(by_group, expected, rtol=1e-5)
    np.testing.assert_allclose(by_target.loss(outputs, batch_of(6, target={"class": group})), expected, rtol=1e-5)
    with pytest.raises(UsageError, match="one integer a row"):
        by_target.check_target({"class": np.ones((6, 2), np.int32)}, np.ones(6, bool))


def test_more_modalities_are_averaged_over_the_pairs_that_are_whole():
    outputs = outputs_of({"a": 1, "image": 1, "text": 1})
    gone = outputs.embeddings["a"].absent(jnp.asarray([False, True, False, False, False, True]))
    outputs = outputs.replace(embeddings={**outputs.embeddings, "a": gone})
    x = {name: np.asarray(s.values[:, 0]) for name, s in outputs.embeddings.items()}
    keep = np.asarray([0, 2, 3, 4])
    found = {("image", "text"): info_nce(3 * x["image"] @ x["text"].T, np.eye(6))}
    for other in ("image", "text"):
        found["a", other] = np.zeros(6)
        found["a", other][keep] = info_nce(3 * x["a"][keep] @ x[other][keep].T, np.eye(4))
    expected = sum(found.values()) / np.where(np.isin(np.arange(6), keep), 3, 1)
    np.testing.assert_allclose(TASK.loss(outputs, batch_of(6)), expected, rtol=1e-5)
    one = dataclasses.replace(TASK, pairs=(("image", "text"),)).loss(outputs, batch_of(6))
    np.testing.assert_allclose(one, found["image", "text"], rtol=1e-5)
    with pytest.raises(UsageError, match="no embeddings of 'sound'"):
        dataclasses.replace(TASK, pairs=(("image", "sound"),)).loss(outputs, batch_of(6))


@pytest.mark.parametrize("train", [True, False])
def test_rows_that_do_not_count_take_no_part(train):
    outputs = outputs_of({"image": 1, "text": 2}, train=train)
    weight, keep = np.asarray([1, 1, 0, 1, 1, 0]), np.asarray([0, 1, 3, 4])
    lost = outputs.embeddings["text"]
    lost = Stream(lost.values, lost.mask.at[1].set(False).at[3, 1].set(False))
    outputs = outputs.replace(embeddings={**outputs.embeddings, "text": lost})

    def poisoned(bad):
        embeddings = {}
        for name, stream in outputs.embeddings.items():
            real = stream.mask & (weight > 0)[:, None]
            embeddings[name] = Stream(jnp.where(real[..., None], stream.values, bad), stream.mask)
        return outputs.replace(embeddings=embeddings)

    def loss(some):
        return TASK.loss(some, batch_of(6, weight)).sum()

    some = poisoned(np.nan)
    rest = outputs.replace(embeddings=jax.tree.map(lambda x: x[keep], outputs.embeddings))
    values = TASK.loss(some, batch_of(6, weight))
    np.testing.assert_allclose(values[keep], TASK.loss(rest, batch_of(4)), rtol=1e-5)
    assert not values[np.asarray([1, 2, 5])].any()  # the second has no text: no pair
    for leaf in jax.tree.leaves(jax.grad(loss, allow_int=True)(some)):
        assert leaf.dtype == jax.dtypes.float0 or np.isfinite(leaf).all()
    found, expected = (compute(TASK.metrics(o, b)) for o, b in ((some, batch_of(6, weight)), (rest, batch_of(4))))
    assert set(found) == set(expected) and len(found) == (2 if train else 10)
    for name in found:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5), name


def test_held_out_loss_is_among_blocks():
    outputs = outputs_of({"image": 1, "text": 2}, rows=10, train=False)
    task = dataclasses.replace(TASK, block=4)  # three blocks: 4, 4 and 2
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 4], outputs.embeddings) for i in (0, 4, 8)]
    expected = [TASK.loss(outputs.replace(embeddings=p), batch_of(len(p["text"].mask))) for p in parts]
    found = compute(task.metrics(outputs, batch_of(10)))["loss"]
    assert float(found) == pytest.approx(float(np.concatenate(expected).mean()), rel=1e-5)


def test_what_is_kept_has_the_scores_of_the_metrics():
    outputs = outputs_of({"image": 1, "text": 3}, rows=12, train=False)
    found = compute(TASK.metrics(outputs, batch_of(12)))
    kept = np.asarray(TASK.keep(outputs))
    assert kept.shape == (12, 2, 3, 4)
    for name in TASK.scores:
        assert score(name).of(kept[None], None)[0] == pytest.approx(float(found[name]), rel=1e-6)


def test_methods_are_those_of_the_losses():
    outputs, weight = outputs_of({"a": 1, "image": 1, "text": 1}).replace(bias=jnp.float32(-2)), np.ones(6)
    weight[4] = 0
    x = {name: s.values[:, 0] for name, s in outputs.embeddings.items()}
    there, batch = jnp.asarray(weight > 0), batch_of(6, weight, group=np.asarray([0, 0, 1, 2, 2, 3]))

    def loss(method, **fields):
        return dataclasses.replace(TASK, method=method, **fields).loss(outputs, batch)

    pair = {"pairs": (("image", "text"),)}
    sides = x["image"], x["text"]
    expected = losses.sigmoid_contrastive(*sides, scale=3.0, bias=-2.0, present=there)
    np.testing.assert_allclose(loss("sigmoid", **pair), jnp.where(there, expected, 0), rtol=1e-6)
    np.testing.assert_allclose(loss("triplet", **pair), losses.triplet(*sides, present=there), rtol=1e-6)
    np.testing.assert_allclose(loss("symile"), losses.symile(x, scale=3.0, present=there), rtol=1e-6)
    present = dict.fromkeys(x, there)
    np.testing.assert_allclose(loss("gram"), losses.gram(x, "image", scale=3.0, present=present), rtol=1e-6)
    values, label = jnp.concatenate([x[n] for n in sorted(x)]), jnp.tile(batch.group, 3)
    expected = losses.supervised_contrastive(values, label, scale=3.0, present=jnp.tile(there, 3)).reshape(3, 6)
    np.testing.assert_allclose(loss("supervised", positives="group"), expected.mean(0), rtol=1e-5)
    own = loss(
        lambda task, outputs, left, right, *, present, **_: jnp.where(present, (left * right).sum(-1), 0), **pair
    )
    np.testing.assert_allclose(own, jnp.where(there, (sides[0] * sides[1]).sum(-1), 0), rtol=1e-6)
    with pytest.raises(UsageError, match="takes one item of each modality; 'text' has 2"):
        dataclasses.replace(TASK, method="gram").loss(outputs_of({"image": 1, "text": 2}), batch_of(6))


def test_the_triplet_loss_warms_up():
    task = dataclasses.replace(TASK, method="triplet", warm_up=4)
    outputs, state = outputs_of({"image": 1, "text": 1}), task.init_state()
    x, y = (outputs.embeddings[name].values[:, 0] for name in ("image", "text"))
    for hardest in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0):
        expected = losses.triplet(x, y, hardest=hardest)
        np.testing.assert_allclose(task.loss(outputs, batch_of(6), state=state), expected, rtol=1e-6)
        state = task.after_epoch(state, {}, {})
    assert TASK.init_state() is None


def test_wrong_names_are_refused():
    with pytest.raises(UsageError, match="knows positives of the row"):
        Retrieval("image", "text", method="symile", positives="group")
    with pytest.raises(UsageError, match="method is one of info_nce"):
        Retrieval("image", "text", method="nce")
    with pytest.raises(UsageError, match="row, group, target"):
        Retrieval("image", "text", positives="class")
    with pytest.raises(UsageError, match="no embeddings of 'sound'"):
        Retrieval("image", "sound").loss(outputs_of({"image": 1, "text": 1}), batch_of(6))


WIDTHS = {"image": 12, "text": 9}


def draw_pairs(rows, seed):
    """A picture and two texts, noisy views of the same hidden vector; some texts are missing."""
    views, rng = np.random.default_rng(0), np.random.default_rng(seed)
    hidden, streams = rng.normal(size=(rows, 1, 4)), {}
    for name, width in WIDTHS.items():
        values = np.tanh(hidden @ views.normal(size=(4, width)))
        values = values + rng.normal(0, 0.1, (rows, 2 if name == "text" else 1, width))
        streams[name] = Stream(values.astype(np.float32), np.ones(values.shape[:2], bool))
    streams["text"].mask[::7, 1] = False
    number = np.arange(rows, dtype=np.int32)
    return Batch(streams, number, np.ones(rows, np.float32), number, number)


MODEL = DualEncoder({name: FeatureMLP(16, hidden_dims=(32,)) for name in WIDTHS}, dim=8, several=("text",), scale=10.0)
SPLITS = {"train": draw_pairs(150, 1), "validation": draw_pairs(41, 2), "test": draw_pairs(40, 3)}
TRAIN = Train(epochs=20, batch_size=50, learning_rate=1e-2, optimizer=optax.adam, select="rsum")


def test_it_trains_on_the_device():
    trained = fit(MODEL, TASK, TRAIN, SPLITS, [0, 1])
    history = trained.history
    assert (history["validation/loss"][-1] < 0.5 * history["validation/loss"][0]).all()
    assert history["train/batch_recall@1"][-1].min() > history["train/batch_recall@1"][0].max()
    kept = trained.outputs["test"]
    assert kept.shape == (2, 40, 2, 2, 8)
    assert (score("recall@1_forward").of(kept, None) > 0.5).all()  # by chance 2 of 74
    for name in ("recall@1_forward", "recall@5_backward", "median_rank_backward"):
        best = [history[f"test/{name}"][epoch, seed] for seed, epoch in enumerate(trained.epoch)]
        np.testing.assert_allclose(score(name).of(kept, None), best, rtol=1e-6)


def test_it_trains_on_a_stream_and_is_measured_among_all_of_the_split(tmp_path):
    train = dataclasses.replace(TRAIN, epochs=4, batch_size=16)
    run = fit_streaming(MODEL, TASK, train, SPLITS, workdir=tmp_path, seed=0)
    outputs = MODEL.apply(run.variables, SPLITS["test"].streams)
    whole = compute(TASK.metrics(outputs, SPLITS["test"]))
    for name in (*TASK.scores,):
        assert run.metrics[f"test/{name}"] == pytest.approx(float(whole[name]), rel=1e-5), name
    assert run.metrics["test/recall@1_forward"] > 0.3


def test_a_warm_up_is_followed_epoch_by_epoch():
    task = dataclasses.replace(TASK, method="triplet", warm_up=2)
    run = fit(MODEL, task, dataclasses.replace(TRAIN, epochs=3), SPLITS, [0])
    assert run.task_states.tolist() == [[0], [1], [2]]
    assert np.isfinite(run.history["train/loss"]).all()

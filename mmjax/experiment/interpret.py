"""Trains two small models and explains them: pictures of attributions, and numbers on how faithful these are.

Moving digits with a sentence (the location of the evidence is known), and an image with sound: degraded written and
spoken digits if their files are available, else scikit-learn's digits with a chirp that rises for odd ones.
"""

import functools
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax import datasets, fusion
from mmjax.datasets import moving_digits, views
from mmjax.datasets.base import Dataset
from mmjax.datasets.sources import data_folder
from mmjax.encoders import FrameVideo, LeNet, LogMel, TemporalConv, TransformerText
from mmjax.encoders.spectrogram import mel_filterbank
from mmjax.evaluation import interpretation
from mmjax.evaluation.interpretation import charts, pictures
from mmjax.experiment.console import Lines
from mmjax.files import replace_file, write_json
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.stream import Batch, Stream, where_mask
from mmjax.tasks import Classification
from mmjax.training import Train
from mmjax.typing import PyTree

__all__ = ["chirping_digits", "interpret"]

DIM = 32
EXAMPLES = 64  # test examples behind every number
SHOWN = 4
STEPS = 128
RATE, HOP, FFT, MELS = 8_000, 160, 256, 32
SMOKE, FEW = 40, 4  # examples of a smoke run, and points of its integrals


def interpret(
    *,
    workdir: str | os.PathLike = "runs/interpret",
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    seed: int = 0,
    smoke: bool = False,
) -> str:
    """Trains, explains, and writes ``pictures/*.png`` and ``interpretation.json`` below ``workdir``.

    Args:
      data_dir: with the files of ``fsdd_digits``; default: the variable ``MMJAX_DATA_DIR``; where they are not there,
        that part uses embedded digits and chirps.
      seed: of the models.
      smoke: tiny; shows that everything runs.

    Returns:
      The results as text.

    Raises:
      UsageError: files that are damaged.
    """
    folder = pathlib.Path(workdir)
    say = Lines()
    say("moving digits: a joint transformer over frames and words")
    results = {"moving_digits": _moving(folder / "pictures", seed, smoke)}
    files = data_folder(data_dir)
    real = files is not None and (files / "fsdd").is_dir()
    say(f"{'written and spoken digits' if real else 'digits and chirps'}: gates over picture and sound (GMU)")
    sounding = datasets.load("fsdd_digits", data_dir=data_dir, cache_dir=cache_dir) if real else chirping_digits()
    results[sounding.card.name] = _sounding(folder / "pictures", sounding, seed, smoke)
    say.close()
    write_json(folder / "interpretation.json", {"smoke": smoke, "seed": seed, **results})
    return _report(results, folder)


def chirping_digits(seed: int = 0) -> Dataset:
    """scikit-learn's digits ``[8, 8, 1]``, each with half a second of noise in which a chirp of a fifth of a second
    rises if the digit is odd and falls if it is even."""
    from sklearn.datasets import load_digits

    digits, random = load_digits(), np.random.RandomState(seed)
    time = np.arange(RATE // 5) / RATE
    sounds = 0.05 * random.standard_normal((len(digits.target), RATE // 2))
    for sound, label in zip(sounds, digits.target):
        sweep = time if label % 2 else time[::-1]
        start = random.randint(len(sound) - len(time))
        # the phase is the integral of 500 + 10,000 t Hz: from 500 to 2,500 Hz
        sound[start : start + len(time)] += 0.3 * np.sin(2 * np.pi * (500 * sweep + 5_000 * sweep**2))
    return datasets.from_arrays(
        {"image": digits.images[..., None] / 16, "audio": sounds.astype(np.float32)},
        digits.target.astype(np.int32),
        kinds={"image": "image", "audio": "audio"},
        name="digits with chirps",
    )


def _train(model: nn.Module, data: Dataset, train: Train, seed: int) -> tuple[PyTree, float]:
    """Parameters of the epoch chosen on validation, and their test accuracy."""
    task: Any = Classification(10)
    done = fit(model, task, train, data.splits, [seed])
    accuracy = float(done.history["test/accuracy"][done.epoch[0], 0])
    return jax.tree.map(lambda x: jnp.asarray(x[0]), done.variables), accuracy


def _explain(model: nn.Module, variables: PyTree, batch: Batch, fine: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Attributions of the predicted class's logit, and how faithful they are.

    Args:
      fine: streams that are shown and ranked by value (pixels, bands); the others by item.
    """
    score, inputs = interpretation.model_score(model, variables, batch.streams)
    attributions = interpretation.integrated_gradients(score, inputs, steps=steps)
    total, change = interpretation.completeness(score, inputs, attributions)
    items = interpretation.per_item(attributions, inputs)
    units = {name: np.asarray(attributions[name] if name in fine else items[name]) for name in attributions}
    # channels of images are summed
    units = {name: value.sum(-1) if value.ndim == 5 else value for name, value in units.items()}
    curves = interpretation.removal_curves(score.replace(kind="probability"), inputs, units)
    attribute = functools.partial(interpretation.integrated_gradients, steps=max(steps // 4, FEW))
    fresh = {
        kind: interpretation.weight_randomisation(
            model, variables, batch.streams, attribute, target=score.target, absolute=kind == "magnitude"
        )
        for kind in ("signed", "magnitude")
    }
    areas = {name: round(float(value.mean()), 4) for name, value in curves.areas.items()}
    numbers = {
        "examples": batch.size,
        "completeness_gap": round(float(np.abs(total - change).mean() / np.abs(change).mean()), 4),
        "areas": areas,
        "rank_correlation_after_randomising": {
            kind: {
                stage: {name: round(float(np.nanmean(value)), 4) for name, value in by_name.items()}
                for stage, by_name in stages.items()
            }
            for kind, stages in fresh.items()
        },
    }
    predicted = np.asarray(score.target)
    labels = [f"true {true}, predicted {guess}" for true, guess in zip(batch.target, predicted)]
    return {"units": units, "curves": curves, "numbers": numbers, "labels": labels, "inputs": inputs}


def _moving(folder: pathlib.Path, seed: int, smoke: bool) -> dict[str, Any]:
    data, truth = datasets.load("moving_digits"), moving_digits.truth()["test"]
    video = FrameVideo(DIM, LeNet(DIM, channels=(8, 16), hidden_dims=(), kernel_size=3), pool=None)
    text = TransformerText(DIM, len(moving_digits.VOCABULARY), num_layers=0)  # word vectors and positions
    joint = fusion.JointTransformer(DIM, num_layers=1)
    model = Multimodal({"video": video, "text": text}, joint, ClassificationHead(10))
    count = SMOKE if smoke else EXAMPLES
    batch = jax.tree.map(lambda x: x[:count], data.splits["test"])
    small = views.limit(data, SMOKE) if smoke else data
    train = Train(epochs=1 if smoke else 20, batch_size=32, learning_rate=3e-3)
    variables, accuracy = _train(model, small, train, seed)
    explanation = _explain(model, variables, batch, ("video",), FEW if smoke else STEPS)
    tokens = {
        name: np.asarray(value) for name, value in interpretation.token_weights(model, variables, batch.streams).items()
    }
    inside = truth.inside[:count]
    word = np.arange(batch.streams["text"].mask.shape[1]) == truth.word[:count, None]
    pixels, words = explanation["units"]["video"], explanation["units"]["text"]
    evidence = {
        "digit": _share(interpretation.relevance_mass(pixels, inside), inside, batch.streams["video"].mask, pixels),
        "word": _share(interpretation.relevance_mass(words, word), word, batch.streams["text"].mask, words),
        "word_by_attention": _share(
            interpretation.relevance_mass(tokens["text"], word), word, batch.streams["text"].mask, words
        ),
    }
    for i in range(SHOWN):
        figure = pictures.video_picture(
            explanation["inputs"]["video"].values[i], pixels[i], batch.streams["video"].mask[i],
            title=f"moving digit: {explanation['labels'][i]}", limit=_end(pixels[i]),
        )  # fmt: skip
        _write(folder / f"moving_digits_video_{i}.png", figure)
    masks, labels = batch.streams["text"].mask[:SHOWN], explanation["labels"][: 2 * SHOWN]
    sentences = [
        [moving_digits.VOCABULARY[word] for word in ids[mask]]
        for ids, mask in zip(batch.streams["text"].values[:SHOWN], masks)
    ]
    shown = [values[mask] for values, mask in zip(words, masks)]
    _write(folder / "moving_digits_text.png", pictures.text_picture(sentences, shown, labels=labels[:SHOWN]))
    shown = [values[mask] for values, mask in zip(tokens["text"], masks)]
    figure = pictures.text_picture(
        sentences, shown, labels=labels[:SHOWN], signed=False, name="attention rollout (share)"
    )
    _write(folder / "moving_digits_text_attention.png", figure)
    shares = {name: value.sum(1)[: 2 * SHOWN] for name, value in tokens.items()}
    figure = charts.modality_chart(shares, labels=labels, name="attention rollout (share)")
    _write(folder / "moving_digits_modalities.png", figure)
    _curves(folder / "moving_digits_removal.png", explanation, f"moving digits, {batch.size} test videos")
    return {"test_accuracy": round(accuracy, 4), "evidence": evidence, **explanation["numbers"]}


def _sounding(folder: pathlib.Path, data: Dataset, seed: int, smoke: bool) -> dict[str, Any]:
    front = LogMel(RATE, n_mels=MELS, n_fft=FFT, hop_length=HOP)
    if smoke:
        data = views.limit(data, SMOKE)
    data = views.map_stream(data, "audio", functools.partial(_spectrogram, jax.jit(functools.partial(front.apply, {}))))
    encoders = {
        "image": LeNet(DIM, channels=(8, 16), hidden_dims=(), kernel_size=3),
        "audio": TemporalConv(DIM, kernel_size=5, strides=(2, 2, 1)),
    }
    model = Multimodal(encoders, fusion.GMU(DIM), ClassificationHead(10, dropout_rate=0.3))
    train = Train(epochs=1 if smoke else 10, batch_size=50, learning_rate=2e-3)
    variables, accuracy = _train(model, data, train, seed)
    batch = jax.tree.map(lambda x: x[: SMOKE if smoke else EXAMPLES], data.splits["test"])
    explanation = _explain(model, variables, batch, ("image", "audio"), FEW if smoke else STEPS)
    audio, image = batch.streams["audio"], batch.streams["image"]
    bank = mel_filterbank(RATE, FFT, MELS)
    centres = (np.arange(len(bank))[:, None] * (RATE / FFT) * bank).sum(0) / bank.sum(0)
    name = data.card.name.replace(" ", "_")
    for i in range(SHOWN):
        title = f"{data.card.name}: {explanation['labels'][i]}"
        pixels, bands = explanation["units"]["image"][i, 0], explanation["units"]["audio"][i]
        # degraded images exceed [0, 1]
        low, high = image.values[i, 0].min(), image.values[i, 0].max()
        figure = pictures.image_picture(
            (image.values[i, 0] - low) / max(high - low, 1e-6), pixels, title=title, limit=_end(pixels)
        )
        _write(folder / f"{name}_image_{i}.png", figure)
        figure = pictures.spectrogram_picture(
            audio.values[i], bands, audio.mask[i], hop_seconds=HOP / RATE, frequencies=centres, title=title,
            limit=_end(bands), unit="log power (s.d.)",
        )  # fmt: skip
        _write(folder / f"{name}_audio_{i}.png", figure)
    gates = interpretation.modality_weights(model, variables, batch.streams)
    shown = {key: np.asarray(value)[: 2 * SHOWN] for key, value in gates.items()}
    figure = charts.modality_chart(shown, labels=explanation["labels"][: 2 * SHOWN], name="mean gate")
    _write(folder / f"{name}_modalities.png", figure)
    _curves(folder / f"{name}_removal.png", explanation, f"{data.card.name}, {batch.size} test pairs")
    return {"test_accuracy": round(accuracy, 4), **explanation["numbers"]}


def _spectrogram(front: Any, stream: Stream) -> Stream:
    parts = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 250]), stream) for i in range(0, len(stream.mask), 250)]
    return jax.tree.map(lambda *chunks: np.concatenate(chunks), *(front(part) for part in parts))


def _share(mass: np.ndarray, evidence: np.ndarray, mask: Any, units: np.ndarray) -> dict[str, float]:
    """Mean share of the attribution on the evidence, and by chance: the evidence's share of the units."""
    real = np.broadcast_to(where_mask(np.asarray(mask), units), units.shape)
    chance = evidence.reshape(len(units), -1).sum(1) / real.reshape(len(units), -1).sum(1)
    return {"attribution": round(float(np.nanmean(mass)), 4), "chance": round(float(chance.mean()), 4)}


def _end(attribution: np.ndarray) -> float:
    """Limit of the colour scale: a quantile, so that a few extreme values do not make the rest pale."""
    return float(np.quantile(np.abs(attribution), 0.995)) or 1.0


def _curves(path: pathlib.Path, explanation: dict[str, Any], title: str) -> None:
    curves = explanation["curves"]
    figure = charts.removal_chart(
        curves.fraction, curves.deletion, curves.insertion, curves.random, title=title,
        name="probability of the predicted class",
    )  # fmt: skip
    _write(path, figure)


def _write(path: pathlib.Path, figure: Any) -> None:
    replace_file(path, charts.png(figure))


def _report(results: dict[str, Any], folder: pathlib.Path) -> str:
    lines = []
    for name, result in results.items():
        lines.append(f"{name}: test accuracy {100 * result['test_accuracy']:.1f} %")
        for what, share in result.get("evidence", {}).items():
            lines.append(
                f"  on the {what.replace('_', ' ')}: {100 * share['attribution']:.0f} % of the attribution, "
                f"{100 * share['chance']:.0f} % by chance"
            )
        areas = result["areas"]
        lines.append(
            f"  area under deletion {areas['deletion']:.3f}, random order {areas['random']:.3f}, "
            f"insertion {areas['insertion']:.3f}"
        )
        for kind, stages in result["rank_correlation_after_randomising"].items():
            values = ", ".join(f"{name} {value:.2f}" for name, value in stages["all"].items())
            lines.append(f"  rank correlation with those of fresh weights, {kind}: {values}")
    return "\n".join([*lines, f"pictures: {folder / 'pictures'}", ""])

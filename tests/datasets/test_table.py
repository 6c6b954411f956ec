"""One door from raw data: what a CSV file or a data frame becomes, what is fitted on train alone, what is refused."""

import csv

import numpy as np
import pytest
from PIL import Image

from mmjax.datasets import from_table
from mmjax.datasets.raw.pictures import read_picture
from mmjax.datasets.raw.sounds import read_sound
from mmjax.errors import UsageError

N = 30
KINDS = ["ant", "bee", "cat"]
SPLIT = ["train"] * 18 + ["val"] * 6 + ["test"] * 6


def columns(**changed):
    """A table of thirty rows, three classes, as a mapping."""
    table = {
        "says": [f"the {KINDS[i % 3]} number{i} sits" for i in range(N)],
        "legs": [[6, 6, 4][i % 3] for i in range(N)],
        "colour": [["black", "yellow", "black"][i % 3] for i in range(N)],
        "kind": [KINDS[i % 3] for i in range(N)],
        "part": SPLIT,
        "owner": [f"owner {i // 3}" for i in range(N)],
    }
    return table | changed


def write(path, table, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(table)
        writer.writerows(zip(*table.values()))
    return path


def replaced(values, row, value):
    return [value if i == row else one for i, one in enumerate(values)]


def test_text_becomes_ids_of_the_words_of_train_and_others_are_unknown():
    data = from_table(columns(), text="says", label="kind", split="part", name="zoo")
    tokenizer = data.tokenizers["says"]
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert words[0] == "[UNK]" and set(words[1:]) == {"the", "sits", *KINDS}  # number3 stands once in train
    for batch in data.splits.values():
        ids = batch.streams["says"].values
        assert ids.dtype == np.int32 and ids.shape[1] == 4 and (ids[:, 2] == 0).all()
        assert [words[i] for i in ids[:, 1]] == [KINDS[label] for label in batch.target]
    assert data.card.class_names == ("ant", "bee", "cat") and "ant (10)" in data.card.description
    assert "6 ids" in data.card.description and "25.0% of the words held out are unknown" in data.card.description
    test = columns(says=replaced(columns()["says"], 29, "zebras zebras zebras"))
    again = from_table(test, text="says", label="kind", split="part")
    assert again.tokenizers["says"].get_vocab() == tokenizer.get_vocab()  # zebras stand in test alone


def test_text_may_be_parts_of_words_is_cut_and_may_be_missing():
    table = columns(says=replaced(replaced(columns()["says"], 2, None), 20, "  "))
    data = from_table(table, text="says", label="kind", split="part", tokenizer="bpe", vocabulary=40, max_words=3)
    assert data.tokenizers["says"].get_vocab_size() == 40
    train, validation = data.splits["train"].streams["says"], data.splits["validation"].streams["says"]
    assert train.values.shape == (18, 3) and not train.mask[2].any() and not validation.mask[2].any()
    assert "2 missing" in data.card.description and "28 texts cut to 3 words" in data.card.description
    same = from_table(table, text="says", label="kind", split="part", tokenizer=data.tokenizers["says"], max_words=3)
    np.testing.assert_array_equal(
        same.splits["test"].streams["says"].values, data.splits["test"].streams["says"].values
    )


def test_numbers_and_categories_become_one_vector():
    legs = [float(n) for n in columns()["legs"]]
    legs[0], legs[19] = None, float("nan")
    colour = replaced(replaced(columns()["colour"], 0, ""), 29, "green")
    data = from_table(columns(legs=legs, colour=colour), features=["legs", "colour"], label="kind", split="part")
    train, test = data.splits["train"].streams["features"], data.splits["test"].streams["features"]
    assert train.values.shape == (18, 1, 3)  # legs, black, yellow
    np.testing.assert_array_equal(train.values[1, 0], [6, 0, 1])
    assert not train.mask[0].any()  # nothing is known of it
    mean = np.mean([n for n in legs[:18] if n is not None])
    np.testing.assert_allclose(data.splits["validation"].streams["features"].values[1, 0], [mean, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(test.values[5, 0], [4, 0, 0])  # train has no green
    assert "1 empty cells filled" in data.card.description and "1 missing" in data.card.description
    two = from_table(columns(), features={"body": ["legs"], "skin": ["colour"]}, label="kind", split="part")
    assert two.streams == ("body", "skin")


def test_a_csv_file_is_read_whatever_its_delimiter(tmp_path):
    told = from_table(columns(), text="says", features="legs", label="kind", group="owner")
    for delimiter in ",;\t|":
        path = write(tmp_path / "zoo.csv", columns(says=[f'the "{w}", and' for w in columns()["kind"]]), delimiter)
        data = from_table(path, text="says", features="legs", label="kind", group="owner")
        assert data.card.name == "zoo" and data.card.group == "owner"
        assert [b.size for b in data.splits.values()] == [b.size for b in told.splits.values()] == [18, 6, 6]
        np.testing.assert_array_equal(data.splits["test"].group, told.splits["test"].group)


class Frame:
    """What a data frame has: columns by name, and an index that is not 0, 1, 2, ..."""

    def __init__(self, table):
        self.table, self.columns, self.index = table, list(table), [f"id{i}" for i in range(N)]

    def __getitem__(self, name):
        return self.table[name]


def test_a_data_frame_is_taken_and_its_rows_have_its_names():
    data = from_table(Frame(columns()), text="says", label="kind", split="part")
    assert data.splits["train"].size == 18
    with pytest.raises(UsageError, match="row id4 has no label"):
        from_table(Frame(columns(kind=replaced(columns()["kind"], 4, float("nan")))), text="says", label="kind")


@pytest.mark.parametrize(
    ("label", "options", "classes", "names", "first"),
    [
        ([1 + i % 3 for i in range(N)], {}, 3, ("1", "2", "3"), 0),
        ([f"{1 + i % 3}.0" for i in range(N)], {}, 3, ("1", "2", "3"), 0),
        (["yes", "no"] * 15, {}, 2, ("no", "yes"), 1),
        (KINDS * 10, {"class_names": ["cat", "bee", "ant"]}, 3, ("cat", "bee", "ant"), 2),
        ([2.5 * i for i in range(N)], {}, None, (), 0.0),
        ([5 + i for i in range(N)], {"task": "scores"}, None, (), 5.0),
        ([f"{i}" for i in range(N)], {"task": "classes"}, 30, tuple(map(str, range(N))), 0),
    ],
)
def test_labels_are_classes_or_scores(label, options, classes, names, first):
    data = from_table(columns(kind=label), text="says", label="kind", split="part", **options)
    assert (data.card.num_classes, data.card.class_names) == (classes, names)
    assert data.splits["train"].target[0] == first and data.splits["train"].target.shape == (18,)


def test_several_labels_stand_in_columns_or_in_a_cell():
    table = columns(big=[i % 2 for i in range(N)], red=[i % 3 == 0 for i in range(N)])
    data = from_table(table, text="says", label=["big", "red"], split="part")
    assert data.card.class_names == ("big", "red") and data.card.primary_metric == "labels_f1_macro"
    np.testing.assert_array_equal(data.splits["train"].target[:3], [[0, 1], [1, 0], [0, 0]])
    cells = ["red|big", "", "big"] * 10
    data = from_table(columns(kind=cells), text="says", label="kind", separator="|", split="part")
    assert data.card.class_names == ("big", "red")
    np.testing.assert_array_equal(data.splits["train"].target[:3], [[1, 1], [0, 0], [1, 0]])
    scores = from_table(columns(x=[i / 4 for i in range(N)], y=[1.0] * N), text="says", label=["x", "y"], split="part")
    np.testing.assert_array_equal(scores.splits["train"].target[2], [0.5, 1.0])


GREY = np.add.outer(np.arange(24), np.arange(24)).astype(np.uint8) * 5
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 9)], -1)


def shades(image, tmp_path, name="one.png", **options):
    """The picture as it comes back from a file of that kind, at its own size."""
    image.save(tmp_path / name, **options)
    return read_picture(tmp_path / name, height=24, width=24)


def test_every_mode_of_a_picture_gives_the_same_shades(tmp_path):
    grey = Image.fromarray(GREY)
    np.testing.assert_array_equal(shades(grey, tmp_path)[..., 0], GREY)
    np.testing.assert_array_equal(shades(Image.fromarray(COLOUR), tmp_path), COLOUR)
    np.testing.assert_array_equal(shades(Image.fromarray(GREY.astype(np.uint16) * 257), tmp_path)[..., 0], GREY)
    np.testing.assert_array_equal(shades(Image.fromarray(GREY.astype(np.int32) * 257), tmp_path, "a.tif")[..., 0], GREY)
    scaled = Image.fromarray(GREY.astype(np.float32) / 255)
    np.testing.assert_array_equal(shades(scaled, tmp_path, "one.tif")[..., 0], GREY)
    np.testing.assert_array_equal(shades(grey.convert("P"), tmp_path)[..., 0], GREY)
    palette = Image.fromarray(COLOUR // 64 * 64).quantize(64)
    np.testing.assert_array_equal(shades(palette, tmp_path), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(shades(Image.fromarray(GREY > 100), tmp_path)[..., 0], np.where(GREY > 100, 255, 0))


def test_alpha_stands_over_white(tmp_path):
    alpha = np.where(np.arange(24) < 12, 255, 0).astype(np.uint8)[None].repeat(24, 0)
    result = shades(Image.fromarray(np.dstack([COLOUR, alpha])), tmp_path)
    np.testing.assert_array_equal(result[:, :12], COLOUR[:, :12])
    assert (result[:, 12:] == 255).all()
    result = shades(Image.fromarray(np.dstack([GREY, alpha]), "LA"), tmp_path)
    assert result.shape == (24, 24, 1) and (result[:, 12:] == 255).all()
    np.testing.assert_array_equal(result[:, :12, 0], GREY[:, :12])


def test_a_picture_is_turned_upright_and_cut_in_the_middle(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    result = shades(Image.fromarray(GREY), tmp_path, exif=exif)
    np.testing.assert_array_equal(result[..., 0], np.rot90(GREY, -1))
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert (read_picture(wide, height=10, width=10) == 200).all()
    assert read_picture(wide, height=5, width=15).shape == (5, 15, 1)


def test_pictures_of_a_table_have_one_size_and_their_channels(tmp_path):
    (tmp_path / "pictures").mkdir()
    paths = [f"pictures/{i}.png" for i in range(N)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8 + i, 9, 3), i, np.uint8) if i == 7 else np.full((8 + i, 9), i, np.uint8)).save(
            tmp_path / path
        )
    table = columns(photo=replaced(paths, 3, ""))
    data = from_table(write(tmp_path / "zoo.csv", table), image="photo", label="kind", split="part", size=8)
    photo = data.splits["train"].streams["photo"]
    assert photo.values.shape == (18, 1, 8, 8, 3) and photo.values.dtype == np.uint8  # one of them has colour
    assert not photo.mask[3].any() and (photo.values[4] == 4).all()
    (tmp_path / paths[5]).write_bytes((tmp_path / paths[5]).read_bytes()[:40])
    (tmp_path / paths[6]).unlink()
    with pytest.raises(UsageError) as error:
        from_table(tmp_path / "zoo.csv", image="photo", label="kind", split="part")
    assert "2 of 30 pictures" in str(error.value) and "line 7: 'pictures/5.png'" in str(error.value)
    assert "line 8: 'pictures/6.png' (there is no such file)" in str(error.value) and "\n" not in str(error.value)


def test_sounds_have_one_rate_and_one_channel(tmp_path):
    import soundfile

    def tone(rate, hertz=440, seconds=0.5):
        return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)

    expected = tone(8_000)
    for rate, channels, subtype in (
        (8_000, 1, "PCM_16"),
        (44_100, 2, "PCM_24"),
        (11_025, 1, "FLOAT"),
        (8_000, 2, "PCM_U8"),
    ):
        path = tmp_path / "tone.wav"
        soundfile.write(path, np.repeat(tone(rate)[:, None], channels, 1), rate, subtype=subtype)
        sound = read_sound(path, rate=8_000, seconds=9)
        assert abs(len(sound) - len(expected)) <= 1
        middle = slice(400, len(expected) - 400)
        np.testing.assert_allclose(sound[middle], expected[middle], atol=0.01 if subtype != "PCM_U8" else 0.02)
    assert len(read_sound(path, rate=8_000, seconds=0.1)) == 800
    paths = [f"{i}.flac" for i in range(N)]
    for i, path in enumerate(paths):
        soundfile.write(tmp_path / path, tone(8_000, seconds=0.01 * (1 + i % 3)), 8_000)
    table = write(tmp_path / "zoo.csv", columns(voice=replaced(paths, 1, "")))
    data = from_table(table, audio="voice", label="kind", split="part", rate=4_000)
    voice = data.splits["train"].streams["voice"]
    assert (
        voice.values.shape == (18, 120) and voice.values.dtype == np.float32 and data.sample_rates == {"voice": 4_000}
    )
    np.testing.assert_array_equal(voice.mask.sum(1)[:4], [40, 0, 120, 40])
    (tmp_path / "2.flac").write_bytes(b"no sound")
    with pytest.raises(UsageError, match=r"1 of 30 sounds cannot be read: line 4: '2.flac'"):
        from_table(table, audio="voice", label="kind", split="part")


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        ({}, dict(text="say"), ["no column 'say'", "text", "says, legs"]),
        ({}, dict(label="kid", text="says"), ["no column 'kid'", "label"]),
        ({}, dict(), ["no modality", "text="]),
        ({}, dict(text="says", image="says"), ["30 pictures cannot be read", "row 0"]),
        ({}, dict(text=["says", "says"]), ["'says' is named twice"]),
        ({}, dict(text="says", group="who"), ["no column 'who'"]),
        ({}, dict(text="says", task="ranks"), ["'ranks'", "scores"]),
        ({}, dict(text="says", size=0, image="says"), ["1 pixel"]),
        ({}, dict(text="says", tokenizer="letters"), ["'letters'", "bpe"]),
        ({}, dict(text="says", label="owner", split=(0.4, 0.3, 0.2)), ["sum to 1"]),
        ({}, dict(text="says", split="owner"), ["'owner 0'", "validation"]),
        ({}, dict(text="says", split="part", group="colour"), ["colour black", "row 17", "row 18", "allow_crossing"]),
        (dict(kind=replaced(KINDS * 10, 8, "")), dict(text="says"), ["row 8 has no label", "'kind'"]),
        (dict(kind=list(range(N))), dict(text="says"), ["30 different whole numbers", "task='scores'"]),
        (dict(kind=[f"k{i}" for i in range(N)]), dict(text="says"), ["30 classes in 30 rows"]),
        (dict(kind=KINDS * 10), dict(text="says", class_names=["ant", "bee"]), ["'cat'", "row 2", "ant, bee"]),
        (dict(says=[""] * 18 + ["a"] * 12), dict(text="says", split="part"), ["no text of train"]),
        (dict(legs=["four"] * N, colour=[f"c{i}" for i in range(N)] * 1), dict(features=["says2"]), ["'says2'"]),
        (dict(legs=replaced([1.0] * N, 4, float("inf"))), dict(features="legs"), ["'legs'", "row 4", "infinity"]),
        (dict(kind=[0, 2] * 15), dict(text="says", label=["kind", "legs"], task="labels"), ["0 or 1"]),
        (dict(short=[1, 2]), dict(text="says"), ["differ in length"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_column_and_row(table, options, words):
    with pytest.raises(UsageError) as error:
        from_table(columns(**table), **({"label": "kind"} | options))
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no file"]),
        ("", ["no rows"]),
        ("a,b\n", ["no rows"]),
        ("a,b\n1,2\n1\n", ["line 3", "1 cells", "2"]),
        ("a,a\n1,2\n", ["'a' twice"]),
        ("a,\n1,2\n", ["no name"]),
        (b"a,b\n1,\xff\n", ["UTF-8"]),
        ('a,b\n"1,2\n', ["CSV"]),
    ],
)
def test_a_damaged_csv_is_named(tmp_path, content, words):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as error:
        from_table(path, text="a", label="b")
    assert all(word in str(error.value) for word in [*words, "x.csv"]) and "\n" not in str(error.value)

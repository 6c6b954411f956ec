"""Videos of a table: folders of frames and animated files are the same frames, of one size, at most so many."""

import io

import numpy as np
import pytest
from PIL import Image

from mmjax.datasets import from_table
from mmjax.datasets.raw.videos import read_video
from mmjax.encoders import FrameVideo
from mmjax.errors import UsageError
from mmjax.experiment.default import default_encoder

N = 30
SIZES = {"height": 8, "width": 8}
LEVELS = (0, 60, 120, 180, 240)


def picture(level, mode="L", side=8):
    return Image.new(mode, (side, side), level if mode == "L" else (level, 0, 0))


def animation(path, levels=LEVELS, mode="L", **options):
    first, *others = [picture(level, mode) for level in levels]
    first.save(path, save_all=True, append_images=others, **options)
    return path


def frames(path, levels=LEVELS, mode="L", name="{}.png", side=8):
    path.mkdir()
    for number, level in enumerate(levels):
        picture(level, mode, side).save(path / name.format(number))
    return path


def levels_of(video):
    return video[:, 0, 0, 0].tolist()


def test_a_folder_an_animation_bytes_and_an_array_give_the_same_frames(tmp_path):
    expected = np.broadcast_to(np.asarray(LEVELS, np.uint8)[:, None, None, None], (5, 8, 8, 1))
    gif = animation(tmp_path / "film.gif")
    given = [
        frames(tmp_path / "film"), gif, gif.read_bytes(), Image.open(gif), expected, expected[..., 0],
        animation(tmp_path / "film.png"), animation(tmp_path / "film.webp", lossless=True),
        animation(tmp_path / "film.tiff"),
    ]  # fmt: skip
    for one in given:
        video = read_video(one, **SIZES, frames=9)
        assert video.dtype == np.uint8
        np.testing.assert_array_equal(video, expected)
    coloured = read_video(animation(tmp_path / "red.gif", mode="RGB"), **SIZES, frames=9)
    assert coloured.shape == (5, 8, 8, 3)
    np.testing.assert_array_equal(coloured, read_video(frames(tmp_path / "red", mode="RGB"), **SIZES, frames=9))
    assert read_video(picture(7), **SIZES, frames=9).shape == (1, 8, 8, 1)


def test_frames_stand_in_the_order_of_their_numbers_and_other_files_are_none(tmp_path):
    folder = frames(tmp_path / "film", range(12), name="frame{}.png", side=20)
    (folder / "notes.txt").write_text("none")
    (folder / ".frame0.png").write_text("none")
    assert levels_of(read_video(folder, **SIZES, frames=12)) == list(range(12))


@pytest.mark.parametrize(("most", "kept"), [(5, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (2, [0, 4]), (1, [2])])
def test_of_a_long_video_frames_are_evenly_spaced(tmp_path, most, kept):
    for one in (animation(tmp_path / "film.gif"), frames(tmp_path / "film")):
        assert levels_of(read_video(one, **SIZES, frames=most)) == [LEVELS[number] for number in kept]


def table(paths):
    return {"film": paths, "kind": [["ant", "bee", "cat"][i % 3] for i in range(N)],
            "part": ["train"] * 18 + ["val"] * 6 + ["test"] * 6}  # fmt: skip


def test_a_column_of_videos_is_a_modality(tmp_path):
    paths = [
        (frames if i % 2 else animation)(tmp_path / (f"{i}" if i % 2 else f"{i}.gif"), LEVELS[: 1 + i % 3]).name
        for i in range(N)
    ]
    paths[4] = ""
    options = {"label": "kind", "split": "part", "folder": tmp_path, "size": 8}
    data = from_table(table(paths), video="film", **options)
    stream = data.splits["train"].streams["film"]
    assert stream.values.shape == (18, 3, 8, 8, 1) and stream.values.dtype == np.uint8
    np.testing.assert_array_equal(stream.mask.sum(1)[:6], [1, 2, 3, 1, 0, 3])
    assert data.card.kinds == {"film": "video"} and isinstance(default_encoder(data, "film"), FrameVideo)
    assert "film: videos, 8 by 8, grey, the longest 3 frames, 1 missing" in data.card.description
    assert from_table(table(paths), video="film", frames=2, **options).splits["train"].streams["film"].length == 2

    (tmp_path / "empty").mkdir()
    (tmp_path / "1" / "0.png").write_bytes(b"none")
    content = (tmp_path / "2.gif").read_bytes()
    (tmp_path / "2.gif").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError) as error:
        from_table(table(["empty", *paths[1:3], "nowhere", *paths[4:]]), video="film", **options)
    said = str(error.value)
    assert "\n" not in said and "4 of 30 videos cannot be read: row 0: 'empty' (the folder holds no picture" in said
    assert "row 1: '1' (0.png: cannot identify image file" in said and "row 2: '2.gif' (" in said and "1 more" in said
    with pytest.raises(UsageError, match="1 frame or more, got frames=0"):
        from_table(table(paths), video="film", frames=0, **options)


def test_a_truncated_animation_names_its_frame():
    file = io.BytesIO()
    first, *others = [Image.effect_noise((64, 64), 90 + n) for n in range(4)]
    first.save(file, "GIF", save_all=True, append_images=others)
    with pytest.raises(ValueError, match=r"^frame 3: image file is truncated"):
        read_video(file.getvalue()[:-3000], **SIZES, frames=9)

"""Pictures show the numbers they were given, legibly and inside their frame; the same numbers give the same bytes."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage
from PIL import Image

from mmjax.evaluation.interpretation import charts, pictures
from mmjax.evaluation.report.plots.style import WIDTH

RNG = np.random.default_rng(0)
WORDS = [
    ["one", "odd", "river"],
    ["a", "considerably", "longer", "sentence", "that", "needs", "more", "than", "one", "line"],
]
WEIGHTS = [np.array([0.1, 2.0, -1.0]), np.linspace(-0.5, 0.5, 10)]
FRACTION = np.linspace(0, 1, 5)


def draw():
    """One picture of each kind."""
    frames, attribution = RNG.random((4, 6, 6, 1)), RNG.normal(size=(4, 6, 6))
    falling = np.linspace(1, 0, 5)[:, None] * RNG.uniform(0.5, 1, (1, 7))
    return {
        "image": pictures.image_picture(RNG.random((8, 8, 3)), RNG.normal(size=(8, 8, 3)), title="seven"),
        "video": pictures.video_picture(frames, attribution, np.array([True, True, True, False]), title="seven"),
        "text": pictures.text_picture(WORDS, WEIGHTS, labels=["true 1, predicted 3", "true 2"], title="words"),
        "spectrogram": pictures.spectrogram_picture(
            RNG.normal(size=(20, 8)), RNG.normal(size=(20, 8)), np.arange(20) < 15, hop_seconds=0.02,
            frequencies=np.linspace(100, 4000, 8), title="spoken seven",
        ),
        "modality": charts.modality_chart({"b": np.array([0.3, 1.0]), "a": np.array([0.7, 0.0])}, title="weights"),
        "removal": charts.removal_chart(FRACTION, falling**2, 1 - falling, falling[None], name="probability"),
    }  # fmt: skip


FIGURES = draw()


def images(figure):
    return [[a for a in axes.get_children() if isinstance(a, AxesImage)] for axes in figure.axes]


def texts(figure):
    """All that can be read; matplotlib also keeps ticks beyond the limits, which it does not draw."""
    found = [text for axes in figure.axes for text in axes.texts] + list(figure.texts)
    for axes in figure.axes:
        found += axes.get_legend().get_texts() if axes.get_legend() else []
        found.append(axes.title)
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels())
            found += [axis.label, *(label for place, label in ticks if low <= place <= high)]
    return [text for text in found if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("kind", sorted(FIGURES))
def test_a_picture_fits_its_column_and_can_be_read(kind):
    figure = FIGURES[kind]
    assert figure.get_figwidth() == pytest.approx(WIDTH, abs=0.01)
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in texts(figure):
        assert text.get_fontsize() >= 6
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text
    data = charts.png(figure)
    assert Image.open(io.BytesIO(data)).mode == "RGBA"  # a palette would cut the colour scale into steps
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 3000 and data == charts.png(figure)


@pytest.mark.parametrize("kind", sorted(FIGURES))
def test_colours_have_a_scale_and_axes_a_name(kind):
    figure = FIGURES[kind]
    labels = {text.get_text() for text in texts(figure)}
    expected = {
        "image": {"input", "attribution", "seven"},
        "video": {"seven", "frame 1", "frame 3", "attribution"},
        "text": {"attribution", "odd", "true 1, predicted 3"},
        "spectrogram": {"time (s)", "frequency (kHz)", "log power", "attribution"},
        "modality": {"weight", "1", "2"},
        "removal": {"deletion", "insertion", "probability", "input removed (%)", "input put back (%)"},
    }[kind]
    assert expected <= labels


def test_frames_that_are_padding_are_not_shown():
    shown = [drawn for drawn in images(FIGURES["video"]) if drawn and len(drawn) == 2]
    assert len(shown) == 3
    many = images(pictures.video_picture(RNG.random((30, 4, 4)), RNG.random((30, 4, 4))))
    assert sum(len(drawn) == 2 for drawn in many) == pictures.MOST


def test_red_speaks_for_and_blue_against_and_nothing_is_clear():
    attribution = np.array([[1.0, 0.0], [-1.0, 0.5]])
    figure = pictures.image_picture(np.zeros((2, 2)), attribution)
    over = next(drawn[1] for drawn in images(figure) if len(drawn) == 2)
    np.testing.assert_array_equal(over.get_array(), attribution)
    assert over.get_clim() == (-1, 1)
    (red, clear), (blue, _) = over.cmap(over.norm(attribution))
    assert red[0] > 2 * red[2] and red[3] == 1 and blue[2] > 2 * blue[0] and blue[3] == 1 and clear[3] == 0
    limited = pictures.image_picture(np.zeros((2, 2)), attribution, limit=4.0)
    assert next(drawn[1] for drawn in images(limited) if len(drawn) == 2).get_clim() == (-4, 4)


def test_a_word_stands_on_the_colour_of_its_weight_and_can_be_read_there():
    figure = FIGURES["text"]
    axes = figure.axes[0]
    boxes = [patch.get_facecolor()[:3] for patch in axes.patches]
    words = [text for text in axes.texts if text.get_text() in {w for words in WORDS for w in words}]
    assert len(boxes) == len(words) == 13
    assert [text.get_text() for text in words] == WORDS[0] + WORDS[1]
    assert boxes[1][0] > 3 * boxes[1][2] and boxes[2][2] > boxes[2][0]  # 2 is dark red, -1 blue

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for box, text in zip(boxes, words):
        light, dark = sorted((luminance(box), luminance(text.get_color())), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, text  # WCAG AA
    rows = {round(text.get_position()[1], 3) for text in words}
    assert len(rows) >= 3  # the second sentence was broken
    with pytest.raises(ValueError, match="2 weights for the 3 words 'one odd river'"):
        pictures.text_picture([WORDS[0]], [np.zeros(2)])


def test_bars_are_the_weights_one_after_the_other():
    bars = FIGURES["modality"].axes[0].patches
    placed = [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in bars]
    assert placed == [(0, 0.7), (0, 0.0), (0.7, 0.3), (0.0, 1.0)]  # a, then b
    assert [text.get_text() for text in FIGURES["modality"].legends[0].get_texts()] == ["a", "b"]


def test_curves_are_means_and_areas_stand_in_the_key():
    curve = np.array([[1.0, 0.8], [0.5, 0.3], [0.0, 0.0]])
    random = np.array([[[1.0, 0.8], [0.8, 0.6], [0.0, 0.0]]])
    figure = charts.removal_chart([0, 0.5, 1], curve, curve[::-1], random)
    deletion, insertion = figure.axes[:2]
    np.testing.assert_allclose(deletion.lines[0].get_ydata(), [0.9, 0.4, 0.0])
    np.testing.assert_allclose(insertion.lines[1].get_ydata(), [0.0, 0.7, 0.9])
    keys = [text.get_text() for text in deletion.get_legend().get_texts()]
    assert keys == ["ranked, area 0.42", "random, area 0.57"] or keys == ["ranked, area 0.43", "random, area 0.57"]


def test_a_spectrogram_shows_what_is_real_over_seconds():
    upper, lower = FIGURES["spectrogram"].axes[0], FIGURES["spectrogram"].axes[2]
    assert upper.get_xlim() == (0, pytest.approx(0.3)) and lower.get_xlim() == upper.get_xlim()
    assert all(image.get_array().shape == (8, 15) for image in lower.images)
    assert [label.get_text() for label in lower.get_yticklabels()] == ["0.1", "1.2", "2.9", "4.0"]


def test_a_users_own_style_changes_nothing():
    import matplotlib

    before = charts.png(charts.modality_chart({"a": np.ones(2)}))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert charts.png(charts.modality_chart({"a": np.ones(2)})) == before

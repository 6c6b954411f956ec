import base64
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mmjax.evaluation.report.columns import columns
from mmjax.evaluation.report.frame import make_frame
from mmjax.evaluation.report.html import format_html
from mmjax.evaluation.report.kinds import best_rows, kind_of, sections
from mmjax.evaluation.report.plots import alternative
from tests.evaluation.full import bare_summary, empty_summary, full_summary, records_of

PROBE = pathlib.Path(__file__).with_name("probe.js").read_text()
HOSTILE = 'a+b <script>document.title = "owned"</script> & "q" </script><img src=x onerror=alert(1)>'
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")  # fmt: skip


def opened(summary):
    """The number of the row whose gain the browser looks into."""
    return max(number for number, row in enumerate(summary["rows"]) if row["gain"])


def page_of(summary, **plots):
    return format_html(make_frame(summary), records_of(summary), {"Rows": PIXEL, **plots})


@pytest.fixture(scope="module")
def summary():
    summary = full_summary("cmu_mosi")
    summary["rows"][1] |= {"name": HOSTILE, "notes": "note of <b>it</b>"}
    gains = [row["gain"] for row in summary["rows"] if row["gain"]]
    gains[0] |= {"verdict": "better", "trivial": True}
    in_context = [row["gain"] for row in summary["rows"] if row["gain"] and "context" in row["section"]]
    in_context[1] |= {"verdict": "worse", "trivial": False}
    summary["title"] += " <i>&"
    return summary


@pytest.fixture(scope="module")
def page(summary):
    return page_of(summary, **{"Noise: one": PIXEL, "Noise: <two>": PIXEL, "Own plot": PIXEL})


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text of each."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag, **attrs):
        return [e for e in self.elements if e[0] == tag and all(e[1].get(k) == v for k, v in attrs.items())]

    def data(self):
        return json.loads("".join(self.all("script", type="application/json")[0][2]))


def text_of(element):
    return " ".join("".join(element[2]).split())


def test_nothing_is_loaded_and_only_its_own_script_may_run(page):
    reader = Reader(page)
    assert not reader.all("link")
    assert all(image[1]["src"].startswith("data:image/png;base64,") for image in reader.all("img"))
    assert not re.search(r"@import|url\(|https?://", re.sub(r"base64,[\w+/=]+", "", page))
    scripts = reader.all("script")
    assert [script[1] for script in scripts] == [{"type": "application/json", "id": "data"}, {}]
    policy = reader.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][1]["content"]
    for element in (scripts[1], reader.all("style")[0]):
        digest = base64.b64encode(hashlib.sha256("".join(element[2]).encode()).digest()).decode()
        assert f"-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [name for _, attrs, _ in reader.elements for name in attrs if name.startswith("on") or name == "style"]


def test_what_a_name_contains_is_text(page, summary):
    reader = Reader(page)
    assert HOSTILE in [text_of(button) for button in reader.all("button", **{"class": "row"})]
    assert reader.data()["rows"][1]["name"] == HOSTILE
    assert HOSTILE in reader.data()["records"]
    assert len(reader.all("img")) == 4  # the plots, not the one in the name
    assert text_of(reader.all("title")[0]) == summary["title"]
    assert "note of &lt;b&gt;it&lt;/b&gt;" in page


def test_each_cell_stands_in_its_column_and_opens_its_row(page, summary):
    reader = Reader(page)
    shown = columns(summary)
    heads = [text_of(head) for head in reader.all("th", scope="col")]
    assert heads == ["row", *(column.title for column in shown)]
    assert {"EMAP gap", "Shapley shares, %", "kept, noise, %", "reproduced?", "ALC", "params, fusion"} <= set(heads)
    lines = re.findall(r'<tr data-row="(\d+)"[^>]*>(.*?)</tr>', page)
    places = {row["name"]: place for place, row in enumerate(summary["rows"])}
    assert [int(number) for number, _ in lines] == [
        places[row["name"]] for _, rows in sections(summary["rows"]) for row in rows
    ]
    for number, line in lines:
        row = summary["rows"][int(number)]
        cells = [
            re.sub(r"<span class=.sign.*?</span> ?|<[^>]+>", "", c) for c in re.findall("<td[^>]*>(.*?)</td>", line)
        ]
        assert cells == [column.cell(row).text.replace("<", "&lt;") for column in shown]
    assert len(reader.all("tbody")) == len(sections(summary["rows"])) + 2  # known, published
    assert re.search(r'is-worse"><span class="sign" aria-hidden="true">▼</span> worse', page)
    assert re.search(r'is-better"><span class="sign" aria-hidden="true">▲</span> better, trivial', page)


def test_records_are_those_behind_the_rows(page, summary):
    data = Reader(page).data()
    row = summary["rows"][0]
    record = data["records"][row["name"]]
    place = record["names"].index("metrics.accuracy")
    assert [seed[place] for seed in record["seeds"]] == row["values"]
    assert record["shared"]["env.commit"] == "0123456789"
    assert record["shared"]["method.config_hash"] == f"c0ffee{len(row['name'])}"
    assert record["shared"]["logits_path.test"] == f"logits/row-{len(row['name'])}.npz:test"
    assert data["rows"] == summary["rows"]


def test_a_record_of_another_seed_or_row_is_left_out_and_nan_is_null(summary):
    records = records_of(summary)
    records += [{**records[0], "seed": 99}, {**records[0], "row": "elsewhere"}]
    records[0]["metrics"] = {"accuracy": float("nan")}
    data = Reader(format_html(make_frame(summary), records, {})).data()
    first = summary["rows"][0]
    assert len(data["records"][first["name"]]["seeds"]) == len(first["seeds"])
    assert "elsewhere" not in data["records"]
    assert None in data["records"][first["name"]]["seeds"][0]


def test_plots_say_what_to_see(page):
    captions = [text_of(caption) for caption in Reader(page).all("figcaption")]
    assert captions[0].startswith("RowsEach row's mean over seeds: grey of one modality")
    assert captions[1].startswith("Noise: oneWhat is left")
    assert captions[2:] == ["Noise: <two>Read like the one before.", "Own plot"]


def test_what_the_table_lacks_stands_on_its_face(page, summary):
    banner = text_of(Reader(page).all("div", role="note")[0])
    assert "Non-conforming" in banner
    assert all(part in banner for part in summary["missing_parts"])
    assert not Reader(page_of(empty_summary())).all("div", role="note")


@pytest.mark.parametrize("make", [bare_summary, empty_summary])
@pytest.mark.parametrize("name", ["uci_mfeat", "synthetic", "avletters"])
def test_fields_that_are_null_or_not_there_leave_their_columns_out(make, name):
    summary = make(name)
    heads = [text_of(head) for head in Reader(page_of(summary)).all("th", scope="col")]
    assert {"row", "ours", "95 % interval", "verdict", "ECE", "params"} <= set(heads)
    assert not {"EMAP gap", "kept, noise, %", "harmful", "ALC", "reproduced?", "gain over ensemble", "ms/step"} & set(
        heads
    )


def test_nothing_run_is_a_page_too():
    summary = bare_summary("uci_mfeat")
    kept = ("name", "section", "streams", "kind", "single", "paper", "notes", "extra")
    summary["rows"] = [{key: row[key] for key in kept} | {"status": "not run"} for row in summary["rows"]]
    text = format_html(make_frame(summary), [], {})
    assert text.count(">not run</td>") == len(summary["rows"])
    assert "Plots" not in text


def test_what_cannot_run_says_why():
    summary = bare_summary("uci_mfeat")
    summary["references"] = [{"name": "theirs", "value": 97, "source": "a book", "checked": False,
                              "cannot_run": "its data is <closed>"}]  # fmt: skip
    text = page_of(summary)
    assert 'theirs <span class="mark">(its data is &lt;closed&gt;)</span>' in text
    assert "</span> cannot run</span></td>" in text


def test_clocks_are_shown_only_when_given(summary):
    timing = {summary["rows"][0]["name"]: {"step_ms": 1.234, "peak_mb": 99.6}}
    text = format_html(make_frame(summary, timing), [], {})
    assert ">1.23</td>" in text
    assert ">100</td>" in text
    assert "ms/step" not in format_html(make_frame(summary), [], {})


def test_the_same_page_again(page, summary):
    assert page == page_of(summary, **{"Noise: one": PIXEL, "Noise: <two>": PIXEL, "Own plot": PIXEL})


def dump(page, folder, width=1400):
    """What a browser makes of the page: its document after the scripts have run."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1000",
               "--dump-dom", (folder / "report.html").as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout


def framed(page, script, width, folder, shot=None):
    """What a script outside sees of the page in a frame of that width; a picture of it too, if wanted.

    A window of a browser cannot be narrower than some 500 pixels; a frame can.
    """
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    frame = f'<iframe style="border:0;width:{width}px;height:1000px" srcdoc="{inside}"></iframe>'
    outside = f"<!doctype html><body style='margin:0'>{frame}{script}"
    if shot is not None:
        (folder / "report.html").write_text(outside, encoding="utf-8")
        command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'shot'}", f"--window-size={width},1000",
                   "--force-device-scale-factor=1", f"--screenshot={shot}",
                   (folder / "report.html").as_uri()]  # fmt: skip
        subprocess.run(command, capture_output=True, timeout=200, check=True)
    return json.loads("".join(Reader(dump(outside, folder, width)).all("pre", id="found")[0][2]))


needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def found(page, summary, tmp_path_factory):
    """What a script at the end of a copy of the page, allowed by its policy, clicked and saw."""
    probe = PROBE.replace("OPENED", str(opened(summary)))
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    copy = page.replace("; script-src ", f"; script-src 'sha256-{digest}' ", 1)
    copy = copy.replace("</body>", f"<script>{probe}</script></body>")
    result = Reader(dump(copy, tmp_path_factory.mktemp("browser"))).all("pre", id="found")
    found = json.loads("".join(result[0][2]))
    assert found["errors"] == []
    return found


@needs_browser
def test_a_click_on_a_heading_sorts_within_sections(found, summary):
    first, second, third = found["first"], found["second"], found["third"]
    assert (first["sort"], second["sort"], third["sort"]) == ("descending", "ascending", None)
    assert first["values"] == sorted(first["values"], reverse=True)
    assert second["values"] == sorted(second["values"])
    assert first["names"] != found["original"]
    assert sorted(first["names"]) == sorted(found["original"])
    assert third["names"] == found["original"]
    assert found["sections"] == found["sections_after"]
    assert "Sorted by ours, descending" in first["said"]
    assert found["original"] == [r["name"] for r in summary["rows"] if r["section"] == summary["rows"][0]["section"]]


@needs_browser
def test_the_filter_wants_every_word(found, summary):
    expected = [
        row["name"] for row in summary["rows"]
        if row["gain"] and row["gain"]["verdict"] == "worse" and "context" in row["section"] + row["name"]
    ]  # fmt: skip
    assert found["filtered"]["names"] == expected
    assert found["filtered"]["rows"] == len(expected) > 0
    assert found["filtered"]["count"] == f"{len(expected)} of {found['rows']} rows"
    assert found["unfiltered"] == found["rows"]
    assert found["rows"] == sum(len(lines) for _, lines in make_frame(summary).blocks)


@needs_browser
def test_a_cell_opens_the_record_behind_it(found, summary):
    row = summary["rows"][opened(summary)]
    text = found["dialog"]["text"]
    assert found["dialog"]["open"]
    assert found["closed"]
    for expected in (row["name"], "gain over best single", "gain.p_holm", "method.config_hash", "c0ffee", "env.device",
                     "logits_path.test", f"logits/row-{len(row['name'])}.npz:test", "metrics.accuracy",
                     *(f"{value:.6g}" for value in row["values"])):  # fmt: skip
        assert expected in text
    assert found["walked"] == ["1", columns(summary)[0].key]
    assert found["entered"]


@needs_browser
def test_groups_of_columns_hide_and_themes_differ(found):
    assert found["hidden"] == {"pressed": "false", "shown": False}
    assert set(found["themes"]) == {"auto", "light", "dark"}
    assert found["themes"]["light"] != found["themes"]["dark"]
    assert not found["overflow"]  # wide tables scroll in their own box
    assert found["broken"] == 0


def test_the_best_row_stands_out_and_each_says_its_kind(page, summary):
    lines = re.findall(r'<tr data-row="(\d+)"( class="best")?>(.*?)</tr>', page)
    best = {summary["rows"][int(number)]["name"] for number, marked, _ in lines if marked}
    assert best == set().union(*(best_rows(rows) for _, rows in sections(summary["rows"])))
    assert not best & {row["name"] for row in summary["rows"] if row["best_single"]}  # the reference is another row
    for number, marked, line in lines:
        row = summary["rows"][int(number)]
        assert f'aria-label="{kind_of(row)}"' in line
        assert ('<span class="badge">best</span>' in line) == bool(marked)


def test_words_stand_for_pictures_that_are_not_seen(page, summary):
    alternatives = [image[1]["alt"] for image in Reader(page).all("img")]
    assert alternatives[0] == alternative("Rows", summary) and "Best on test: " in alternatives[0]
    assert alternatives[-1] == "Own plot"


@needs_browser
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_no_column_is_cut_off_without_a_hint(page, width, tmp_path):
    """In a frame of that width: what the page says lies to the right does, whatever was clicked or scrolled."""
    script = """<script>onload = () => {
      const inner = document.querySelector('iframe').contentDocument, pre = document.createElement('pre');
      const box = inner.querySelector('.scroll'), more = inner.getElementById('more'), seen = [];
      const turn = () => box.dispatchEvent(new Event('scroll'));  // a browser that draws nothing tells of none
      const look = () => {
        const edge = box.getBoundingClientRect().left + box.clientLeft + box.clientWidth;
        const cut = [...inner.querySelectorAll('#table thead th')].filter((head) => head.offsetWidth &&
          head.getBoundingClientRect().right > edge + 1);
        const off = [...inner.querySelectorAll('[data-group][aria-pressed=false]')].map((one) => one.dataset.group);
        seen.push({cut: cut.map((head) => head.dataset.title), off: off, shade: getComputedStyle(box.parentElement,
          '::after').opacity, said: more.checkVisibility() ? more.textContent : ''});
      };
      look();
      inner.querySelectorAll('[data-group][aria-pressed=false]').forEach((one) => one.click());
      look();
      more.click(); turn(); look();
      box.scrollLeft = 1e6; turn(); look();
      inner.querySelector('[data-group=gain]').click(); turn(); look();
      pre.id = 'found'; pre.textContent = JSON.stringify(seen); document.body.append(pre); }</script>"""
    seen = framed(page, script, width, tmp_path)
    assert seen[0]["cut"] or seen[0]["off"]
    for state in seen:
        for title in state["cut"][:4]:
            assert title in state["said"]
        assert (f"{len(state['cut'])} column" in state["said"]) == bool(state["cut"])
        assert (state["shade"] == "1") == bool(state["cut"]), seen
        assert all(group in state["said"] for group in state["off"])
    assert len(seen[2]["cut"]) < len(seen[1]["cut"])  # a click on the hint goes there
    assert seen[3]["cut"] == [] and seen[3]["said"] == ""
    assert seen[4]["off"] == ["gain"] and "gain" in seen[4]["said"]


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_every_row_has_its_line(page, width, tmp_path):
    """In the picture of the page: below each other the same lines in the column of names, which stays, as beside it."""
    script = """<script>onload = () => { const inner = document.querySelector('iframe').contentDocument,
      pre = document.createElement('pre'), seen = {rows: [], left: 0};
      inner.querySelector('.scroll').scrollIntoView();
      inner.querySelectorAll('#table tbody tr').forEach((row) => { const one = row.cells[0].getBoundingClientRect();
        seen.rows.push(one.top); seen.left = one.left; });
      seen.right = inner.querySelector('tbody tr[data-row] td.ours').getBoundingClientRect().left;
      const box = inner.querySelector('.scroll');  // its bar lies over the last lines
      seen.bottom = box.getBoundingClientRect().top + box.clientTop + box.clientHeight;
      seen.head = inner.querySelector('thead th').getBoundingClientRect().bottom;
      pre.id = 'found'; pre.textContent = JSON.stringify(seen); document.body.append(pre); }</script>"""
    seen = framed(page, script, width, tmp_path, shot=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    line = np.array([0xD5, 0xDA, 0xE0])
    rows = [top for top in seen["rows"] if seen["head"] + 2 < top < seen["bottom"] - 2]
    assert len(rows) > 12  # rows that lie on the page above the bar
    assert all((top - rows[0]) % 1 == 0 for top in rows)  # else some lines fall between pixels
    for x in (seen["left"] + 3, seen["right"] + 3):  # in the padding, where no letter stands
        drawn = [top for top in rows if abs(pixels[round(top), int(x)] - line).max() < 12]
        assert drawn == rows, (width, x)


@needs_browser
def test_a_hostile_name_does_nothing(found, summary):
    assert found["title"] == summary["title"]
    assert found["hostile"] == {"text": HOSTILE, "images": 0}


@needs_browser
def test_a_phone_shows_the_main_columns_and_no_stranger_runs(page, tmp_path):
    stranger = "<script>document.title = 'owned'</script>"
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    frame = f'<iframe style="width:390px;height:800px" srcdoc="{inside}">'
    told = "<script>onload = () => { const inner = document.querySelector('iframe').contentDocument, pre = " \
           "document.createElement('pre'); pre.id = 'found'; const see = (q) => " \
           "getComputedStyle(inner.querySelector(q)).display !== 'none'; pre.textContent = JSON.stringify([" \
           "see('td.ours'), see('td.verdict'), see('td.params'), see('td.paper'), " \
           "inner.documentElement.scrollWidth]); document.body.append(pre); }</script>"  # fmt: skip
    seen = Reader(dump(f"<!doctype html><body>{frame}</iframe>{told}", tmp_path)).all("pre", id="found")
    *shown, width = json.loads("".join(seen[0][2]))
    assert shown == [True, True, False, False]
    assert width <= 390  # nothing but the table's own box scrolls sideways
    (tmp_path / "again").mkdir()
    assert "<title>owned" not in dump(page.replace("</body>", stranger + "</body>"), tmp_path / "again")

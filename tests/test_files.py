"""What lies in a folder already is never written through: links in the place of our files are other people's files."""

import pytest

from mmjax.files import DamagedFile, read_json, replace_file


@pytest.mark.parametrize("name", ["table.json", "table.json.tmp", ".table.json.tmp"])
def test_a_link_in_the_place_of_a_file_or_its_partial_one_is_not_followed(tmp_path, name):
    others = tmp_path / "others.txt"
    others.write_text("theirs")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(others)
    replace_file(folder / "table.json", b"ours")
    assert others.read_text() == "theirs"
    assert (folder / "table.json").read_bytes() == b"ours" and not (folder / "table.json").is_symlink()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_named_in_one_line(tmp_path, content):
    (tmp_path / "table.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"^damaged: .*table\.json \(.+\)$"):
        read_json(tmp_path / "table.json")

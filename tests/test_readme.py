"""The code in the README runs as it stands, block after block in one namespace."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_python_blocks_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    assert len(blocks) >= 3
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    weights = namespace["weights"]
    assert weights.shape == (2, 3) and weights[0, 2] == 0 and weights[1, 2] > 0  # audio, text, video
    assert "additive attention" in capsys.readouterr().out


def test_the_first_bash_block_holds_the_two_commands():
    first = re.search(r"^```bash\n(.*?)^```", README.read_text(), flags=re.M | re.S).group(1).splitlines()
    assert len(first) == 2
    assert first[0].endswith("-m experiments table digits") and "-m pytest" in first[1]

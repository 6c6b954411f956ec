"""``python -m experiments COMMAND``: the command line of ``mmjax.cli``, with the tables of this folder."""

from mmjax.cli import script

if __name__ == "__main__":
    script(prog="python -m experiments")

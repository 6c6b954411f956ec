"""``python -m experiments COMMAND``: the command line of ``mmjax.cli``, with the tables of this folder."""

from mmjax.cli import leave, main

if __name__ == "__main__":
    leave(main(prog="python -m experiments"))

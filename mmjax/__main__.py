"""``python -m mmjax COMMAND``."""

from mmjax.cli import script

if __name__ == "__main__":
    script()

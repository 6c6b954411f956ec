"""Templates of the report, which lie in ``templates/``; a name that one does not know is an error."""

import pathlib
from typing import Any

from mmjax.extras import extra

__all__ = ["TEMPLATES", "load_template"]

TEMPLATES = pathlib.Path(__file__).with_name("templates")


def load_template(name: str, **options: Any) -> Any:
    """A template of jinja2, whose blocks leave no blank lines behind.

    Args:
      options: of ``jinja2.Environment``: how a value is escaped.
    """
    with extra():
        import jinja2
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    ).get_template(name)

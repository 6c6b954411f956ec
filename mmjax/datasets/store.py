"""Prepares a data set once in the cache folder, safely beside other processes, and reads it back."""

import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns, Recipe
from mmjax.datasets.sources import cache_folder, data_folder, verify
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["columns_of", "columns_sha256", "content_note", "prepare"]

NOTE = "mmjax.json"  # in the prepared folder: the digest of its content


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process prepares the same data set; the end of the holder, however it ends, frees it."""
    try:
        import fcntl
    except ImportError:  # Windows: the rename that ends a preparation is the only guard there
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS prints, warns of a configuration of ours, and draws bars for what takes a second."""
    from tensorflow_datasets.core.utils import tqdm_utils

    logger = logging.getLogger("absl")
    level, bars = logger.level, tqdm_utils._active
    logger.setLevel(logging.ERROR)
    tqdm_utils.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tqdm_utils.display_progress_bar(bars)


def prepare(
    name: str,
    recipe: Recipe,
    options: Any,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Any:
    """The TFDS builder of a data set whose files stand in the cache folder; prepares them if they do not.

    Source files are verified whenever a folder of them is named, also when the prepared files are there already.

    Raises:
      UsageError: source files that are missing, truncated or altered; a cache folder that cannot be written.
    """
    files = dict(recipe.files(options))
    folder, root = data_folder(data_dir), cache_folder(cache_dir)
    if files and folder is not None:
        files = verify(name, folder, files, recipe.fetch)
    with extra():
        from mmjax.datasets.builder import Config  # imports TFDS

    def make() -> Any:
        """A builder reads what is prepared when it is made, so one made before the end of a preparation is stale."""
        config = Config(name=recipe.key(options, files), options=options)
        try:
            with _quiet():
                return recipe.builder()(data_dir=root, config=config, file_format="array_record")
        except (UsageError, OSError):
            raise
        except Exception as error:  # what TFDS, protobuf and JSON raise for a damaged dataset_info.json
            why = f"dataset_info.json: {type(error).__name__}"
            raise UsageError(_damaged(name, root / name / config.name, why)) from error

    path = make().data_path
    if files and folder is None and not path.exists():
        verify(name, folder, files, recipe.fetch)  # says what to fetch
    try:
        if not path.exists():
            (root / name).mkdir(parents=True, exist_ok=True)
            with _lock(root / name / "lock"):
                for left in (root / name).glob("*/incomplete.*"):  # of a killed preparation: nobody else is at it now
                    shutil.rmtree(left, ignore_errors=True)
                if not path.exists():
                    _write(make(), folder)
    except OSError as error:
        raise UsageError(f"{name}: cannot write the cache folder {root}: {error}; pass another --cache-dir") from None
    return make()


def _write(builder: Any, folder: pathlib.Path | None) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=folder)
    try:
        with _quiet():
            builder.download_and_prepare(download_config=config)
    except OSError:
        if not builder.data_path.exists():  # else another process, without locks, was first
            raise
    except Exception as error:  # array_record tells of a full disk in words: "write() failed: No space left on device"
        if not (failed := re.search(r"\b\w+\(\) failed: [^;\n]+", str(error))):
            raise
        raise OSError(failed.group()) from error


def columns_of(name: str, builder: Any) -> Columns:
    """All examples of all splits, as columns in the order of the examples.

    Raises:
      UsageError: prepared files that cannot be read.
    """
    columns: Columns = {}
    try:
        for split in SPLITS:
            source = builder.as_data_source(split=split)
            rows = source.__getitems__(list(range(len(source))))
            columns[split] = {key: [row[key] for row in rows] for key in builder.info.features}
    except Exception as error:  # array_record, protobuf and TFDS raise many kinds for damaged files
        raise UsageError(_damaged(name, builder.data_path, f"{type(error).__name__}")) from error
    return columns


def columns_sha256(columns: Columns) -> str:
    """A digest of every stored value of every example: arrays, numbers, bytes of text."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for name, rows in sorted(columns[split].items()):
            digest.update(f"{split}/{name} {len(rows)}\n".encode())
            for row in rows:
                for value in row if isinstance(row, list) else [row]:
                    array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.ascontiguousarray(value)
                    digest.update(f"{array.dtype.str} {array.shape}\n".encode())
                    digest.update(array.tobytes())
    return digest.hexdigest()


def content_note(name: str, builder: Any, sha256: str) -> None:
    """Notes the digest of the content at the first reading, and compares it at every other.

    Raises:
      UsageError: the prepared files are not what they were.
    """
    path = pathlib.Path(builder.data_path) / NOTE
    try:
        if json.loads(path.read_text())["sha256"] != sha256:
            raise UsageError(_damaged(name, builder.data_path, "their content changed"))
    except FileNotFoundError:
        partial = path.with_name(f"{NOTE}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a cache that is only read needs no note
            partial.write_text(json.dumps({"sha256": sha256, "options": str(builder.options)}))
            partial.replace(path)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(_damaged(name, builder.data_path, f"{NOTE} cannot be read")) from None


def _damaged(name: str, path: Any, why: str) -> str:
    return f"{name}: the prepared files in {path} are damaged ({why}); delete that folder and run again"

"""What vouches for a checkpoint: the checksum of each of its files, and the JSON values that belong to its arrays."""

import json
from pathlib import Path
from typing import Any

import jax
import xxhash

from ..config import ConfigError
from ..types import PyTree
from ..version import __version__
from .folder import write_whole

NAME = "manifest.json"


class Damaged(Exception):
    """A checkpoint is not what was written; the message says which file."""


def write(folder: Path, content: dict[str, Any], known: dict[str, str]) -> None:
    """Vouch for everything in `folder` and for the JSON values `content`; the checksums of some files are `known`."""
    names = [str(x.relative_to(folder)) for x in sorted(folder.rglob("*")) if x.is_file()]
    files = {name: known.get(name) or _of_file(folder / name) for name in names}
    content = {"jdqn": __version__, "files": files} | content
    write_whole(folder / NAME, json.dumps({"checksum": _of_content(content), "content": content}))


def read(folder: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint, its files unseen; none if the manifest itself is damaged."""
    try:
        found = json.loads((folder / NAME).read_bytes())
        whole = _of_content(found["content"]) == found["checksum"]
    except (OSError, ValueError, KeyError, TypeError):  # unreadable, no JSON, or JSON of something else
        return {}
    return found["content"] if whole else {}


def verified(folder: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint, every file of which is as it was written.

    Raises:
        Damaged: one is not.
    """
    content = read(folder)
    if not content:
        raise Damaged(f"{folder / NAME} is damaged")
    for name, checksum in content["files"].items():
        try:
            whole = _of_file(folder / name) == checksum
        except OSError as error:
            raise Damaged(f"{folder / name} cannot be read ({error.strerror})") from error
        if not whole:
            raise Damaged(f"{folder / name} is damaged")
    return content


def arrays(tree: PyTree) -> dict[str, str]:
    """Path of each array -> its dtype and shape, as text."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def require_arrays(content: dict[str, Any], like: PyTree, folder: Path) -> None:
    """Refuse the checkpoint of a version that kept other arrays.

    Raises:
        ConfigError: naming both versions and the first field.
    """
    wanted, found = arrays(like), content["arrays"]
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ConfigError(
                f"{folder} was written by jdqn {content['jdqn']} and holds {name} as {found.get(name, 'nothing')}, "
                f"where jdqn {__version__} keeps {wanted.get(name, 'nothing')}: go on with the version that wrote it"
            )


def _of_content(content: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def _of_file(path: Path) -> str:
    hashed = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            hashed.update(block)
    return hashed.hexdigest()

"""Arrays on disk as they lie in memory, in NumPy's own formats: as fast as the disk, and `numpy.load` opens them.

An array that is spread over devices has a piece for each of them. Every process writes the pieces that it holds, and
reads whatever it needs, so that the next run can have other devices. A piece is named by the number of its array and
its first row; large ones have a file each, and the small ones of a process share one.
"""

import concurrent.futures
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xxhash

LARGE = 1 << 20  # bytes of a piece
THREADS = 4  # that copy an array of many such pieces; one alone does not reach what the memory can do


class Piece(NamedTuple):
    """Some rows of an array."""

    number: int  # of the array
    start: int  # its first row
    rows: np.ndarray


def copy(leaves: list[Any], old: list[Piece]) -> list[Piece]:
    """Copy what this process holds of `leaves`, into the memory of `old`, where they have the same shapes.

    Memory that the system has handed out already is filled several times as fast as new memory.
    """
    there = {(piece.number, piece.start): piece.rows for piece in old}
    pieces = [piece for number, array in enumerate(leaves) for piece in _held(number, array)]
    return [piece._replace(rows=_copy(piece.rows, there.get(piece[:2]))) for piece in pieces]


def _copy(rows: np.ndarray, target: np.ndarray | None) -> np.ndarray:
    if target is None or target.shape != rows.shape or target.dtype != rows.dtype:
        target = np.empty(rows.shape, rows.dtype)
    if rows.nbytes < 16 * LARGE:
        np.copyto(target, rows)
        return target
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        parts = (np.array_split(x.reshape(-1), THREADS) for x in (target, rows))
        list(pool.map(np.copyto, *parts))
    return target


def _held(number: int, array: Any) -> list[Piece]:
    """Each piece of an array once, whichever device has it."""
    if isinstance(array, np.ndarray):
        return [Piece(number, 0, array)]
    mine = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    return [Piece(number, (x.index[0].start or 0) if x.index else 0, np.asarray(x.data)) for x in mine]


def write(folder: Path, pieces: list[Piece], process: int) -> None:
    """Write what this process holds, and be sure that it is on disk.

    Raises:
        OSError: there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    small = {}
    for piece in pieces:
        if piece.rows.nbytes < LARGE:
            small[_name(piece)] = piece.rows
            continue
        with (folder / f"{_name(piece)}.npy").open("wb") as file:
            np.save(file, piece.rows)
            _sync(file)
    part = folder / f"small-{process}.part"
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **small)
        _sync(file)
    part.replace(part.with_suffix(".npz"))  # which says that this process has written everything


def checksums(pieces: list[Piece]) -> dict[str, str]:
    """The checksums that files of large pieces have to have, by their names; taken of the memory."""
    return {f"{_name(piece)}.npy": _checksum(piece.rows) for piece in pieces if piece.rows.nbytes >= LARGE}


def _name(piece: Piece) -> str:
    return f"{piece.number:04d}-{piece.start}"


def _checksum(rows: np.ndarray) -> str:
    """That of the file which np.save makes of an array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(rows))
    hashed = xxhash.xxh3_128(header.getvalue())
    hashed.update(rows.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def written(folder: Path) -> int:
    """How many processes have written all that they hold."""
    return len(list(folder.glob("small-*.npz")))


class Reader:
    """The arrays in a folder, whichever processes wrote them."""

    def __init__(self, folder: Path):
        self._pieces: dict[int, list[tuple[int, Any]]] = {}
        for path in sorted(folder.glob("*.npy")):
            self._add(path.stem, np.load(path, mmap_mode="r", allow_pickle=False))
        for path in sorted(folder.glob("small-*.npz")):
            with np.load(path, allow_pickle=False) as file:
                for name in file.files:
                    self._add(name, file[name])
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece[0])

    def _add(self, name: str, piece: np.ndarray) -> None:
        number, start = name.split("-")
        self._pieces.setdefault(int(number), []).append((int(start), piece))

    def read(self, number: int, like: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
        """Array `number`, of the shape and dtype of `like`: NumPy's, or on the devices of `sharding`.

        The latter may cut its leading axis.
        """
        pieces = self._pieces[number]

        def rows(index: tuple[slice, ...] | None = None) -> np.ndarray:
            if not like.shape:
                return np.array(pieces[0][1])
            begin, end, _ = (index[0] if index else slice(None)).indices(like.shape[0])
            found = np.empty((end - begin, *like.shape[1:]), like.dtype)
            for start, piece in pieces:
                low, high = max(start, begin), min(start + len(piece), end)
                if low < high:
                    found[low - begin : high - begin] = piece[low - start : high - start]
            return found

        return rows() if sharding is None else jax.make_array_from_callback(like.shape, sharding, rows)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())

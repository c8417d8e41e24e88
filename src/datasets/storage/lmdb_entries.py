"""What an LMDB holds, without touching the values.

The library reads the first page of each value even where only keys are asked for: in a file that is
not in memory 200,000 videos took it 20 s on a fast disk. Keys and sizes stand in the pages of the
tree alone, a thousandth of the file, so these are read here.

Source: the layout of pages in ``mdb.c`` of LMDB 0.9 (data version 1) on 64-bit little-endian
machines. What is laid out otherwise is left to the library.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PAGE = struct.Struct("<QHHHH")  # number, unused, flags, end of the pointers, start of the nodes
_NODE = struct.Struct("<HHHH")  # size or child in three parts, of which flags are one; key's size
_META = struct.Struct("<IIQQ")  # magic number, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, pages of 3 kinds, entries, root
_LAST = struct.Struct("<QQ")  # last page, transaction
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF = 0x01, 0x02  # flags of pages
_IN_OTHER_PAGES = 0x01  # flag of a node whose value lies in pages of its own
_NO_PAGE = 2**64 - 1


class _Meta(NamedTuple):
    transaction: int
    page_size: int
    flags: int
    num_entries: int
    root: int


def read_entries(path: Path) -> dict[bytes, int] | None:
    """Keys and the sizes of their values, in bytes; ``None`` if the library must be asked.

    Args:
        path: the file of the data.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        first = _meta_at(file, 0)
        second = _meta_at(file, first.page_size) if first is not None else None
        if first is None or second is None:
            return None
        meta = max(first, second)
        if meta.flags:  # several values of a key, numbers as keys, and the like
            return None
        entries = dict(_entries_below(file, meta.root, meta.page_size))
    except (struct.error, ValueError):
        return None
    finally:
        os.close(file)
    return entries if len(entries) == meta.num_entries else None


def _meta_at(file: int, offset: int) -> _Meta | None:
    """What stands at the beginning of the file, twice: the later transaction counts."""
    data = os.pread(file, _PAGE.size + _META.size + 2 * _TREE.size + _LAST.size, offset)
    magic, version, _, _ = _META.unpack_from(data, _PAGE.size)
    if (magic, version) != (_MAGIC, _VERSION):
        return None
    trees = _PAGE.size + _META.size
    page_size, *_ = _TREE.unpack_from(data, trees)
    _, flags, _, _, _, _, num_entries, root = _TREE.unpack_from(data, trees + _TREE.size)
    _, transaction = _LAST.unpack_from(data, trees + 2 * _TREE.size)
    return _Meta(transaction, page_size, flags, num_entries, root)


def _entries_below(file: int, root: int, page_size: int) -> Iterator[tuple[bytes, int]]:
    pending = [] if root == _NO_PAGE else [root]
    while pending:
        number = pending.pop()
        page = os.pread(file, page_size, number * page_size)
        found, _, flags, end, _ = _PAGE.unpack_from(page)
        if found != number or not flags & (_BRANCH | _LEAF):
            raise ValueError(f"page {number} belongs to no tree")
        pointers = struct.unpack_from(f"<{(end - _PAGE.size) // 2}H", page, _PAGE.size)
        for pointer in pointers:
            low, high, node_flags, key_size = _NODE.unpack_from(page, pointer)
            if flags & _BRANCH:
                pending.append(low | high << 16 | node_flags << 32)
            elif node_flags & ~_IN_OTHER_PAGES:
                raise ValueError("a database within the database")
            else:
                start = pointer + _NODE.size
                yield page[start : start + key_size], low | high << 16

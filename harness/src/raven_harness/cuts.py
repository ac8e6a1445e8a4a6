"""What a power cut may leave of a program's files.

A program runs under strace, which records what it does to the files of one folder.  What was
written to a file is on the disk for certain once the file was synced; a name is there for certain
once its folder, or the file that has it, was.  Of the rest a cut may leave any part, in any order,
and of a write its first sectors only.

This is the model of Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014): a disk
and file system that keep their word, and do nothing more.  What Linux adds to POSIX and every one
of its file systems keeps is that a synced file has its name.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from os.path import normpath
from pathlib import Path
from random import Random
from typing import Final

SECTOR: Final = 512
ALL_SUBSETS: Final = 4
"""Up to so many writes that are not certain, each choice of them is tried."""
CHANCE: Final = 6
"""So many choices by chance are tried of more."""

ROOT: Final = 0
"""The folder's own number; names lead to those of files, above it, and of folders, below it."""


@dataclass(frozen=True, slots=True)
class Named:
    """Names, each in its folder, that lead to a file or folder from now on, or to nothing."""

    names: Mapping[tuple[int, str], int | None]


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes in a file."""

    file: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file has another size."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or folder is on the disk as it is."""

    file: int


@dataclass(frozen=True, slots=True)
class Said:
    """The program said something on its standard output."""

    line: str


Operation = Named | Written | Cut | Synced | Said
Change = Named | Written | Cut


class Disk:
    """A folder of which each operation changes something."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], int | None] = {}
        self._files: defaultdict[int, bytearray] = defaultdict(bytearray)

    def apply(self, change: Change, sectors: int | None = None) -> None:
        """Do what a program did; of a write the first ``sectors`` alone."""
        match change:
            case Named(names):
                self._names.update(names)
            case Written(file, at, data):
                kept = data if sectors is None else data[: sectors * SECTOR]
                content = self._files[file]
                content.extend(bytes(max(0, at - len(content))))
                content[at : at + len(kept)] = kept
            case Cut(file, size):
                content = self._files[file]
                del content[size:]
                content.extend(bytes(size - len(content)))

    def put(self, folder: Path, number: int = ROOT) -> None:
        """Make the files in a folder."""
        folder.mkdir()
        for (parent, name), file in self._names.items():
            if parent != number or file is None:
                continue
            if file > ROOT:
                (folder / name).write_bytes(self._files[file])
            else:
                self.put(folder / name, file)


@dataclass(frozen=True, slots=True)
class Left:
    """What a cut left, and what the program had said before."""

    after: int
    """Operations before the cut."""
    uncertain: int
    """Of these, changes that no sync had made certain."""
    said: tuple[str, ...]
    disk: Disk


@dataclass(frozen=True, slots=True)
class Recording:
    """What a program did to a disk, and what was there before."""

    before: Disk
    operations: Sequence[Operation]
    paths: Mapping[int, str]
    """What each file and folder was called last, below the folder."""


def left(
    recording: Recording, chance: Random, points: int | None = None, choices: int | None = None
) -> Iterator[Left]:
    """Yield what cuts may leave: after each operation, or after ``points`` of them by chance.

    Of what one cut may leave, ``choices`` by chance are yielded, or all that are thought of.
    """
    operations = recording.operations
    certain = _certain(operations)
    cuts: Sequence[int] = range(len(operations) + 1)
    if points is not None and points < len(cuts):
        cuts = sorted(chance.sample(cuts, points))
    for cut in cuts:
        before = operations[:cut]
        said = tuple(one.line for one in before if isinstance(one, Said))
        changes = [(number, one) for number, one in enumerate(before) if isinstance(one, Change)]
        uncertain = [number for number, _ in changes if certain[number] >= cut]
        first = uncertain[0] if uncertain else cut
        base = deepcopy(recording.before)
        for number, change in changes:
            if number < first:
                base.apply(change)
        all_kept = list(_choices(uncertain, chance))
        if choices is not None and choices < len(all_kept):
            all_kept = chance.sample(all_kept, choices)
        for kept in all_kept:
            disk = deepcopy(base)
            for number, change in changes:
                if number >= first and (certain[number] < cut or number in kept):
                    disk.apply(change, kept.get(number))
            yield Left(cut, len(uncertain), said, disk)


def _certain(operations: Sequence[Operation]) -> list[int]:
    """Return for each operation the number of the sync that makes it certain, or their count."""
    certain = [len(operations)] * len(operations)
    waiting: list[int] = []
    for number, operation in enumerate(operations):
        if isinstance(operation, Synced):
            now = [one for one in waiting if _covers(operation.file, operations[one])]
            for one in now:
                certain[one] = number
            waiting = [one for one in waiting if certain[one] != number]
        elif isinstance(operation, Change):
            waiting.append(number)
    return certain


def _covers(synced: int, operation: Operation) -> bool:
    match operation:
        case Named(names):
            return synced in names.values() or any(parent == synced for parent, _ in names)
        case Written(file) | Cut(file):
            return file == synced
    return False


def _choices(uncertain: list[int], chance: Random) -> Iterator[dict[int, int | None]]:
    """Yield which of some changes a cut leaves, each with its sectors; None is all of them."""
    if len(uncertain) <= ALL_SUBSETS:
        for count in range(len(uncertain) + 1):
            for some in combinations(uncertain, count):
                yield dict.fromkeys(some)
    else:
        yield {}
        yield dict.fromkeys(uncertain)
        for _ in range(CHANCE):
            yield dict.fromkeys(chance.sample(uncertain, chance.randrange(len(uncertain))))
            yield dict.fromkeys(set(uncertain) - {chance.choice(uncertain)})
    if uncertain:
        # The last one is torn: the disk was at it.
        yield dict.fromkeys(uncertain) | {uncertain[-1]: chance.randrange(8)}


_CALLS: Final = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,"
    "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,"
    "link,linkat,sendfile,copy_file_range,mmap,io_submit,io_uring_enter"
)
_LINE: Final = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_CALL: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+)")
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_UNFINISHED: Final = " <unfinished ...>"
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPENED: Final = re.compile(r"^(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")
_SHARED_MEMORY: Final = ("-shm", "/tc.log")
"""SQLite makes its own anew after a cut; MariaDB's is for transactions of several engines."""
_SHARED: Final = ("PROT_WRITE", "MAP_SHARED")


def record(command: Sequence[str], folder: Path, log: Path) -> Recording:
    """Run a command to its end; return what it did to the files of a folder.

    Raises CalledProcessError if it fails, and NotImplementedError for a call that is not modelled.
    ``log`` is where strace writes.
    """
    strace = ["strace", "-f", "-y", "-xx", "-s", str(2**26), "-e", f"trace={_CALLS}"]
    recording = _Recorder(str(folder))
    recording.find(folder)
    subprocess.run([*strace, "-o", str(log), *command], check=True, stdout=subprocess.PIPE)
    for name, arguments, result, first in _calls(log):
        if name == "write" and first and arguments.startswith("1<"):
            recording.operations += [Said(line) for line in _data(arguments).decode().splitlines()]
        else:
            recording.take(name, arguments, result)
    return Recording(recording.before, recording.operations, recording.paths)


def _calls(log: Path) -> Iterator[tuple[str, str, int, bool]]:
    """Yield each call that succeeded, in the order of their ends.

    With its name, arguments and result comes whether the command's first thread made it.
    """
    first = ""
    begun: dict[str, str] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            match = _LINE.match(line)
            if not match:
                raise ValueError(f"strace wrote {line[:80]!r}")
            thread, rest = match["thread"], match["rest"]
            first = first or thread
            if rest.endswith(_UNFINISHED):
                begun[thread] = rest.removesuffix(_UNFINISHED)
                continue
            if resumed := _RESUMED.match(rest):
                rest = begun.pop(thread) + resumed["rest"]
            call = _CALL.match(rest)
            # The others are signals, ends of threads, and what a call failed with.
            if call and not call["result"].startswith(("-", "?")):
                yield call["name"], call["arguments"], int(call["result"], 0), thread == first


@dataclass
class _Recorder:
    """Makes operations of calls."""

    folder: str
    before: Disk = field(default_factory=Disk)
    operations: list[Operation] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _position: dict[str, int] = field(default_factory=dict)
    _count: int = ROOT

    def find(self, folder: Path) -> None:
        """Take in what is in a folder before anything is done."""
        for path in sorted(folder.iterdir()):
            self._count += 1
            file = self._names[str(path)] = -self._count if path.is_dir() else self._count
            self.before.apply(Named({self._place(str(path), file): file}))
            if path.is_dir():
                self.find(path)
            else:
                self._sizes[file] = path.stat().st_size
                self.before.apply(Written(file, 0, path.read_bytes()))

    def take(self, name: str, arguments: str, result: int) -> None:
        """Take in a call that succeeded."""
        match name:
            case "openat" | "open" | "creat":
                flags = arguments if name != "creat" else "O_CREAT|O_TRUNC"
                self._open(_paths(arguments)[0], flags)
            case "rename" | "renameat" | "renameat2":
                self._rename(*_paths(arguments))
            case "unlink" | "unlinkat" | "rmdir":
                gone = [path for path in _paths(arguments) if self._file(path) is not None]
                self._name(dict.fromkeys(gone))
            case "mkdir" | "mkdirat":
                for path in filter(self._inside, _paths(arguments)):
                    self._count += 1
                    self._name({path: -self._count})
            case "io_submit" | "io_uring_enter":
                raise NotImplementedError(f"{name}: strace does not say what is written")
            case _:
                self._take_opened(name, arguments, result)

    def _take_opened(self, name: str, arguments: str, result: int) -> None:
        file = self._file(_opened(arguments))
        if file is None:
            return
        match name:
            case "write" | "pwrite64":
                self._write(file, arguments, result)
            case "lseek":
                self._position[_opened(arguments)] = result
            case "ftruncate":
                self._cut(file, int(arguments.rpartition(", ")[2]))
            case "fallocate":
                self._allocate(file, arguments)
            case "fsync" | "fdatasync":
                self.operations.append(Synced(file))
            case "mmap" if not all(flag in arguments for flag in _SHARED):
                pass
            case _:
                raise NotImplementedError(f"{name} is not modelled")

    def _open(self, path: str, flags: str) -> None:
        file = self._file(path)
        if file is None and "O_CREAT" in flags and self._inside(path):
            file = self._count = self._count + 1
            self._sizes[file] = 0
            self._name({path: file})
        elif file is not None and "O_TRUNC" in flags:
            self._cut(file, 0)
        self._position[path] = self._sizes.get(file or ROOT, 0) if "O_APPEND" in flags else 0

    def _write(self, file: int, arguments: str, result: int) -> None:
        path, data = _opened(arguments), _data(arguments)[:result]
        place = arguments.rpartition('"')[2].split(", ")[2:]
        at = int(place[0]) if place else self._position.get(path, 0)
        if not place:
            self._position[path] = at + result
        self._sizes[file] = max(self._sizes[file], at + result)
        self.operations.append(Written(file, at, data))

    def _rename(self, old: str, new: str) -> None:
        file = self._file(old)
        if file is None:
            return
        self._name({old: None, new: file})
        for path in [one for one in self._names if one.startswith(f"{old}/")]:
            self._names[new + path.removeprefix(old)] = self._names.pop(path)

    def _cut(self, file: int, size: int) -> None:
        self._sizes[file] = size
        self.operations.append(Cut(file, size))

    def _allocate(self, file: int, arguments: str) -> None:
        *_, mode, at, size = arguments.split(", ")
        if "PUNCH_HOLE" in mode:
            self.operations.append(Written(file, int(at), bytes(int(size))))
        elif "KEEP_SIZE" not in mode:
            self._cut(file, max(self._sizes[file], int(at) + int(size)))

    def _name(self, names: Mapping[str, int | None]) -> None:
        if not names:
            return
        places = {self._place(path, file): file for path, file in names.items()}
        self.operations.append(Named(places))
        for path, file in names.items():
            if file is None:
                del self._names[path]
            else:
                self._names[path] = file

    def _place(self, path: str, file: int | None) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        if file is not None:
            self.paths[file] = path.removeprefix(f"{self.folder}/")
        return (ROOT if parent == self.folder else self._names[parent]), name

    def _inside(self, path: str) -> bool:
        return path.startswith(f"{self.folder}/") and not path.endswith(_SHARED_MEMORY)

    def _file(self, path: str) -> int | None:
        return ROOT if path == self.folder else self._names.get(path)


def _opened(arguments: str) -> str:
    """Return the path of the open file that a call's first argument, or mmap's fifth, names."""
    found = _OPENED.match(arguments) or re.search(r", \d+<((?:\\x[0-9a-f]{2})*)>", arguments)
    return _decoded(found[1]) if found else ""


def _data(arguments: str) -> bytes:
    text = _TEXT.search(arguments)
    if text is None:
        raise ValueError(f"strace wrote no data in {arguments[:80]!r}")
    return bytes.fromhex(text[1].replace(r"\x", ""))


def _paths(arguments: str) -> list[str]:
    """Return the paths that a call names, each after the folder that it is relative to."""
    paths: list[str] = []
    folder = ""
    for part in re.split(r", ", arguments):
        if opened := _OPENED.match(part):
            folder = _decoded(opened[1])
        elif text := _TEXT.fullmatch(part):
            path = _decoded(text[1])
            if not path.startswith("/") and not folder:
                raise NotImplementedError(
                    f"{path!r} is relative to a folder that strace did not say"
                )
            paths.append(normpath(Path(folder, path)))
    return paths


def _decoded(text: str) -> str:
    return bytes.fromhex(text.replace(r"\x", "")).decode()

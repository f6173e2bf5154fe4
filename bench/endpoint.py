"""A stream out of object storage that is far, slow and lossy: crops a second, waiting, requests and bytes.

    python bench/endpoint.py dataset
    python bench/endpoint.py dataset --crops 320 --batch 8 --latency 5 50 --megabytes 100 10 --errors 0 0.05

An S3 server of this machine's own, for reading alone, serves a dataset's folder. It keeps each request waiting, and
shares so many megabytes a second among all connections; a share of its answers is lost, one in two being *503 SlowDown*
and one ending halfway. For each setting, from an empty cache, an epoch's batches are taken, with a step of --step
seconds after each, asleep.

Then, without a network: what requests for each crop's tiles would take in place of whole shards. The reads that crops
cause are noted; those that lie as close as --gap are one request. --of says how many crops of a shard are wanted.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import numpy as np

from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.composer.dataset import array_reader
from matting_compose.composer.dataset.dataset import Dataset, open_dataset
from matting_compose.trainer.data.crops import Augment, CropBuffers, cut_crop
from matting_compose.trainer.data.stream import open_stream

BUCKET = "bucket"
PIECE = 64 * 1024  # bytes sent at once
REQUEST, GIGABYTE = 0.4e-6, 0.09  # dollars: a GET of S3's standard class; what leaves the region (2026)


@dataclass
class Line:
    """What lies between: seconds before each answer, bytes a second of all together, and how often it fails."""

    latency: float
    rate: float
    errors: float
    requests: int = 0
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    free: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def begin(self) -> float:
        """Count a request and keep it waiting; return a number in 0..1 that says whether it fails."""
        with self.lock:
            self.requests += 1
            draw = self.chance.random()
        time.sleep(self.latency)
        return draw / self.errors if self.errors else 1.0

    def send(self, count: int) -> None:
        """Take the time that so many bytes need."""
        with self.lock:
            self.bytes += count
            self.free = max(self.free, time.perf_counter()) + count / self.rate
            until = self.free
        time.sleep(max(0.0, until - time.perf_counter()))


class Server(ThreadingHTTPServer):
    """S3, as far as reading needs it: lists, heads and gets of a folder's files."""

    daemon_threads = True
    request_queue_size = 64

    line: Line
    cache: Path

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


class Handler(BaseHTTPRequestHandler):
    """Answer one connection's requests."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        """Answer, or fail."""
        line, url = self.server.line, urlsplit(self.path)
        draw = line.begin()
        if draw < 0.5:
            self.tell(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>", body)
            return
        if "list-type" in (query := parse_qs(url.query)):
            self.tell(200, self.list_below(query["prefix"][0] if "prefix" in query else ""), body)
            return
        path = self.server.folder / url.path.removeprefix(f"/{BUCKET}/")
        if not path.is_file():
            self.tell(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", body)
            return
        size, (first, last) = path.stat().st_size, (0, -1)
        wanted = self.headers.get("Range", "")
        if wanted:
            first, last = (int(part or -1) for part in wanted.removeprefix("bytes=").split("-"))
        last = min(last if last >= 0 else size - 1, size - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
        self.end_headers()
        if body:
            self.send_file(path, first, last + 1 if draw >= 1 else (first + last) // 2)

    def send_file(self, path: Path, start: int, end: int) -> None:
        """Send a part of a file; where it is less than was announced, the connection ends."""
        with path.open("rb") as file:
            file.seek(start)
            while piece := file.read(min(PIECE, end - file.tell())):
                self.server.line.send(len(piece))
                self.wfile.write(piece)
        self.close_connection = True

    def list_below(self, prefix: str) -> bytes:
        """List a folder as S3 does with a delimiter."""
        folder = self.server.folder / prefix
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        items = "".join(
            f"<Contents><Key>{escape(prefix + p.name)}</Key><Size>{p.stat().st_size}</Size>"
            '<LastModified>2000-01-01T00:00:00Z</LastModified><ETag>"0"</ETag></Contents>'
            if p.is_file()
            else f"<CommonPrefixes><Prefix>{escape(prefix + p.name)}/</Prefix></CommonPrefixes>"
            for p in found
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()

    def tell(self, code: int, text: bytes, body: bool) -> None:
        """Answer with a text."""
        self.send_response(code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a folder as s3://bucket, and let S3's own settings lead to it, for the processes that read too."""
    with Server(folder) as server, tempfile.TemporaryDirectory() as cache:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.cache = Path(cache)
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1", "MATTING_COMPOSE_CACHE": cache,
        }  # fmt: skip
        try:
            yield server
        finally:
            server.shutdown()


def measure(options: argparse.Namespace, server: Server, line: Line) -> str:
    """Take an epoch's batches, from an empty cache; return a row of the table."""
    server.line = line
    for copy in server.cache.glob("*.h5"):
        copy.unlink()
    what = f"| {line.latency * 1e3:g} | {line.rate / 1e6:g} | {line.errors:.0%}"
    began, waited, first, taken = time.perf_counter(), 0.0, 0.0, 0
    try:
        stream = open_stream(f"s3://{BUCKET}", batch=options.batch, crop=options.crop, sizes=(options.crop,),
                             workers=options.workers, open_shards=options.open_shards, epochs=1)  # fmt: skip
        with closing(stream):
            batches = iter(stream)
            for _ in range(len(stream)):
                asked = time.perf_counter()
                next(batches)
                now = time.perf_counter()
                waited, taken = waited + (now - asked if taken else 0), taken + 1
                first = first or now - began
                time.sleep(options.step)
    except MattingComposeError as error:
        return f"{what} | {taken} batches, then: {error} ||||| {line.requests:,} | {line.bytes / 1e6:,.0f} |"
    seconds = time.perf_counter() - began
    return (
        f"{what} | {taken * options.batch / seconds:,.1f} | {first:.1f} | {waited / (seconds - first):.0%} |"
        f" {seconds:.1f} | {line.requests:,} | {line.bytes / 1e6:,.0f} |"
    )


def ranges_of(dataset: Dataset, shard: int, count: int, crop: int, gap: int) -> tuple[int, int]:
    """Cut crops of some composites of a shard; return the requests and the bytes that their tiles alone would be."""
    reads: list[tuple[int, int]] = []
    read = os.pread

    def noted(descriptor: int, size: int, offset: int) -> bytes:
        reads.append((offset, offset + size))
        return read(descriptor, size, offset)

    first = sum(record.composites for record in dataset.shards[:shard])
    numbers = first + np.random.default_rng(0).permutation(dataset.shards[shard].composites)[:count]
    out = CropBuffers(np.empty((crop, crop, 3), np.uint8), *np.empty((2, crop, crop), np.uint8), None, None)
    requests = size = 0
    array_reader.os.pread = noted  # type: ignore[attr-defined]
    try:
        for number in numbers.tolist():
            reads.clear()
            cut_crop(dataset, number, (crop,), Augment(), np.random.default_rng(number), out)
            for begin, end in joined(reads, gap):
                requests, size = requests + 1, size + end - begin
    finally:
        array_reader.os.pread = read  # type: ignore[attr-defined]
    return requests, size


def joined(reads: list[tuple[int, int]], gap: int) -> Iterator[tuple[int, int]]:
    """Join reads that lie close to each other."""
    begin = end = -1
    for start, stop in sorted(reads):
        if begin >= 0 and start > end + gap:
            yield begin, end
            begin = -1
        begin, end = (start, stop) if begin < 0 else (begin, max(end, stop))
    if begin >= 0:
        yield begin, end


def compare(options: argparse.Namespace) -> Iterator[str]:
    """Say what ranges would take beside a whole shard."""
    with closing(open_dataset(options.dataset, 64 * 2**20)) as dataset:
        middle = sorted(range(len(dataset.shards)), key=lambda number: dataset.shards[number].bytes)
        shard = middle[len(middle) // 2]
        record = dataset.shards[shard]
        with dataset.reader(shard)._file as file:
            table = file["samples"].id.get_storage_size() + file["tiles"].id.get_storage_size()
        dataset.close()
        whole = -(-record.bytes // (8 * 2**20))
        yield (
            f"A shard of {record.composites} composites and {record.bytes / 1e6:.1f} MB, {table / 1e6:.2f} MB of it"
            f" tables; whole, it takes {whole} requests\n"
        )
        yield (
            "| crops of a shard | requests | of its bytes | × the requests | × the seconds, one after the other |"
            " × the dollars where bytes cost, too |"
        )
        yield "|---" * 6 + "|"
        latency, rate = options.latency[-1] / 1e3, options.megabytes[-1] * 1e6
        for count in (n for n in options.of if n <= record.composites):
            requests, size = ranges_of(dataset, shard, count, options.crop, options.gap)
            requests, size = requests + 3, size + table  # superblock and header, then the two tables
            paid = (requests * REQUEST + size / 1e9 * GIGABYTE) / (whole * REQUEST + record.bytes / 1e9 * GIGABYTE)
            took = (requests * latency + size / rate) / (whole * latency + record.bytes / rate)
            figures = f"{size / record.bytes:.2f} | {requests / whole:,.1f} | {took:.2f} | {paid:.2f}"
            yield f"| {count} | {requests:,} | {figures} |"


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--crop", type=int, default=320, help="px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--open-shards", type=int, default=8)
    parser.add_argument("--step", type=float, default=0.02, help="seconds that the network takes")
    parser.add_argument("--latency", type=float, nargs="+", default=[5, 50], help="ms before each answer")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 10], help="a second")
    parser.add_argument("--errors", type=float, nargs="+", default=[0, 0.05], help="share of answers")
    parser.add_argument("--gap", type=int, default=64 * 1024, help="bytes: closer reads are one request")
    parser.add_argument("--of", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000], help="crops of a shard")
    options = parser.parse_args()
    heads = ["latency, ms", "MB/s", "errors", "crops/s", "first batch, s", "waiting after it", "s", "requests", "MB"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    with serve(options.dataset) as server:
        for latency, megabytes, errors in itertools.product(options.latency, options.megabytes, options.errors):
            print(measure(options, server, Line(latency / 1e3, megabytes * 1e6, errors)), flush=True)
    print("", *compare(options), sep="\n")


if __name__ == "__main__":
    main()

"""What dev/bench needs to measure: processes with their time and memory, a writer that never rests, raw S3, the table."""
import asyncio
import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Took:
    """What a process took: wall clock, processor seconds, and the most memory that it ever had (VmHWM)."""

    def __init__(self, seconds, processor, peak_mb, output):
        self.seconds, self.processor, self.peak_mb, self.output = seconds, processor, peak_mb, output


def run(*command, **more):
    """Runs a command to its end; its memory is the kernel's own count at its end."""
    # The kernel counts what we had at most before it became the command: that is what we have now.
    Path("/proc/self/clear_refs").write_text("5")
    begun = time.monotonic()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    output = child.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with {child.returncode}\n{output}")
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def shell(line):
    return run("bash", "-o", "pipefail", "-c", line)


def best(times, work):
    """The shortest of several: whatever else the machine does can only make it longer."""
    return min((work() for _ in range(times)), key=lambda took: took.seconds)


@contextlib.contextmanager
def running(*command, **more):
    """A process that is there for a while, and gone afterwards whatever happens."""
    child = subprocess.Popen([str(part) for part in command], **more)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def processor_seconds(pid):
    """Of all its threads, those that have ended too, to the nanosecond: the process's own clock (clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def answers(path):
    """Whether the server behind this socket answers: a request for a job that is not there is refused."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(b'{"verb":"run","job":"not-there"}\n')
            return b"missing" in client.recv(4096)
        except (FileNotFoundError, ConnectionRefusedError):
            return False


# --- A SQLite database and a writer that commits as fast as it can.


def make_database(path, mebibytes):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO t SELECT i, randomblob(3900) FROM n",
            (mebibytes * 256,),
        )
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def write_without_rest(path):
    """Prints what it did since SIGUSR1 when it gets SIGTERM: commits a second, and the slowest in milliseconds."""
    database = sqlite3.connect(path, isolation_level=None, timeout=60)
    database.execute("PRAGMA synchronous = OFF")
    state = {"count": 0, "slowest": 0.0, "since": time.monotonic(), "on": True}
    signal.signal(signal.SIGUSR1, lambda *_: state.update(count=0, slowest=0.0, since=time.monotonic()))
    signal.signal(signal.SIGTERM, lambda *_: state.update(on=False))
    while state["on"]:
        begun = time.monotonic()
        database.execute("UPDATE t SET data = randomblob(3900) WHERE id = abs(random()) % 10000 + 1")
        state["slowest"] = max(state["slowest"], time.monotonic() - begun)
        state["count"] += 1
    print(state["count"] / (time.monotonic() - state["since"]), state["slowest"] * 1000)


@contextlib.contextmanager
def busy_writer(path):
    """Yields a function that tells the rate and the slowest commit from the beginning of the block to that call."""
    child = subprocess.Popen([sys.executable, __file__, "write", str(path)], stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    child.send_signal(signal.SIGUSR1)

    def tell():
        child.terminate()
        rate, slowest = child.communicate()[0].split()
        return f"{float(rate):,.0f} commits/s, slowest {float(slowest):,.0f} ms"

    try:
        yield tell
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


# --- A real S3 server, and the plainest client that there can be.

KEY, SECRET, BUCKET = "GK0123456789abcdef01234567", "0123456789abcdef" * 4, "bench"


@contextlib.contextmanager
def garage(folder):
    """Garage on free ports; yields its address, or nothing where dev/test has not built it yet."""
    cache = os.environ.get("RUSUBAN_DEV_CACHE") or Path.home() / ".cache/rusuban-dev"
    program = Path(cache) / "bin/garage"
    if not program.exists():
        yield None
        return
    ports = []
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    for one in sockets:
        ports.append(one.getsockname()[1])
        one.close()
    rpc, s3, admin = ports
    folder.mkdir()
    settings = folder / "garage.toml"
    settings.write_text(
        f'metadata_dir = "{folder}/meta"\ndata_dir = "{folder}/data"\ndb_engine = "sqlite"\nreplication_factor = 1\n'
        f'rpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\nrpc_secret = "{SECRET}"\n'
        f'[s3_api]\ns3_region = "garage"\napi_bind_addr = "127.0.0.1:{s3}"\n[admin]\napi_bind_addr = "127.0.0.1:{admin}"\n'
    )
    names = {"GARAGE_DEFAULT_ACCESS_KEY": KEY, "GARAGE_DEFAULT_SECRET_KEY": SECRET, "GARAGE_DEFAULT_BUCKET": BUCKET}
    with open(folder / "log", "w") as log:
        server = running(
            program, "-c", settings, "server", "--single-node", "--default-bucket",
            env={**os.environ, **names}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        with server:
            while True:
                with contextlib.suppress(OSError):
                    client = http.client.HTTPConnection("127.0.0.1", admin)
                    client.request("GET", "/health")
                    if client.getresponse().status == 200:
                        break
                time.sleep(0.05)
            yield f"127.0.0.1:{s3}"


def s3_request(client, host, method, path, query="", body=b"", sink=False):
    """One request, signed (AWS Signature Version 4)."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
    signed = ";".join(sorted(headers))
    canonical = "\n".join([method, path, query, *(f"{k}:{headers[k]}" for k in sorted(headers)), "", signed, digest])
    scope = f"{now[:8]}/garage/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={signed}, Signature={signature}"
    client.request(method, f"{path}?{query}" if query else path, body, headers)
    answer = client.getresponse()
    while sink and answer.status < 300 and answer.read(1 << 20):
        pass
    content = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
    return answer, content


def raw_upload(host, file, at_once, part=16 << 20):
    """Sends a file as one multipart object, `at_once` parts at a time; answers the seconds."""
    path = f"/{BUCKET}/raw"
    size, begun = file.stat().st_size, time.monotonic()
    client = http.client.HTTPConnection(host)
    upload = re.search(rb"<UploadId>(.*?)</UploadId>", s3_request(client, host, "POST", path, "uploads=")[1])[1].decode()

    def send(number):
        with open(file, "rb") as source:
            source.seek((number - 1) * part)
            body = source.read(part)
        own = http.client.HTTPConnection(host)
        tag = s3_request(own, host, "PUT", path, f"partNumber={number}&uploadId={upload}", body)[0].getheader("etag")
        own.close()
        return f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"

    with ThreadPoolExecutor(at_once) as threads:
        parts = "".join(threads.map(send, range(1, (size + part - 1) // part + 1)))
    done = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    s3_request(client, host, "POST", path, f"uploadId={upload}", done)
    return Took(time.monotonic() - begun, 0, 0, "")


def raw_read(host):
    """Reads that object again, and forgets it."""
    begun = time.monotonic()
    client = http.client.HTTPConnection(host)
    s3_request(client, host, "GET", f"/{BUCKET}/raw", sink=True)
    return Took(time.monotonic() - begun, 0, 0, "")


# --- A Docker engine of our own.


class Engine:
    """An engine in namespaces of its own, and the `docker` command for it."""

    BASE = "base:1"

    def __init__(self, folder):
        self.folder, self.host = folder, f"unix://{folder}/sock"

    def docker(self, *arguments, **more):
        return run("docker", "-H", self.host, *arguments, **more)

    def container(self, name, *arguments):
        """One that does nothing until it is told to end."""
        wait = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
        self.docker("run", "-d", "--name", name, *arguments, self.BASE, "sh", "-c", wait)


@contextlib.contextmanager
def docker_engine(folder):
    """Yields it with a small image in it, or nothing where there is no engine, or no right to start one."""
    if not shutil.which("dockerd") or not shutil.which("busybox") or os.geteuid() != 0:
        yield None
        return
    folder.mkdir()
    script = (
        'mount --make-rprivate /; ip link set lo up; exec dockerd --data-root "$1/root" --exec-root "$1/exec"'
        ' --pidfile "$1/pid" -H "unix://$1/sock" --iptables=false --ip-masq=false'
    )
    with open(folder / "log", "w") as log:
        server = running(
            "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-ec", script,
            "dockerd", folder, stdout=log, stderr=log,
        )
        with server:
            engine = Engine(folder)
            while subprocess.run(["docker", "-H", engine.host, "version"], capture_output=True).returncode != 0:
                time.sleep(0.1)
            root = folder / "image"
            (root / "bin").mkdir(parents=True)
            (root / "tmp").mkdir()
            shutil.copy(shutil.which("busybox"), root / "bin/busybox")
            for name in subprocess.run([root / "bin/busybox", "--list"], capture_output=True, text=True).stdout.split():
                if name != "busybox":
                    (root / "bin" / name).symlink_to("busybox")
            shell(f"tar -C {root} -c . | docker -H {engine.host} import - {Engine.BASE}")
            yield engine
        # Those in its namespace end with it, a moment later.
        time.sleep(1)


# --- What people read.


class Table:
    """Rows of work, ours, peer, ratio, goal, verdict, printed aligned at the end and one by one as they are known."""

    HEAD = ("work", "ours", "peer", "ratio", "goal", "verdict")

    def __init__(self):
        self.rows = []

    def add(self, work, ours, peer="", ratio=None, goal="", met=None):
        verdict = {True: "met", False: "MISSED", None: ""}[met]
        row = (work, ours, peer, "" if ratio is None else f"{ratio:.2f}", goal, verdict)
        self.rows.append(row)
        print(" · ".join(cell for cell in row if cell), file=sys.stderr, flush=True)

    def title(self, text):
        self.rows.append((text,))

    def show(self):
        full = [self.HEAD, *(row for row in self.rows if len(row) > 1)]
        widths = [max(len(row[column]) for row in full) for column in range(len(self.HEAD))]
        rule = "  ".join("-" * width for width in widths)
        print("  ".join(cell.ljust(width) for cell, width in zip(self.HEAD, widths)).rstrip())
        print(rule)
        for row in self.rows:
            if len(row) == 1:
                print(f"{row[0]}:")
            else:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


async def far_away(address, half):
    """A way to a server on which everything takes `half` seconds longer, there and back; answers its own port."""
    host, port = address.split(":")
    loop = asyncio.get_running_loop()

    async def carry(reader, writer):
        under_way = asyncio.Queue(256)

        async def deliver():
            while (parcel := await under_way.get()) is not None:
                at, data = parcel
                await asyncio.sleep(max(0, at - loop.time()))
                writer.write(data)
                await writer.drain()
            writer.close()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                await under_way.put((loop.time() + half, data))
        await under_way.put(None)
        with contextlib.suppress(OSError):
            await delivering

    async def connect(reader, writer):
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def serve_s3(folder, milliseconds):
    """Garage, so far away; prints its address and goes on until it is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with garage(Path(folder)) as address:
        if address is None:
            raise SystemExit("dev/test has not built Garage yet")

        async def serve():
            if milliseconds == 0:
                print(address, flush=True)
                await asyncio.Event().wait()
            server, port = await far_away(address, milliseconds / 2000)
            print(f"127.0.0.1:{port}", flush=True)
            await server.serve_forever()

        asyncio.run(serve())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", database]:
            write_without_rest(database)
        case ["s3", folder, delay]:
            serve_s3(folder, int(delay))

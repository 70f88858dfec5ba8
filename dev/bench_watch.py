"""The part `watch` of dev/bench: thousands of pages looked at by Rusuban, by the blackbox exporter and by monit, over one small server."""
import asyncio
import contextlib
import http.client
import shutil
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import benching

PAGE = b"<html><h1>Welcome</h1>" + b"<p>a line of a page, as pages have them</p>\n" * 180 + b"</html>"
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(PAGE), PAGE)
)


class Pages(asyncio.Protocol):
    """Answers every request with the same page of 8 kB, and remembers when it was asked for which."""

    def __init__(self, seen):
        self.seen, self.head = seen, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.head += data
        if b"\r\n\r\n" in self.head:
            self.seen.append((self.head.split(b" ", 2)[1].decode(), time.monotonic()))
            self.transport.write(ANSWER)
            self.transport.close()


class Server:
    """Runs in a thread of this process: what it costs is not what is measured."""

    def __init__(self, certificate=None):
        self.seen, self.loop, ready = [], asyncio.new_event_loop(), threading.Event()
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)

        async def start():
            server = await self.loop.create_server(lambda: Pages(self.seen), "127.0.0.1", 0, ssl=context, backlog=4096)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()

        threading.Thread(target=lambda: (self.loop.create_task(start()), self.loop.run_forever()), daemon=True).start()
        ready.wait()

    def late(self, spread, count):
        """How much later than at its place in the spread each was asked for, the 99th of a hundred: seconds."""
        begun = self.seen[0][1]
        times = sorted(at - begun - int(path.strip("/")) * spread / count for path, at in self.seen)
        first = times[len(times) // 100]
        return times[len(times) * 99 // 100] - min(first, 0)


def sites(folder, scheme, port, count, spread, more=""):
    (folder / "jobs").mkdir(parents=True)
    every = "".join(f'[[site]]\nname = "s{n}"\nurl = "{scheme}://127.0.0.1:{port}/{n}"\n' for n in range(count))
    job = f'kind = "site-check"\nspread = "{spread}s"\ncontains = "Welcome"\n{more}{every}'
    (folder / "jobs/sites.toml").write_text(job)
    return folder


def certificate(folder):
    made = folder / "key.pem", folder / "certificate.pem"
    benching.run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", made[0], "-out", made[1],
    )
    return made[1], made[0]


def watch(table, rusuban, work, quick):
    count, spread = (2_000, 10) if quick else (10_000, 50)
    # What reading the job and starting cost: the same with hardly a site.
    few = Server()
    base = benching.run(rusuban, "--home", sites(work / "few", "http", few.port, 2, 0), "run", "sites")
    rates = {}
    for scheme in ("http", "https"):
        pem = certificate(work) if scheme == "https" else None
        server = Server(pem)
        more = f'ca = "{pem[0]}"\n' if pem else ""
        took = benching.run(rusuban, "--home", sites(work / scheme, scheme, server.port, count, spread, more), "run", "sites")
        if f"{count} sites are up" not in took.output:
            raise SystemExit(f"not all were up:\n{took.output}")
        processor = took.processor - base.processor
        rates[scheme] = count / processor
        share = processor / count * 10_000 / 60 * 100
        table.add(
            f"{count:,} pages by {scheme}, new connections", f"{rates[scheme]:,.0f} looks each second of a core, {took.peak_mb:.0f} MB",
            goal="10,000 a minute on <= 10 % of a core, <= 60 MB", met=share <= 10 and took.peak_mb <= 60,
        )
        table.add("    10,000 a minute", f"{share:.1f} % of a core, p99 {server.late(spread, count) * 1000:.0f} ms late")
    blackbox(table, work, count, rates["http"])
    monit(table, work, min(count, 2_000), rates["http"])


def blackbox(table, work, count, ours):
    if not shutil.which("prometheus-blackbox-exporter"):
        table.add("the same by the blackbox exporter", "", "not installed (prometheus-blackbox-exporter)")
        return
    config = work / "blackbox.yml"
    config.write_text(
        "modules:\n  page:\n    prober: http\n    timeout: 10s\n    http:\n      preferred_ip_protocol: ip4\n"
        "      fail_if_body_not_matches_regexp: [Welcome]\n"
    )
    server, port = Server(), free_port()
    command = ["prometheus-blackbox-exporter", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with benching.running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as exporter:
        wait_for(port)

        def probes(numbers):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
                for number in numbers:
                    client.request("GET", f"/probe?module=page&target=http://127.0.0.1:{server.port}/{number}")
                    assert b"probe_success 1" in client.getresponse().read()

        probes(range(10))
        before = benching.processor_seconds(exporter.pid)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(probes, [range(first, count, 16) for first in range(16)]))
        theirs = count / (benching.processor_seconds(exporter.pid) - before)
        memory = benching.resident_mb(exporter.pid)
    table.add("the same by the blackbox exporter", "", f"{theirs:,.0f} looks each second of a core, {memory:.0f} MB", ours / theirs)


def monit(table, work, count, ours):
    if not shutil.which("monit"):
        table.add(f"{count:,} pages by monit", "", "not installed (monit)")
        return
    server, config = Server(), work / "monitrc"
    config.write_text(
        f"set daemon 3600\nset pidfile {work}/monit.pid\nset idfile {work}/monit.id\nset statefile {work}/monit.state\n"
        + "".join(
            f"check host s{n} with address 127.0.0.1\n  if failed port {server.port} protocol http request \"/{n}\" content = \"Welcome\" then alert\n"
            for n in range(count)
        )
    )
    config.chmod(0o600)
    with benching.running("monit", "-I", "-c", config, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        begun = time.monotonic()
        while len(server.seen) < count and process.poll() is None and time.monotonic() - begun < 300:
            time.sleep(0.2)
        theirs = len(server.seen) / benching.processor_seconds(process.pid)
        seconds, memory = time.monotonic() - begun, benching.resident_mb(process.pid)
    table.add(
        f"{len(server.seen):,} pages by monit, one by one", "", f"{theirs:,.0f} looks each second of a core, {memory:.0f} MB, in {seconds:.0f} s",
        ours / theirs,
    )


def free_port():
    import socket

    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(OSError):
            http.client.HTTPConnection("127.0.0.1", port).connect()
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody answers at port {port}")

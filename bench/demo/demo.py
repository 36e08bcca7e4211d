#!/usr/bin/env python3
"""./run demo: an unmodified redis-server, first plain, then with half of its heap in compressed memory.

Both get the same data and the same load from demo_load, save themselves with BGSAVE in the middle of it, and are
proved right: a digest of all data as loaded, at the end, and out of the saved file (read by a plain redis-server)
must be what the loader wrote. Exit status: 0 right, 1 a digest differs or a server failed, 77 this host cannot
(with the reason)."""

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from figures import machine  # noqa: E402

MB = 1e6


class Failed(Exception):
    """One line for the user; the demo ends with status 1."""


class Unable(Exception):
    """This host cannot show it; the demo ends with status 77."""


# --- processes: whatever happens, none is left -------------------------------------------------------------


def die_with_parent():
    """In the child, before exec: not even kill -9 of the demo leaves a server behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Processes:
    """Everything that was started, each in a process group of its own (a BGSAVE child is in its server's)."""

    def __init__(self):
        self.running = []

    def start(self, command, **keywords):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                                   preexec_fn=die_with_parent, **keywords)
        self.running.append(process)
        return process

    def finished(self, process):
        self.kill_group(process)
        self.running.remove(process)

    @staticmethod
    def kill_group(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def kill_all(self):
        while self.running:
            self.kill_group(self.running.pop())


class Server:
    """A redis-server with a configuration, a socket and a directory of its own."""

    def __init__(self, processes, directory, name, prefix=(), environment=None):
        self.processes = processes
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.socket_path = self.directory / "socket"
        self.dump_path = self.directory / "dump.rdb"
        self.log_path = self.directory / "log"
        self.command = list(prefix) + ["redis-server", str(self.directory / "redis.conf")]
        self.environment = environment
        self.process = None
        (self.directory / "redis.conf").write_text(
            f"port 0\nunixsocket {self.socket_path}\ndir {self.directory}\n"
            'save ""\nappendonly no\ndaemonize no\n', encoding="utf-8")

    def start(self, seconds=60):
        with open(self.log_path, "wb") as log:
            self.process = self.processes.start(self.command, stdout=log, stderr=log,
                                                cwd=self.directory, env=self.environment)
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended at once, status {self.process.returncode}:\n{self.log_end()}")
            try:
                if self.ask("PING").startswith(b"+PONG"):
                    return
            except OSError:
                pass  # not listening yet; -LOADING while it reads its dump
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} does not answer after {seconds} s:\n{self.log_end()}")
            time.sleep(0.05)

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket_path))
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(65536)

    def pid(self):
        """Of the server itself, which need not be the process we started."""
        return int(re.search(rb"process_id:(\d+)", self.ask("INFO server"))[1])

    def stop(self, seconds=60):
        """An orderly end, as a service manager would bring it about; a crash in it counts."""
        try:
            self.ask("SHUTDOWN NOSAVE")
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not shut down:\n{self.log_end()}") from None
        self.processes.finished(self.process)
        if status != 0:
            raise Failed(f"{self.name} ended with status {status}:\n{self.log_end()}")

    def log_end(self):
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join("    " + line for line in lines[-15:])


def run_loader(processes, build, mode, server, result, *options):
    process = processes.start([str(build / "bin" / "demo_load"), mode, "--socket", str(server.socket_path),
                               "--result", str(result), *map(str, options)])
    status = process.wait()
    processes.finished(process)
    if status != 0:
        raise Failed(f"the loader found {server.name} wrong (status {status}); the server's last words:\n"
                     f"{server.log_end()}")
    return json.loads(result.read_text(encoding="utf-8"))


# --- the two halves ----------------------------------------------------------------------------------------


def run_side(processes, directory, arguments, name, prefix=(), environment=None):
    """Fills, loads, saves and checks one server. Returns demo_load's result and the digest of the saved file."""
    print(f"==> {name}", flush=True)
    server = Server(processes, directory, name.replace(" ", "-"), prefix, environment)
    server.start()
    result = run_loader(processes, arguments.build, "load", server, directory / f"{server.name}.json",
                        "--bytes", arguments.bytes, "--warm", arguments.warm, "--seconds", arguments.seconds,
                        "--connections", arguments.connections, "--pid", server.pid())
    server.stop()

    # The saved file is read by a redis-server that never heard of heaptier.
    reader = Server(processes, directory, server.name + "-saved-file")
    server.dump_path.rename(reader.dump_path)
    reader.start(seconds=120)
    saved = run_loader(processes, arguments.build, "digest", reader, directory / f"{reader.name}.json",
                       "--title", "digest of the saved file")
    reader.stop()
    reader.dump_path.unlink()
    result["digests"]["at_save"] = saved["digest"]
    result["log"] = server.log_path.read_text(encoding="utf-8", errors="replace")
    return result


def flatten(value, into):
    """Every number of the exit report by its name, wherever the report groups it."""
    if isinstance(value, dict):
        for key, child in value.items():
            if isinstance(child, (dict, list)):
                flatten(child, into)
            else:
                into[key] = child
    elif isinstance(value, list):
        for child in value:
            flatten(child, into)
    return into


def run_heaptier(processes, directory, arguments):
    report = directory / "heaptier-stats.json"
    prefix = [str(arguments.build / "bin" / "heaptier"), "run", "--fast", arguments.fast,
              f"--stats=json:{report}", *arguments.heaptier_option, "--"]
    result = run_side(processes, directory, arguments, "heaptier", prefix)
    if not report.exists():
        raise Failed("heaptier left no report; the server's log:\n" + result["log"][-2000:])
    result["stats"] = flatten(json.loads(report.read_text(encoding="utf-8")), {})
    return result


# --- the table ---------------------------------------------------------------------------------------------


def ratio(after, before):
    return f"{after / before:.2f}" if before else "-"


def print_table(plain, tiered, fast):
    rows = [("", "plain", f"--fast {fast}", "ratio")]

    def row(title, value, form, scale=1.0):
        before, after = value(plain) * scale, value(tiered) * scale
        rows.append((title, form.format(before), form.format(after), ratio(after, before)))

    row("throughput, requests/s", lambda r: r["steady"]["throughput"], "{:,.0f}")
    row("  latency p50, us", lambda r: r["steady"]["p50_us"], "{:,.0f}")
    row("  latency p99, us", lambda r: r["steady"]["p99_us"], "{:,.0f}")
    row("  latency p99.9, us", lambda r: r["steady"]["p999_us"], "{:,.0f}")
    row("throughput during BGSAVE", lambda r: r["saving"]["throughput"], "{:,.0f}")
    row("  latency p99.9, us", lambda r: r["saving"]["p999_us"], "{:,.0f}")
    row("BGSAVE, s", lambda r: r["save_seconds"], "{:.1f}")
    row("  of it the fork, ms", lambda r: r["fork_seconds"], "{:.1f}", 1e3)
    row("loading, s", lambda r: r["fill_seconds"], "{:.1f}")
    row("resident memory, MB", lambda r: r["resident_bytes"], "{:,.0f}", 1 / MB)
    print()
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    for i, (title, before, after, share) in enumerate(rows):
        print(f"  {title:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}  {share:>{widths[3]}}")
        if i == 0:
            print("  " + "-" * (sum(widths) + 6))


def say_if_disturbed(busy_before):
    """What is right and what is wrong stays so."""
    if machine.disturbed(busy_before):
        print(f"\n  Other work was running ({busy_before:.0%} of {os.cpu_count()} CPUs were busy at the start): "
              "do not trust the speeds.")


def print_where(stats):
    """Where the server's memory was when it ended, from heaptier's own exit report."""
    page = 4096 / MB
    stored = stats["stored_pages"] * page
    resident = (stats["resident_pages"] + stats["clean_pages"] + stats["parked_pages"]) * page
    held = stats["pool_held_bytes"] / MB
    print("\n  where the heap was at the end")
    print(f"    in DRAM             {resident:7,.0f} MB")
    print(f"    compressed          {stored:7,.0f} MB, kept in {held:,.0f} MB (copies of {stats['clean_pages'] * page:,.0f} MB "
          "in DRAM included)")
    print(f"    same-filled         {stats['filled_pages'] * page:7,.0f} MB, kept in nothing")
    print(f"    heaptier itself     {stats['metadata_bytes'] / MB:7,.1f} MB")
    print(f"    faults              {stats['faults']:,} (median {stats['fault_p50_ns'] / 1e3:.1f} us, "
          f"p99 {stats['fault_p99_ns'] / 1e3:.1f} us)")


def print_digests(sides):
    """True when all are right."""
    right = True
    print("\n  digest of all data, against what was written to that server\n" + " " * 26 +
          "".join(f"{name:<12}" for name, _ in sides))
    for title, key in (("as loaded", "loaded"), ("out of the saved file", "at_save"), ("at the end", "end")):
        cells = []
        for _, result in sides:
            digests = result["digests"]
            equal = digests[key] == digests[key + "_expected"]
            right = right and equal
            cells.append("right" if equal else "WRONG")
        print(f"    {title:<22}" + "".join(f"{cell:<12}" for cell in cells))
    verified = sum(result["reads_verified"] for _, result in sides)
    print(f"    answers compared while the load ran: {verified:,}, all right")
    return right


# --- the whole ---------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tenth of the data and a few seconds, for CI")
    parser.add_argument("--fast", default="50%", help="what heaptier run --fast gets")
    parser.add_argument("--megabytes", type=int, help="values to load (default: 540, small: 64)")
    parser.add_argument("--seconds", type=float, help="of measured load on each side (default: 16, small: 3)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--heaptier-option", action="append", default=[], metavar="OPTION",
                        help="passed on to heaptier run, e.g. --heaptier-option=--codec=zstd")
    parser.add_argument("--json", type=Path, help="write everything measured there")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("plain", "heaptier"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    megabytes = arguments.megabytes or (64 if arguments.small else 540)
    arguments.bytes = int(megabytes * MB)
    arguments.seconds = arguments.seconds or (3 if arguments.small else 16)
    arguments.warm = 1 if arguments.small else 4
    arguments.build = arguments.build.resolve()
    if arguments.small:
        # Otherwise so small a heap would not be worth waking up for.
        arguments.heaptier_option.insert(0, "--wake=16M")
    return arguments


def temporary_directory(arguments):
    """In $TMPDIR if the saved file has room there, otherwise in the build directory."""
    needed = arguments.bytes * 1.1
    for parent in (Path(tempfile.gettempdir()), arguments.build):
        if shutil.disk_usage(parent).free > needed:
            return Path(tempfile.mkdtemp(prefix="heaptier-demo-", dir=parent))
    raise Unable(f"no room for the saved file ({needed / MB:.0f} MB) in {tempfile.gettempdir()} and {arguments.build}")


def check_host(arguments):
    if shutil.which("redis-server") is None:
        raise Unable("redis-server is not installed (./run demo installs it)")
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo", encoding="ascii")
                     if line.startswith("MemAvailable:"))
    needed = arguments.bytes * 2.5
    if available < needed:
        raise Unable(f"{needed / MB:.0f} MB of memory are needed and {available / MB:.0f} MB are available; "
                     "try --megabytes with less")


def check_heaptier(arguments):
    """Whether this host lets heaptier work, before a minute is spent on it; asks for root where that is what lacks."""
    doctor = subprocess.run([str(arguments.build / "bin" / "heaptier"), "doctor"], capture_output=True, text=True,
                            check=False)
    if doctor.returncode == 0:
        return
    if os.geteuid() != 0 and shutil.which("sudo") and sys.stdin.isatty():
        print("==> this host lets only root use userfaultfd: asking for root (heaptier doctor tells more)", flush=True)
        os.execvp("sudo", ["sudo", sys.executable, *sys.argv])
    raise Unable("heaptier cannot work on this host; heaptier doctor says:\n" + doctor.stdout + doctor.stderr)


def show(arguments, processes, directory):
    sides = []
    busy_before = machine.busy_share()
    if arguments.only != "heaptier":
        sides.append(("plain", run_side(processes, directory, arguments, "plain redis-server")))
    if arguments.only != "plain":
        sides.append(("heaptier", run_heaptier(processes, directory, arguments)))
    results = dict(sides)
    if len(sides) == 2:
        print_table(results["plain"], results["heaptier"], arguments.fast)
        say_if_disturbed(busy_before)
    if "heaptier" in results:
        print_where(results["heaptier"]["stats"])
    right = print_digests(sides)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if not right:
        raise Failed("a digest differs: data was lost or changed")
    stats = results.get("heaptier", {}).get("stats")
    if stats is not None and stats["stored_pages"] == 0:
        said = [line for line in results["heaptier"]["log"].splitlines() if line.startswith("heaptier")]
        raise Unable("the answers are right, but heaptier stored nothing on this host: "
                     + (" ".join(said) or "see heaptier doctor"))


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    processes = Processes()
    directory = None
    start = time.monotonic()
    try:
        check_host(arguments)
        if arguments.only != "plain":
            check_heaptier(arguments)
        directory = temporary_directory(arguments)
        show(arguments, processes, directory)
        print(f"\n  done in {time.monotonic() - start:.0f} s")
        return 0
    except Failed as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    except Unable as reason:
        print(f"\ndemo: {reason}", file=sys.stderr)
        return 77
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        processes.kill_all()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

"""Runs real programs under libheaptier with almost no memory, and compares what they do with a plain run.

A scenario (tests/preload/*.py) is a function of a Bench. Whatever is wrong is raised as Wrong, a program that this
host lacks as Missing; main() turns them into ctest's language: 0, 1 with the reason, 77 with the reason.

A scenario that ended well still fails when nothing was ever stored: eviction that did not happen proves nothing.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
# What a program under the library says on standard error beyond its own words begins so.
OURS = "heaptier:"


class Wrong(Exception):
    """The program did not do what it does plain."""


class Missing(Exception):
    """This host lacks something; the test is skipped with this reason."""


class Done:
    """A command that ended: status (negative: signal), out and err as bytes."""

    def __init__(self, argv, status, out, err, seconds):
        self.argv, self.status, self.out, self.err, self.seconds = argv, status, out, err, seconds

    def own_err(self):
        """Standard error without heaptier's lines."""
        return b"".join(line for line in self.err.splitlines(True) if not line.startswith(OURS.encode()))

    def describe(self):
        how = f"signal {-self.status}" if self.status < 0 else f"status {self.status}"
        return (f"{' '.join(map(str, self.argv))[:300]}\n  {how} after {self.seconds:.1f} s\n"
                f"  stdout ends: {self.out[-1500:].decode(errors='replace')}\n"
                f"  stderr ends: {self.err[-3000:].decode(errors='replace')}")


class Bench:
    """One scenario's place: a scratch folder, the environments, the statistics of every process that ended."""

    def __init__(self, options, scratch):
        self.library, self.heap, self.fast = options.library, options.heap, options.fast
        self.source, self.build = options.source, options.build
        self.scratch = pathlib.Path(scratch)
        self.reports = self.scratch / "reports"
        self.reports.mkdir()

    def program(self, name):
        """Its path; Missing when the host has none. The system's own first: a version manager's shim is a shell script."""
        found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
        if found is None:
            raise Missing(f"{name} is not installed")
        return found

    def environment(self, tiered, **more):
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD" and not k.startswith("HEAPTIER_")}
        env.update(LC_ALL="C.UTF-8", TZ="UTC", **more)
        if tiered:
            env.update(LD_PRELOAD=str(self.library), HEAPTIER_FAST=self.fast, HEAPTIER_WAKE="1M",
                       HEAPTIER_TIERS="dram,zpool:2G", HEAPTIER_HEAP=self.heap,
                       HEAPTIER_STATS=f"json:{self.reports}/%p.json")
        return env

    def start(self, argv, tiered=True, env=None, **popen):
        """A process of its own group, to be stopped with stop()."""
        return subprocess.Popen([str(a) for a in argv], env=self.environment(tiered, **(env or {})), start_new_session=True,
                                **popen)

    def run(self, argv, tiered=True, limit=240, stdin=b"", env=None, cwd=None):
        """Runs to its end, or kills it and everything it started at the limit."""
        began = time.monotonic()
        process = self.start(argv, tiered, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             cwd=cwd or self.scratch)
        try:
            out, err = process.communicate(stdin, timeout=limit)
        except subprocess.TimeoutExpired:
            tale = _where_it_hangs(process.pid)
            _kill_group(process)
            out, err = process.communicate()
            done = Done(argv, process.returncode, out, err, time.monotonic() - began)
            raise Wrong(f"still running after {limit} s: {done.describe()}\n{tale}") from None
        return Done(argv, process.returncode, out, err, time.monotonic() - began)

    def same(self, argv, limit=240, stdin=b"", env=None, cwd=None, compare_err=True):
        """Runs plain, then under the library; both must say and return the same. Returns the tiered run."""
        plain = self.run(argv, False, limit, stdin, env, cwd)
        tiered = self.run(argv, True, limit, stdin, env, cwd)
        if tiered.status != plain.status:
            raise Wrong(f"plain it ends with {plain.status}, under heaptier: {tiered.describe()}")
        if tiered.out != plain.out:
            raise Wrong(f"standard output differs{_first_difference(plain.out, tiered.out)}\n{tiered.describe()}")
        if compare_err and tiered.own_err() != plain.own_err():
            raise Wrong(f"standard error differs{_first_difference(plain.own_err(), tiered.own_err())}\n"
                        f"{tiered.describe()}")
        return tiered

    def must(self, argv, tiered=True, **how):
        """Runs; anything but status 0 is wrong."""
        done = self.run(argv, tiered, **how)
        if done.status != 0:
            raise Wrong(done.describe())
        return done

    def stop(self, process, limit=20, with_signal=signal.SIGTERM):
        """Asks a started process to end, and insists at the limit. Returns its status."""
        process.send_signal(with_signal)
        return self.ended(process, limit, f"on signal {with_signal}")

    def ended(self, process, limit, how):
        """Waits for the end of a started process, and insists at the limit. Returns its status."""
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            tale = _where_it_hangs(process.pid)
            _kill_group(process)
            process.wait()
            raise Wrong(f"{process.args[0]} does not end {how}\n{tale}") from None

    def totals(self):
        """Every counter, summed over the processes that ended and reported."""
        sums = {}
        for path in self.reports.glob("*.json"):
            with contextlib.suppress(ValueError):  # a process that was killed while writing
                for key, value in json.loads(path.read_text()).items():
                    if isinstance(value, (int, float)):
                        sums[key] = sums.get(key, 0) + value
        return sums

    def check_counters(self):
        """Something was stored and fetched, and no ledger is off."""
        sums = self.totals()
        stored = sum(v for k, v in sums.items() if k.startswith(("pages_stored_", "pages_filled_")))
        for key in ("pages_poisoned", "imbalance_pages", "errors_transition"):
            if sums.get(key, 0) != 0:
                raise Wrong(f"{key} is {sums[key]} in the reports")
        if stored == 0:
            raise Wrong(f"no page was ever stored: nothing was proved ({len(list(self.reports.glob('*.json')))} reports)")
        print(f"{int(stored)} pages stored, {int(sums.get('faults', 0))} faults, {int(sums.get('forks', 0))} forks, "
              f"{len(list(self.reports.glob('*.json')))} processes reported")


def _first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f" at byte {at} of {len(a)}/{len(b)}: plain {a[at:at + 80]!r}, tiered {b[at:at + 80]!r}"


def _where_it_hangs(pid):
    """Each thread's place in the kernel, for the message about a hang."""
    lines = []
    for task in sorted(pathlib.Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            lines.append(f"  {(task / 'comm').read_text().strip()}: {(task / 'wchan').read_text()} "
                         f"{(task / 'syscall').read_text().strip()}")
    return "\n".join(lines)


def _kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _why_no_tiering(library):
    """Empty, or why this host cannot tier: asked of the library itself."""
    # In a process of its own that wakes at once; its report says how long the engine was awake.
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        env = dict(os.environ, LD_PRELOAD=str(library), HEAPTIER_WAKE="0", HEAPTIER_STATS=f"json:{report}")
        asked = subprocess.run(["/bin/sh", "-c", "x=$(echo y); sleep 0.2; exit 0"], env=env, capture_output=True,
                               check=False, timeout=30)
        said = [line for line in asked.stderr.decode(errors="replace").splitlines() if "userfaultfd" in line]
    return said[0] if said else ""


def main(scenarios):
    """scenarios: name -> function of a Bench."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True, type=pathlib.Path)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--heap", default="jemalloc")
    parser.add_argument("--fast", default="4M")
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    parser.add_argument("scenario", choices=sorted(scenarios))
    options = parser.parse_args()
    if why := _why_no_tiering(options.library):
        print(f"skipped: {why}")
        sys.exit(SKIPPED)
    scratch = tempfile.mkdtemp(prefix="heaptier-preload-")
    status = 0
    began = time.monotonic()
    try:
        bench = Bench(options, scratch)
        scenarios[options.scenario](bench)
        bench.check_counters()
        print(f"{options.scenario}: as plain, {time.monotonic() - began:.1f} s")
    except Missing as reason:
        print(f"skipped: {reason}")
        status = SKIPPED
    except Wrong as reason:
        print(f"{options.scenario}: WRONG: {reason}")
        status = 1
    finally:
        if options.keep:
            print(f"left in {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(status)

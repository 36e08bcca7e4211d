"""Memory nodes: which share of accesses the fast node serves, for heaptier and for what else places pages.

Runs in the virtual machine of tests/vm, a fresh one for each line of a table: counts, which mean the same there, no
times. Its time goes by instructions, so that two machines side by side, or a busy host, change nothing. The load is
bench_nodes_load; what the systems are, is in nodes_guest.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess

from .common import Failed, Row, Skip

HERE = pathlib.Path(__file__).resolve().parent
VM = HERE.parent.parent / "tests" / "vm" / "vm"
# Node 0 has the CPU (a second one makes software emulation slower, not faster) and, once booted, some 424 MiB; node 1 is
# slow and holds the rest of an 800 MiB heap easily.
MACHINE = "dram:512M,cxl:1G"
HEAP, HOT = 800, 100
# Both hot sets up, as much down: what an oracle moves.
ORACLE_MIB = 4 * HOT
REACHED = 0.9  # of the oracle's share: accesses are counted until then
WANTED = 0.95  # of it, at the end of each half
WANTED_MOVED = 1.5  # times what the oracle moves
WANTED_HUGE = 0.95  # of the huge pages, where what is hot is hot by huge pages
WANTED_HINTS = 1  # hint faults in 10,000 accesses, once all is in its place
KERNEL = ("kernel", "kernel-fast")
PAGE = 4096
MIB = 1 << 20
UNAVAILABLE = 3
REFUSED = 2

# name: (what the table calls it, whether it moves pages while the load runs)
SYSTEMS = {
    "none": ("no tiering", False),
    "interleave": ("interleaved (set_mempolicy)", False),
    "libmemtier": ("libmemtier, 1:1", False),
    "kernel": ("kernel, defaults", True),
    "kernel-fast": ("kernel, scan 0.2-1 s", True),
    "damon": ("DAMON migrate_hot/_cold", True),
    "heaptier": ("heaptier", True),
}
QUICK = ("none", "kernel-fast", "heaptier")
VARIANTS = [(unit, pages) for unit in ("2M", "4K") for pages in ("huge", "small")]
NAMES = {"2M": "hot in units of 2 MiB", "4K": "hot in units of 4 KiB", "huge": "huge pages", "small": "4 KiB pages"}
HEADS = ("", "share 1", "share 2", "reached 1", "reached 2", "moved MiB", "/oracle", "huge MiB", "M accesses", "hints/10k",
         "at the end")


class Unavailable(Exception):
    """This system cannot be had in this machine; the text says why."""


class Half:
    """One half of a run: the intervals that the load reported."""

    def __init__(self, lines):
        self.lines = lines
        self.accesses = lines[-1]["accesses"]

    @staticmethod
    def share_of(lines):
        """What is parked again before it can be asked for (`absent`) takes no part."""
        fast, slow = sum(line["fast"] for line in lines), sum(line["slow"] for line in lines)
        return fast / (fast + slow) if fast + slow else 0.0

    def final(self):
        """The share in the last second, and in as much before as it takes for two thousand answers."""
        kept = []
        for line in reversed(self.lines):
            answers = sum(done["fast"] + done["slow"] for done in kept)
            if line["seconds"] < self.lines[-1]["seconds"] - 1.1 and answers >= 2000:
                break
            kept.append(line)
        return self.share_of(kept)

    def hints(self):
        """Hint faults for 10,000 accesses in the last quarter, or in as much more as was said at once."""
        last = self.lines[-1]
        then = [line for line in self.lines if line["seconds"] <= 0.75 * last["seconds"]]
        if not then:
            return float("inf")
        return 1e4 * (last["hints"] - then[-1]["hints"]) / (last["accesses"] - then[-1]["accesses"])

    def reached(self, share):
        """Accesses until an interval's share was this high; None: never. Few answers prove nothing."""
        return next((line["accesses"] for line in self.lines
                     if line["fast"] + line["slow"] >= 200 and self.share_of([line]) >= share), None)


class Run:
    """What one machine said."""

    def __init__(self, text):
        facts, halves = {}, {1: [], 2: []}
        for line in text.splitlines():
            if line.startswith("{"):
                parsed = json.loads(line)
                if "half" in parsed:
                    halves[parsed["half"]].append(parsed)
                else:
                    facts.setdefault(next(iter(parsed)), parsed)
        if "end" not in facts or not halves[2]:
            raise Failed("the load did not get to its end")
        self.start, self.filled, self.end = facts["start"], facts["filled"], facts["end"]
        self.machine, self.stats = facts["machine"]["machine"], facts.get("stats", {}).get("stats", {})
        self.hot_pages, self.hints_before = (facts["half_begins"][name] for name in ("hot_pages", "hints"))
        self.halves = [Half(halves[1]), Half(halves[2])]

    def moved_mib(self, since):
        # Pages of a huge page are counted each.
        return self._delta("pgmigrate_success", since) * PAGE / MIB

    def _delta(self, name, since):
        return self.end["vmstat"].get(name, 0) - since["vmstat"].get(name, 0)

    def huge_mib(self):
        return [at["kib"].get("AnonHugePages", 0) / 1024 for at in (self.filled, self.end)]

    def oracle(self):
        """The share when all hot pages are on the fast node and the rest of its room is full, too. To be asked of a run
        that moved nothing: the room is what the heap found there."""
        rest = self.filled["pages"] - self.hot_pages
        return 0.9 + 0.1 * min(1.0, max(0, self.filled["fast_pages"] - self.hot_pages) / rest)

    def columns(self, oracle):
        reached = [half.reached(REACHED * oracle) for half in self.halves]
        accesses = sum(half.accesses for half in self.halves)
        moved = self.moved_mib(self.start)
        huge = self.huge_mib()
        hints = self.halves[1].lines[-1]["hints"] - self.hints_before
        return (*(f"{half.final():.3f}" for half in self.halves),
                *("never" if n is None else f"{n / 1e6:.1f} M" for n in reached),
                f"{moved:.0f}", f"{moved / ORACLE_MIB:.2f}", f"{huge[0]:.0f} > {huge[1]:.0f}" if huge[0] else "",
                f"{accesses / 1e6:.0f}", *((f"{hints * 1e4 / accesses:.2f}", f"{self.hints():.2f}") if hints else ("", "")))

    def hints(self):
        return max(half.hints() for half in self.halves)

    def as_dict(self):
        return {"machine": self.machine, "start": self.start, "filled": self.filled, "end": self.end, "stats": self.stats,
                "halves": [half.lines for half in self.halves]}


def run_one(context, system, unit, pages):
    # The machine's seconds; they take the host some ten each.
    seconds = (15 if context.quick else 20) if SYSTEMS[system][1] else 2
    command = [str(HERE / "nodes_guest"), system, str(context.build.resolve()), pages, context.program("bench_nodes_load"),
               "--unit", unit, "--pages", pages, "--heap", str(HEAP), "--hot", str(HOT), "--seconds", str(seconds)]
    variables = [f"{name}={value}" for name, value in context.kv_options.items()] if system == "heaptier" else []
    context.say(f"nodes: {NAMES[unit]}, {NAMES[pages]}: {SYSTEMS[system][0]}")
    vm = [str(VM), "--counted", "--nodes", MACHINE, "--timeout", str(60 * seconds + 200), "--"]
    done = subprocess.run([*vm, "/usr/bin/env", *variables, *command], capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no word why"])[-1]
    if done.returncode == 77:
        raise Skip(last)
    if done.returncode == UNAVAILABLE or (done.returncode == REFUSED and system == "heaptier"):
        raise Unavailable(last)
    if done.returncode != 0:
        raise Failed(f"{SYSTEMS[system][0]}: status {done.returncode}: {last}")
    return Run(done.stdout)


def table(title, lines):
    """lines: (name, columns or the reason why there are none)."""
    cells = [HEADS] + [(name, *what) for name, what in lines if not isinstance(what, str)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
    widths[0] = max([widths[0], *(len(name) for name, _ in lines)])
    yield title
    for name, what in [(HEADS[0], HEADS[1:]), *lines]:
        if isinstance(what, str):
            yield f"  {name.ljust(widths[0])}  {what}"
        else:
            yield "  " + "  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(what, widths[1:]))]).rstrip()


class Machines:
    """All runs, some at a time; the long ones are begun first."""

    def __init__(self, context, variants, systems):
        self.context = context
        # What is not to be had is not to be had in any variant: it is asked for once, or twice at the same time.
        self.unavailable = {}
        self.pool = concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1))
        self.runs = {(*variant, system): self.pool.submit(self._run, *variant, system)
                     for variant in variants for system in sorted(systems, key=lambda name: not SYSTEMS[name][1])}

    def _run(self, unit, pages, system):
        if system not in self.unavailable:
            try:
                return run_one(self.context, system, unit, pages)
            except Unavailable as reason:
                reason = str(reason).partition("; accepted:")[0]
                self.unavailable[system] = f"not available: {reason}"
            except Failed as problem:
                return f"FAILED: {problem}"
        return self.unavailable[system]

    def results(self, unit, pages):
        """{system: Run, or why there is none}"""
        return {key[2]: future.result() for key, future in self.runs.items() if key[:2] == (unit, pages)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)


def variant_rows(unit, pages, results):
    """Prints the table of one variant and gives its rows."""
    what = f"{NAMES[unit]}, {NAMES[pages]}"
    runs = {name: result for name, result in results.items() if isinstance(result, Run)}
    oracle = oracle_of(runs)
    lines = [(SYSTEMS[name][0], results[name].columns(oracle) if name in runs else results[name])
             for name in SYSTEMS if name in results]
    free = f"; fast node {runs['none'].machine['fast_free_mib']} MiB free before" if "none" in runs else ""
    print("\n" + "\n".join(table(f"{what} (oracle {oracle:.3f}{free})", lines)), flush=True)
    if "heaptier" in runs:
        return rows_of(what, runs, results, oracle, unit == "2M" and pages == "huge")
    row = Row.skipped(f"fast accesses: {what}", "oracle", str(results["heaptier"]))
    if results["heaptier"].startswith("FAILED"):
        row.verdict = "FAILED"
    return [row]


def oracle_of(runs):
    """What does nothing tells how much room there is."""
    return runs["none"].oracle() if "none" in runs else 0.95


def rows_of(what, runs, results, oracle, stays_huge):
    ours = runs["heaptier"]
    # The worse half: a hot set that moves has to be found twice.
    worse = {name: min(half.final() for half in run.halves) for name, run in runs.items()}
    rows = [Row(f"fast accesses: {what}", "oracle", worse["heaptier"] / oracle, (">=", WANTED))]
    others = [name for name in worse if name != "heaptier"]
    if others:
        best = max(others, key=worse.get)
        rows[0].note = (f"the worse half: {worse['heaptier']:.3f}, best of the others {worse[best]:.3f} "
                        f"({SYSTEMS[best][0]})")
    rows[0].runs = {name: run.as_dict() for name, run in runs.items()}
    rows.append(accesses_row(ours, [results[name] for name in KERNEL if name in results], REACHED * oracle))
    rows.append(Row("  MiB migrated", "oracle", ours.moved_mib(ours.start) / ORACLE_MIB, ("<=", WANTED_MOVED)))
    if stays_huge:
        filled, end = ours.huge_mib()
        rows.append(Row("  huge pages kept", "of all", end / filled if filled else 0.0, (">=", WANTED_HUGE)))
    rows.append(Row("  hint faults in 10,000 accesses at the end", "", ours.hints(), ("<=", WANTED_HINTS)))
    return rows


def accesses_row(ours, kernel, share):
    """Of the half in which we fare worse."""
    what, against = "  accesses until 0.9 of the oracle", "the kernel's best"
    for result in kernel:
        if not isinstance(result, Run):
            row = Row.skipped(what, against, result)
            if result.startswith("FAILED"):
                row.verdict = "FAILED"
            return row
    never = float("inf")
    ratios = []
    for half in (0, 1):
        mine = ours.halves[half].reached(share) or never
        best = min(run.halves[half].reached(share) or never for run in kernel)
        ratios.append(mine / best if mine != never else never)
    row = Row(what, against, max(ratios), ("<=", 1))
    if max(ratios) == 0:
        row.note = "which never gets there"
    return row


def run(context):
    if context.self_check:
        raise Skip("no plain allocator here")
    variants, systems = (VARIANTS[:1], QUICK) if context.quick else (VARIANTS, tuple(SYSTEMS))
    with Machines(context, variants, systems) as machines:
        rows = [row for unit, pages in variants for row in variant_rows(unit, pages, machines.results(unit, pages))]
    print("\nshare: of accesses that the fast node served, at the end of each half; reached: accesses until 0.9 of the "
          f"oracle's share;\nmoved: by migration, and against the oracle's {ORACLE_MIB} MiB; huge: when the heap was filled, and at "
          "the end;\nhints/10k: hint faults in 10,000 accesses, of all, and of the last quarter of the worse half", flush=True)
    return rows

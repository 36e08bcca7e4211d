"""An in-process key-value store at a part of its memory: heaptier against the kernel's swap to zram, equal total memory.

Three processes hold the same data: all in DRAM; in a cgroup limited to the part, swapping to zram (lz4); under heaptier.
The kernel's comes first: what it really uses (the cgroup's memory and all of the zram device's) is the total that
heaptier must not exceed, whichever way its own is counted. Warmed up, all three are stopped, and each is continued for
its window in turn.
"""

import contextlib
import json
import signal
import statistics

from .common import Environment, Failed, Killed, Pairs, Row, Session, Skip, mapped_memory
from .zram import room

MIB = 1 << 20


class Sizes:
    def __init__(self, quick):
        self.heap_mib = 256 if quick else 1024
        self.settle_ops = 500_000 if quick else 1_500_000  # until memory use no longer changes
        self.warm_ops = 1_500_000 if quick else 6_000_000  # until the hot set is found
        self.window_ms = 1000 if quick else 2500
        self.rounds = 3 if quick else 6
        # The index (4 bytes an object) and the process around the heap.
        self.around_mib = self.heap_mib // 128 + 2


class Side:
    """One process and what its windows said."""

    def __init__(self, name, session, memory=None):
        self.name, self.session = name, session
        self.memory = memory  # () -> bytes it uses now
        self.windows = []

    def pause(self):
        self.session.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.session.process.send_signal(signal.SIGCONT)

    def window(self, millis):
        self.resume()
        before = fetches(self.session)
        answer = self.session.ask(f"window {millis}")
        after = fetches(self.session)
        self.pause()
        if self.memory:
            answer["memory"] = self.memory()
        answer["kops"] = answer["ops"] / answer["wall_ns"] * 1e6
        answer["cpu_op"] = answer["cpu_ns"] / answer["ops"]
        missed = answer["majflt"] if before is None else after - before
        answer["misses"] = missed / answer["ops"]
        self.windows.append(answer)

    def all(self, key):
        return [w[key] for w in self.windows]

    def middle(self, key):
        return statistics.median(self.all(key))


def fetches(session):
    stats = json.loads(session.text("stats"))
    return stats["faults_fetch"] + stats["faults_fill"] if "faults_fetch" in stats else None


def start(context, sizes, threads, environment, cgroup, sessions):
    """A process with its data loaded and memory use settled; `sessions` ends it at the latest."""
    command = [context.program("bench_kv"), "--mib", str(sizes.heap_mib), "--threads", str(threads), "--layout",
               context.kv_layout]
    session = Session(command, environment, cgroup)
    sessions.callback(session.kill)
    session.ready()
    work(session, sizes.settle_ops)
    return session


def work(session, ops):
    if session.ask(f"warm {ops}")["corrupt"]:
        raise Failed("corrupt objects while warming up")


def start_kernel(context, sizes, threads, percent, zram, limited, sessions):
    """The baseline, warmed up, and all the memory that it uses."""
    limited.limit(int(sizes.heap_mib * MIB * percent / 100) + sizes.around_mib * MIB)
    plain = Environment(LD_PRELOAD=context.allocator("jemalloc"))
    session = start(context, sizes, threads, plain, limited, sessions)
    work(session, sizes.warm_ops - sizes.settle_ops)
    return Side("kernel", session, lambda: limited.usage() + zram.memory_used())


def used_by(session, counted):
    """The larger of what its cgroup is charged, page tables and all, which is the meter of the kernel's side, and the
    anonymous and shared memory that it maps."""
    return max(counted.usage(), mapped_memory(session.pid))


def settled_use(session, sizes, counted):
    """What it uses in the middle of five looks: while its evictor waits for a CPU it may for a moment use more."""
    looks = []
    for _ in range(5):
        work(session, sizes.settle_ops // 10)
        looks.append(used_by(session, counted))
    return statistics.median(looks)


def start_ours(context, sizes, threads, total, zram_used, counted, sessions):
    """heaptier, warmed up, with the largest budget found that keeps all it uses within `total` bytes."""
    fast = total - zram_used - (sizes.around_mib + 6) * MIB
    within = None  # the largest budget that was seen to stay within the total
    for attempt in range(6):
        if attempt == 5:
            if within is None:
                raise Failed("no budget keeps heaptier within the kernel's total")
            fast = within
        environment = Environment(LD_PRELOAD=context.heaptier(), HEAPTIER_FAST=f"{int(fast) // MIB}M",
                                  **context.kv_options)
        session = start(context, sizes, threads, environment, counted, sessions)
        used = settled_use(session, sizes, counted)
        context.say(f"heaptier with {int(fast) // MIB} MiB fast uses {used / MIB:.0f} of {total / MIB:.0f} MiB")
        # Less than the total: it breathes by a MiB or so from window to window, and has grown by 6 at the end (the
        # pages' copies while the hot set is being found).
        if total - 15 * MIB <= used <= total - 8 * MIB or attempt == 5:
            work(session, sizes.warm_ops - sizes.settle_ops)
            return Side("heaptier", session, lambda: used_by(session, counted))
        session.close()
        if used <= total - 8 * MIB:
            within = max(within or 0, fast)
        fast += total - used - 10 * MIB
        if fast < 16 * MIB:
            raise Failed("heaptier uses more than the kernel however small its budget is")


def compare(context, percent, threads):
    """The rows of one point."""
    for killed in range(8):
        try:
            return compare_once(context, percent, threads, killed)
        except Killed:
            # Only the baseline lives in a limited cgroup, and with two threads the kernel now and then finds no page to
            # reclaim there although swap is free.
            context.say("the kernel's cgroup killed the baseline; again")
    raise Skip("the kernel's cgroup killed the baseline eight times")


def compare_once(context, percent, threads, killed):
    sizes = Sizes(context.quick)
    with room(2 * sizes.heap_mib * MIB) as (zram, limited, counted), contextlib.ExitStack() as sessions:
        kernel = start_kernel(context, sizes, threads, percent, zram, limited, sessions)
        kernel.pause()
        zram_used = zram.memory_used()
        ours = start_ours(context, sizes, threads, kernel.memory(), zram_used, counted, sessions)
        ours.pause()
        plain = Environment(LD_PRELOAD=context.allocator("jemalloc"))
        dram = Side("DRAM", start(context, sizes, threads, plain, None, sessions))
        dram.pause()
        for i in range(sizes.rounds):
            for side in [dram, kernel, ours] if i % 2 == 0 else [ours, kernel, dram]:
                side.window(sizes.window_ms)
            context.say(f"round {i + 1}: " + ", ".join(f"{s.name} {s.windows[-1]['kops']:.0f} kops/s"
                                                       for s in (dram, kernel, ours)))
        corrupt = 0
        for side in (kernel, ours):
            side.resume()
            corrupt += sum(side.all("corrupt")) + side.session.ask("verify")["corrupt"]
        return rows(percent, threads, dram, kernel, ours, zram_used, corrupt, killed)


def rows(percent, threads, dram, kernel, ours, zram_used, corrupt, killed):
    def ratio(key):
        pairs = Pairs()
        for a, b in zip(kernel.all(key), ours.all(key)):
            pairs.add(a, b)
        return pairs

    point = f"kv at {percent} % of memory, {threads} thread{'s' if threads > 1 else ''}"
    against = "kernel swap to zram"
    total = kernel.middle("memory")
    memory = (f"memory {ours.middle('memory') / MIB:.0f} against {total / MIB:.0f} MiB "
              f"({zram_used / MIB:.0f} of it zram)")
    if ours.middle("memory") > total:
        memory += ": OVER"
    throughput = ratio("kops")
    wanted = (">=", 1.2) if percent == 50 else None
    note = f"{kernel.middle('kops'):.0f} -> {ours.middle('kops'):.0f} kops/s; DRAM {dram.middle('kops'):.0f}; {memory}"
    if killed:
        note += f"; baseline killed by its cgroup {killed}x"
    result = [Row(f"{point}: throughput", against, throughput.ratio(), wanted, throughput.spread(), note=note)]
    for key, name, scale, unit in (("p99_ns", "p99", 1e-3, "us"), ("p999_ns", "p99.9", 1e-3, "us"),
                                   ("cpu_op", "CPU per operation", 1, "ns")):
        pairs = ratio(key)
        result.append(Row(f"{point}: {name}", against, pairs.ratio(), None, pairs.spread(),
                          note=f"{kernel.middle(key) * scale:.1f} -> {ours.middle(key) * scale:.1f} {unit}"))
    misses = ratio("misses")
    if min(kernel.all("misses")) > 0:
        result.append(Row(f"{point}: misses per operation", against, misses.ratio(), None, misses.spread(),
                          note=f"{kernel.middle('misses'):.4f} -> {ours.middle('misses'):.4f}"))
    result.append(Row(f"{point}: corrupt objects", "none", corrupt, ("<=", 0), note="every read and all at the end"))
    return result


def run(context):
    if context.self_check:
        raise Skip("the plain allocator has no budget")
    result = []
    for percent, threads in context.kv_points:
        context.say(f"key-value at {percent} % of memory, {threads} thread(s)")
        try:
            result += compare(context, percent, threads)
        except Skip as reason:
            result.append(Row.skipped(f"kv at {percent} % of memory, {threads} thread(s)", "kernel swap to zram",
                                      str(reason)))
    return result

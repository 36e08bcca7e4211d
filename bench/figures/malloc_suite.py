"""malloc and free while heaptier is dormant, against the same allocator preloaded plain."""

from .common import Environment, Pairs, Row, Session, geometric_mean, in_turn, quartiles

WINDOW_NS = 30e6  # how long one case runs in one window, about


def measure(context, heap):
    """{(case, threads): Pairs of wall times}, the same of CPU times, and whether the engine stayed dormant."""
    program = context.program("bench_malloc_suite")
    plain = Environment(LD_PRELOAD=context.allocator(heap))
    ours = Environment(LD_PRELOAD=context.heaptier(heap), HEAPTIER_HEAP=heap)
    wall, cpu = {}, {}
    dormant = True
    # Several pairs of processes: where the kernel happens to put a process's memory is worth a per cent or two.
    processes, rounds = (3, 4) if context.quick else (10, 4)
    for _ in range(processes):
        with Session([program], plain) as a, Session([program], ours) as b:
            for case in a.ask("list")["cases"].split(","):
                for threads in (1, 2):
                    job = f"run {case} {threads}"
                    ops = calibrate(a, job)
                    b.ask(f"{job} {ops}")
                    for _, x, y in in_turn(rounds, lambda: a.ask(f"{job} {ops}"), lambda: b.ask(f"{job} {ops}")):
                        wall.setdefault((case, threads), Pairs()).add(x["wall_ns"], y["wall_ns"])
                        cpu.setdefault((case, threads), Pairs()).add(x["cpu_ns"], y["cpu_ns"])
            dormant &= b.ask("state")["awake"] == 0
    return wall, cpu, dormant


def calibrate(session, job):
    """Operations that take about a window; the run warms the caches, too."""
    ops = 20000
    while True:
        nanos = session.ask(f"{job} {ops}")["wall_ns"]
        if nanos > WINDOW_NS / 4 or ops > 1 << 30:
            return max(256, int(ops * WINDOW_NS / nanos) // 256 * 256)
        ops *= 4


def run(context):
    rows = []
    for heap in ("jemalloc", "mimalloc"):
        context.say(f"malloc suite, {heap}")
        wall, cpu, dormant = measure(context, heap)
        for threads in (1, 2):
            # plain time / our time: above 1 is faster than plain.
            keys = [key for key in wall if key[1] == threads]
            each = {key[0]: wall[key].ratio(inverse=True) for key in keys}
            processor = geometric_mean(cpu[key].ratio(inverse=True) for key in keys)
            # The spread of the mean itself: over the rounds, the geometric mean of all cases in that round.
            by_round = [geometric_mean(ratios) for ratios in zip(*(wall[key].ratios(inverse=True) for key in keys))]
            worst = min(each, key=each.get)
            note = f"worst {worst} {each[worst]:.3f}; by CPU time {processor:.3f}"
            if not dormant:
                note += "; THE ENGINE WOKE UP"
            rows.append(Row(f"malloc suite, dormant, {threads} thread{'s' if threads > 1 else ''}", f"{heap} plain",
                            geometric_mean(each.values()), (">=", 0.97), quartiles(by_round), note=note))
            context.say(f"{threads} thread(s), by wall and by CPU time: " + ", ".join(
                f"{case} {ratio:.3f} {cpu[case, threads].ratio(inverse=True):.3f}" for case, ratio in each.items()))
    return rows

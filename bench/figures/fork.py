"""fork() of a 400 MB heap of which half is stored, against glibc malloc with the same data resident."""

from .common import Environment, Failed, Pairs, Row, Session, in_turn


def run(context):
    context.say("fork of a 400 MB heap")
    program = context.program("bench_fork")
    rounds = 15 if context.quick else 60
    # Woken by the program itself; a budget of all of the heap leaves residency to the program's own demotions.
    ours = Environment(LD_PRELOAD=context.heaptier(), HEAPTIER_FAST="100%")
    forks, reads = Pairs(), Pairs()
    with Session([program, "400"], Environment()) as a, Session([program, "400"], ours) as b:
        for session in (a, b):
            session.ask("fork")
        for _, x, y in in_turn(rounds, lambda: a.ask("fork"), lambda: b.ask("fork")):
            forks.add(x["fork_ns"], y["fork_ns"])
        for _, x, y in in_turn(rounds, lambda: a.ask("read"), lambda: b.ask("read")):
            if not x["right"] or not y["right"]:
                raise Failed("the child read something else than the parent wrote")
            reads.add(x["read_ns"], y["read_ns"])
        state = b.ask("state")
    stored = state["stored_pages"] * 4096 / (1 << 20)
    times = [t / 1e6 for t in forks.medians()]
    note = f"{times[0]:.1f} -> {times[1]:.1f} ms; {stored:.0f} of {state['heap_mib']:.0f} MiB stored"
    if stored < state["heap_mib"] * 0.4:
        note += ": NOT HALF OF IT"
    first = [t / 1e6 for t in reads.medians()]
    return [Row("fork, half of the heap stored", "glibc, all resident", forks.ratio(), ("<=", 1.3), forks.spread(),
                note=note),
            Row("fork until the child read a stored page", "glibc, all resident", reads.ratio(), None, reads.spread(),
                note=f"{first[0]:.1f} -> {first[1]:.1f} ms")]

"""What heaptier itself takes, against the heap it manages: its own account, and a cross-check from outside."""

import json

from .common import Environment, Row, Session, Skip, vm_rss

MIB = 1 << 20
PAGE = 4096


def run(context):
    if context.self_check:
        raise Skip("the plain allocator has no budget")
    context.say("memory of heaptier itself")
    mib = 1024  # the share falls with the size: a quick run must not be smaller
    environment = Environment(LD_PRELOAD=context.heaptier(), HEAPTIER_FAST="50%")
    with Session([context.program("bench_kv"), "--mib", str(mib)], environment) as session:
        session.ask("warm 1000000")
        stats = json.loads(session.text("stats"))
        resident = vm_rss(session.pid)
    pages = sum(stats[f"{state}_pages"] for state in ("resident", "clean", "parked")) * PAGE
    # What is left of the process when the pages of its heap and the pool are taken away: heaptier's metadata, the
    # allocator's own, the code and data of the program. An account that hides something shows here.
    rest = resident - pages - stats["pool_held_bytes"]
    # Of the pages that hold something, wherever they are: address space that nobody touched is no memory managed.
    managed = pages + sum(stats[f"{state}_pages"] for state in ("stored", "filled", "poisoned")) * PAGE
    share = stats["metadata_bytes"] / managed * 100
    note = (f"{stats['metadata_bytes'] / MIB:.1f} of {managed / MIB:.0f} MiB in {stats['heap_managed_bytes'] / MIB:.0f} "
            f"MiB of pageblocks; process beyond pages and pool {rest / MIB:.1f} MiB")
    return [Row("memory of heaptier itself", "heap managed", share, ("<=", 0.5), unit=" %", note=note)]

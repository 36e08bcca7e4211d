"""What starting the shortest program costs with heaptier preloaded, against the allocator preloaded plain."""

import subprocess

from .common import Failed, Row


def run(context):
    context.say("start-up of /bin/true")
    rounds = 150 if context.quick else 600
    rows = []
    for heap in ("jemalloc", "mimalloc"):
        command = [context.program("bench_startup"), str(rounds),
                   "--a", f"LD_PRELOAD={context.allocator(heap)}",
                   "--b", f"LD_PRELOAD={context.heaptier(heap)}", "--b", f"HEAPTIER_HEAP={heap}"]
        result = subprocess.run(command, text=True, capture_output=True)
        if result.returncode != 0:
            raise Failed(result.stderr.strip())
        value = {k: float(v) for k, v in (word.split("=") for word in result.stdout.split())}
        spread = value["extra_low_us"] / 1000, value["extra_high_us"] / 1000
        rows.append(Row("start-up of /bin/true, time", f"{heap} plain", value["extra_us"] / 1000, ("<=", 1), spread,
                        unit=" ms", note=f"{value['a_us']:.0f} -> {value['b_us']:.0f} us, {rounds} pairs"))
        rows.append(Row("start-up of /bin/true, peak RSS", f"{heap} plain", (value["b_kib"] - value["a_kib"]) / 1024,
                        ("<=", 2), unit=" MiB", note=f"{value['a_kib']:.0f} -> {value['b_kib']:.0f} KiB"))
    return rows

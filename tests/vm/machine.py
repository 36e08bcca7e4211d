"""The virtual machine: its nodes as QEMU's arguments.

Software emulation (KVM is not needed, nor used: a count of pages is the same with it). What such a machine says about
time means nothing; where pages are, how many moved and whether huge pages stayed whole is what it is for.
"""

import dataclasses
import re

MIB = 1 << 20

# ns, GB/s as seen from a CPU of the same and of the other socket: what the kernel ranks nodes by.
FIGURES = {"dram": ((100, 200), (150, 100)), "cxl": ((300, 40), (350, 30)), "pmem": ((500, 20), (550, 15))}
DISTANCE = {"dram": 21, "cxl": 24, "pmem": 38}
DEFAULT_NODES = "dram:1024M,dram:512M,cxl:512M,pmem:514M"


class BadMachine(Exception):
    """No machine can be made of these options; the message says why."""


@dataclasses.dataclass
class Node:
    kind: str
    mib: int
    cpus: int


def parse_nodes(text):
    """kind:size[/cpus], ... with kind dram, cxl or pmem. DRAM nodes have CPUs (one unless told); pmem comes last, once."""
    nodes = []
    for part in text.split(","):
        got = re.fullmatch(r"(dram|cxl|pmem):(\d+)([MG])(?:/(\d+))?", part.strip())
        if not got:
            raise BadMachine(f"--nodes {part!r} is not accepted; accepted: dram:SIZE[/CPUS], cxl:SIZE, pmem:SIZE with M or G")
        kind, size, unit, cpus = got.groups()
        if cpus and kind != "dram":
            raise BadMachine(f"--nodes {part!r}: only dram nodes have CPUs")
        nodes.append(Node(kind, int(size) * (1024 if unit == "G" else 1), int(cpus or 1) if kind == "dram" else 0))
    if not nodes or nodes[0].kind != "dram":
        raise BadMachine("--nodes: the first node must be dram")
    if any(n.kind == "pmem" for n in nodes[:-1]):
        raise BadMachine("--nodes: one pmem node at most, the last one")
    if sum(n.mib for n in nodes if n.kind != "pmem") < 800:
        raise BadMachine("--nodes: the kernel turns huge pages off below 800 MiB of dram and cxl together")
    return nodes


def arguments(nodes, kernel, initramfs, shares, console, counted=False):
    """QEMU's command line. shares: [(tag, folder, read-only)]. counted: time goes by 1 ns an instruction."""
    boot = [n for n in nodes if n.kind != "pmem"]
    pmem = nodes[-1] if nodes[-1].kind == "pmem" else None
    cpus = sum(n.cpus for n in nodes)
    sockets = sum(1 for n in nodes if n.cpus)
    if cpus % sockets:
        raise BadMachine("--nodes: every dram node must have the same number of CPUs")
    # The NVDIMM's label area is taken from its size.
    memory = sum(n.mib for n in boot)
    clock = ["-accel", "tcg,thread=single", "-icount", "shift=0"] if counted else ["-accel", "tcg,thread=multi"]
    # Emulated, "rep movsb" takes a turn for each byte, 4096 to copy a page: without ERMS the kernel copies and clears in
    # words, which costs it, compared with all else, more nearly what it costs a real machine.
    args = ["qemu-system-x86_64", *clock, "-cpu", "max,-erms", "-nodefaults", "-no-reboot", "-display", "none",
            "-M", f"q35,hmat=on{',nvdimm=on' if pmem else ''}",
            "-smp", f"{cpus},sockets={sockets},cores={cpus // sockets},threads=1",
            "-m", f"{memory}M" + (f",slots=2,maxmem={memory + pmem.mib + 2 + 1024}M" if pmem else "")]
    cpu = 0
    for number, node in enumerate(nodes):
        if node.kind == "pmem":
            args += ["-object", f"memory-backend-ram,id=ram{number},size={node.mib}M",
                     "-device", f"nvdimm,id=nvdimm0,memdev=ram{number},label-size=2M,node={number}",
                     "-numa", f"node,nodeid={number},initiator=0"]
            continue
        args += ["-object", f"memory-backend-ram,id=ram{number},size={node.mib}M"]
        where = f"node,nodeid={number},memdev=ram{number}"
        if node.cpus:
            args += ["-numa", where + f",cpus={cpu}-{cpu + node.cpus - 1}"]
            cpu += node.cpus
        else:
            args += ["-numa", where + ",initiator=0"]
    for a, left in enumerate(nodes):
        for b, right in enumerate(nodes):
            if a < b:
                far = DISTANCE["dram" if left.kind == right.kind == "dram" else
                               max(left.kind, right.kind, key=lambda k: DISTANCE[k])]
                args += ["-numa", f"dist,src={a},dst={b},val={far}", "-numa", f"dist,src={b},dst={a},val={far}"]
    for a, left in enumerate(nodes):
        if not left.cpus:
            continue
        for b, right in enumerate(nodes):
            near = right.kind != "dram" and a == 0 or a == b
            latency, bandwidth = FIGURES[right.kind][0 if near else 1]
            lb = f"hmat-lb,initiator={a},target={b},hierarchy=memory,data-type="
            args += ["-numa", f"{lb}access-latency,latency={latency}", "-numa", f"{lb}access-bandwidth,bandwidth={bandwidth}G"]
    for tag, folder, read_only in shares:
        args += ["-fsdev", f"local,id={tag},path={folder},security_model=none,multidevs=remap{',readonly=on' if read_only else ''}",
                 "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    args += ["-kernel", str(kernel), "-initrd", str(initramfs), "-serial", f"file:{console}", "-append",
             "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off audit=0 apparmor=0 cryptomgr.notests "
             "random.trust_cpu=on tsc=reliable nowatchdog"]
    return args

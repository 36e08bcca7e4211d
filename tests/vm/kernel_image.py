"""A stock kernel for the virtual machine: found, fetched with a package manager's own tools, unpacked, never installed.

The distribution's archive has more than one kernel; the host's own lists are neither read for it nor changed. A private
apt configuration, with the host's mirror and keyring, lives in the cache together with what it fetched.
"""

import contextlib
import fcntl
import lzma
import os
import pathlib
import re
import shutil
import subprocess

# What the disk, the shared folders and the memory device need; their dependencies are looked up.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "nfit", "device_dax", "dax_pmem", "kmem", "zram", "lz4", "lz4_compress")


class NoImage(Exception):
    """No kernel is to be had here; the message says why and what would help."""


class Image:
    """An unpacked kernel: `kernel` is the file to boot, `modules` the folder of its modules."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        kernels = sorted(self.folder.glob("boot/vmlinuz-*"))
        if not kernels:
            raise NoImage(f"{folder} has no boot/vmlinuz-*")
        self.kernel = kernels[-1]
        self.release = self.kernel.name.removeprefix("vmlinuz-")
        found = [self.folder / top / "modules" / self.release for top in ("lib", "usr/lib")]
        self.modules = next((m for m in found if m.is_dir()), None)
        if self.modules is None:
            raise NoImage(f"{folder} has a kernel {self.release} without its modules")

    def module_files(self):
        """The modules to load, in order, as (name, bytes), dependencies first. What is built in is not there."""
        paths = {}
        for path in self.modules.rglob("*.ko*"):
            paths[path.name.split(".")[0].replace("-", "_")] = path
        done = {}

        def add(name):
            name = name.replace("-", "_")
            if name in done or name not in paths:
                return
            done[name] = None
            content = paths[name].read_bytes()
            if paths[name].suffix == ".xz":
                content = lzma.decompress(content)
            elif paths[name].suffix == ".zst":
                content = subprocess.run(["zstd", "-dcq", paths[name]], check=True, capture_output=True).stdout
            depends = re.search(rb"\0depends=([^\0]*)\0", content)
            for needed in (depends.group(1).decode().split(",") if depends else []):
                if needed:
                    add(needed)
            done[name] = content
            order.append(name)

        order = []
        for name in MODULES:
            add(name)
        return [(name, done[name]) for name in order]


def cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(home) / "heaptier" / "vm"


def _release():
    facts = {}
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/etc/os-release").read_text().splitlines():
            key, _, value = line.partition("=")
            facts[key] = value.strip('"')
    return facts.get("ID", ""), facts.get("VERSION_CODENAME", "")


def _mirror(codename):
    """(address, keyring or None) of the host's own archive: the entry that offers its release."""
    folder = pathlib.Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text()
            if path.suffix == ".sources":
                for block in re.split(r"\n\s*\n", text):
                    fields = dict(re.findall(r"^([A-Za-z-]+):\s*(.+)$", block, re.MULTILINE))
                    if codename in fields.get("Suites", "").split() and "deb" in fields.get("Types", "").split():
                        keyring = fields.get("Signed-By", "").strip()
                        return fields["URIs"].split()[0], keyring if keyring.startswith("/") else None
                continue
            for line in text.splitlines():
                got = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s", line)
                if got and got.group(3) == codename:
                    keyring = re.search(r"signed-by=(\S+)", got.group(1) or "")
                    return got.group(2), keyring.group(1) if keyring else None
    raise NoImage(f"apt's sources name no archive of {codename or 'this release'}; give --kernel-image")


def _apt(base, *command):
    options = {"Dir::Etc::SourceList": base / "sources.list", "Dir::Etc::SourceParts": base / "none",
               "Dir::State::Lists": base / "lists", "Dir::Cache": base / "cache", "APT::Sandbox::User": "",
               "Acquire::Retries": 3}
    flags = [f"-o{key}={value}" for key, value in options.items()]
    done = subprocess.run([command[0], *flags, "-q", *command[1:]], capture_output=True, text=True, cwd=base / "debs",
                          env=dict(os.environ, LC_ALL="C"), timeout=900, check=False)
    if done.returncode != 0:
        raise NoImage(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    return done.stdout


def _fetch(version, base):
    """Fetches and unpacks the newest stock kernel of this version (6.12, 6.1) into base."""
    distribution, codename = _release()
    if distribution != "debian" or not shutil.which("apt-get"):
        raise NoImage("kernels are fetched on Debian only: give --kernel-image with an unpacked kernel package or its file")
    address, keyring = _mirror(codename)
    for name in ("none", "lists/partial", "cache/archives/partial", "debs"):
        (base / name).mkdir(parents=True, exist_ok=True)
    option = f"[signed-by={keyring}] " if keyring else ""
    (base / "sources.list").write_text("".join(
        f"deb {option}{address} {suite} main\n" for suite in (codename, f"{codename}-backports")))
    _apt(base, "apt-get", "update")
    names = re.findall(rf"^(linux-image-{re.escape(version)}\.[\w.+~-]*-amd64)\s",
                       _apt(base, "apt-cache", "search", "--names-only", rf"^linux-image-{re.escape(version)}\..*-amd64$"),
                       re.MULTILINE)
    names = [n for n in names if not re.search(r"-(cloud|rt)-amd64$", n)]
    if not names:
        raise NoImage(f"the archive of {codename} has no kernel {version}; give --kernel-image")

    def age(name):
        return [int(n) for n in re.findall(r"\d+", name)]

    newest = max(names, key=age)
    for old in (base / "debs").glob("*.deb"):
        old.unlink()
    _apt(base, "apt-get", "download", newest)
    return next((base / "debs").glob("*.deb"))


def _unpack(package, folder):
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    done = subprocess.run(["dpkg-deb", "-x", str(package), str(partial)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoImage(f"{package} cannot be unpacked: {done.stderr.strip()}")
    Image(partial)  # complete?
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def find(version="6.12", given=None):
    """The Image to boot: `given` (a .deb, or a folder it was unpacked to), or the stock one of `version`, from the cache."""
    base = cache_folder()
    base.mkdir(parents=True, exist_ok=True)
    if given and pathlib.Path(given).is_dir():
        return Image(given)
    # Tests run side by side: one fetches, the others wait.
    with open(base / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if given:
            package = pathlib.Path(given)
            folder = base / f"given-{package.name}"
            if not folder.is_dir():
                _unpack(package, folder)
            return Image(folder)
        folder = base / f"linux-{version}"
        if not folder.is_dir():
            try:
                _unpack(_fetch(version, base), folder)
            except subprocess.TimeoutExpired as late:
                raise NoImage(f"the archive did not answer in {late.timeout:.0f} s") from None
        return Image(folder)

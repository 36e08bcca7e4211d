"""The tree is as clang-format 14 leaves it (./run format)."""

import re
import shutil
import subprocess

from project import Skip


def check(tree):
    formatter = shutil.which("clang-format-14")
    if formatter is None:
        raise Skip("clang-format-14 is not installed; other versions format differently")
    files = tree.cxx_files("runtime", "preload", "uffd", "policies", "tests", "bench")
    places = {}
    for start in range(0, len(files), 50):
        done = subprocess.run([formatter, "--style=file", "--dry-run", *files[start:start + 50]], cwd=tree.root,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return [f"clang-format-14 failed: {done.stderr.strip()}"]
        for path, line in re.findall(r"^([^:\n]+):(\d+):\d+: warning: .*clang-format-violations", done.stderr,
                                     re.MULTILINE):
            places.setdefault(path, []).append(int(line))
    return [f"{path}:{min(lines)}: not as clang-format leaves it ({len(lines)} places; ./run format)"
            for path, lines in sorted(places.items())]

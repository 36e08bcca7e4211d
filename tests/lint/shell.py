"""Shell scripts pass shellcheck and stop at the first error."""

import shutil
import subprocess

from project import Skip


def scripts(tree):
    for path in tree.files():
        if path.endswith((".cc", ".h", ".py", ".md", ".txt")):
            continue
        with open(tree.root / path, "rb") as file:
            first = file.readline(80)
        if first.startswith(b"#!") and first.split()[0].endswith(b"sh") or first.startswith(b"#!/usr/bin/env bash"):
            yield path


def check(tree):
    checker = shutil.which("shellcheck")
    if checker is None:
        raise Skip("shellcheck is not installed")
    found = list(scripts(tree))
    problems = []
    for path in found:
        if "bash" in tree.read(path).splitlines()[0] and "set -euo pipefail" not in tree.read(path):
            problems.append(f"{path}:1: without set -euo pipefail")
    # SC2016: a $ in single quotes is meant for another shell, as in sh -c '...'.
    done = subprocess.run([checker, "--format=gcc", "--exclude=SC2016", *found], cwd=tree.root, capture_output=True, text=True,
                          check=False)
    return problems + done.stdout.splitlines()

#!/usr/bin/env python3
"""lint.py CHECK... : the project's own rules. Prints file:line: what is wrong; status 1 if anything is, 77 if a
check cannot be made here (with the reason)."""

import argparse
import importlib
import sys
from pathlib import Path

from project import Skip, Tree

CHECKS = ("arrows", "doors", "formatting", "headers", "heapless", "length", "readme", "shell", "toplevel",
          "words")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="+", choices=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--root", default=Path(__file__).resolve().parents[2])
    parser.add_argument("--heaptier", help="the built command, for readme")
    parser.add_argument("--write", action="store_true", help="put the generated tables into README.md")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    tree = Tree(arguments.root)
    tree.heaptier = arguments.heaptier
    status = 0
    for name in arguments.checks:
        module = importlib.import_module(name)
        if arguments.write and hasattr(module, "write"):
            module.write(tree)
        try:
            problems = module.check(tree)
        except Skip as reason:
            print(f"{name}: skipped: {reason}")
            status = status or 77
            continue
        for problem in problems:
            print(problem)
        if problems:
            print(f"{name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())

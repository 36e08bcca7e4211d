"""Nothing in the tree tells where it was written: no machine's paths, no private hosts, no addresses but public
ones that a reader can open."""

import re

_PUBLIC_HOSTS = {"www.apache.org", "kernel.org", "www.kernel.org", "docs.kernel.org", "man7.org", "redis.io",
                 "jemalloc.net", "github.com", "www.usenix.org", "dl.acm.org", "doi.org", "example.com"}
_LINK = re.compile(r"https?://([^/\s)\"'>:]+)")
_WORDS = [
    (re.compile(r"(?<![\w.$}])/(work|home|root|Users|mnt|workspace)/\w"), "a path of one machine"),
    (re.compile(r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+\b"), "a private address"),
    (re.compile(r"\b[\w-]+\.(internal|corp|lan|intranet)\b"), "a private host"),
]
_BINARY = (".png", ".rdb", ".gz", ".bin")


def check(tree):
    problems = []
    for path in tree.files():
        if path.endswith(_BINARY):
            continue
        for number, line in enumerate(tree.read(path).splitlines(), start=1):
            for pattern, what in _WORDS:
                match = pattern.search(line)
                if match:
                    problems.append(f"{path}:{number}: {match.group()}: {what}")
            for host in _LINK.findall(line):
                if host not in _PUBLIC_HOSTS:
                    problems.append(f"{path}:{number}: {host}: not among the hosts in tests/lint/words.py")
    return problems

"""Programs that keep data: git, sqlite3."""

import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import Wrong, main  # noqa: E402

_WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "c",
        "GIT_COMMITTER_EMAIL": "c@example.com", "GIT_CONFIG_NOSYSTEM": "1"}


def _history(path, commits, files):
    """A fast-import stream: `commits` commits that change some of `files` files of a few KiB."""
    rng = random.Random(5)
    lines = [[f"line {rng.random()}" for _ in range(rng.randint(20, 200))] for _ in range(files)]
    out = []
    for n in range(commits):
        message = f"commit {n}"
        out.append(f"commit refs/heads/main\nauthor a <a@example.com> {1700000000 + n} +0000\n"
                   f"committer c <c@example.com> {1700000000 + n} +0000\ndata {len(message)}\n{message}\n")
        for f in range(files) if n == 0 else rng.sample(range(files), 12):
            lines[f][rng.randrange(len(lines[f]))] = f"changed in {n} to {rng.random()}"
            text = "\n".join(lines[f])
            out.append(f"M 100644 inline dir{f % 7}/file{f}\ndata {len(text)}\n{text}\n")
    path.write_text("".join(out))


def git(bench):
    tool = bench.program("git")
    stream = bench.scratch / "history"
    _history(stream, 200, 300)
    seen = []
    for tiered in (False, True):
        place = bench.scratch / f"work-{tiered}"
        place.mkdir()
        env = dict(_WHO, HOME=str(place))

        def g(*argv, cwd=place, stdin=b"", tiered=tiered, env=env):
            return bench.must([tool, *argv], tiered, limit=120, cwd=cwd, env=env, stdin=stdin).out

        g("init", "-q", "-b", "main", "origin")
        origin = place / "origin"
        g("fast-import", "--quiet", cwd=origin, stdin=stream.read_bytes())
        g("clone", "-q", "--no-local", str(origin), "copy")
        copy = place / "copy"
        said = [g("log", "-p", "--stat", cwd=copy), g("blame", "dir3/file3", cwd=copy)]
        (copy / "new").write_text("a new file\n")
        g("add", "new", cwd=copy)
        g("commit", "-q", "-m", "one more", "--date=1700009999 +0000", cwd=copy,
          env=dict(env, GIT_COMMITTER_DATE="1700009999 +0000"))
        g("-c", "pack.threads=2", "gc", "-q", "--aggressive", "--prune=now", cwd=copy)
        g("fsck", "--full", "--strict", cwd=copy)
        said += [g("rev-parse", "HEAD", cwd=copy), g("rev-list", "--objects", "--all", cwd=copy),
                 g("grep", "-n", "changed in 1.*7$", "HEAD~50", cwd=copy), g("status", "--porcelain", cwd=copy)]
        seen.append(said)
    for what, plain, tiered in zip(("log", "blame", "head", "objects", "grep", "status"), *seen):
        if plain != tiered:
            raise Wrong(f"git {what} differs from the plain run's")


_SQL = """
.bail on
PRAGMA cache_size = -60000;
CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, name TEXT, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  INSERT INTO t SELECT i, (i * 7919) % 100003, 'name-' || (i % 1000), printf('%0*d', 40 + i % 90, i) FROM n;
CREATE INDEX by_k ON t (k);
CREATE INDEX by_name ON t (name, k);
SELECT count(*), sum(k), sum(length(body)), min(name), max(name) FROM t;
SELECT name, count(*), avg(k) FROM t WHERE k BETWEEN 1000 AND 30000 GROUP BY name ORDER BY 3 DESC LIMIT 7;
UPDATE t SET body = body || '-changed', k = k + 1 WHERE id % 3 = 0;
DELETE FROM t WHERE id % 11 = 0;
SELECT a.name, sum(b.k) FROM t a JOIN t b ON a.k = b.id WHERE a.id < 15000 GROUP BY a.name ORDER BY 2, 1 LIMIT 9;
BEGIN; DELETE FROM t WHERE k > 50000; SELECT count(*) FROM t; ROLLBACK;
SELECT count(*), sum(k), sum(length(body)), total(id) FROM t;
PRAGMA integrity_check;
VACUUM;
SELECT group_concat(x) FROM (SELECT hex(substr(body, 30, 3)) AS x FROM t ORDER BY k DESC, id LIMIT 200);
"""


def sqlite3(bench):
    tool = bench.program("sqlite3")
    bench.same([tool, ":memory:"], stdin=_SQL.encode(), limit=120)
    # And to a file, which a plain sqlite3 then reads.
    dumps = []
    for tiered in (False, True):
        database = bench.scratch / f"{tiered}.db"
        bench.must([tool, database], tiered, stdin=_SQL.encode(), limit=120)
        dumps.append(bench.must([tool, database, "PRAGMA integrity_check; SELECT * FROM t ORDER BY id"], False).out)
    if dumps[0] != dumps[1]:
        raise Wrong("the database written under heaptier differs")


if __name__ == "__main__":
    main({"git": git, "sqlite3": sqlite3})

"""This project's own unit tests, preloaded with this project. Some of them fill hundreds of megabytes at random: they get a
budget that lets them end, still far below what they use."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import Missing, Wrong, main  # noqa: E402


def selfhost(bench):
    listed = bench.must(["ctest", "--test-dir", bench.build, "-L", "^unit$", "--show-only=json-v1"], False)
    tests = [t for t in json.loads(listed.out)["tests"] if "command" in t and pathlib.Path(t["command"][0]).exists()]
    if not tests:
        raise Missing("no unit test is built")
    failed = []
    for test in tests:
        limits = [each["value"] for each in test["properties"] if each["name"] == "TIMEOUT"]
        done = bench.run(test["command"], limit=max(limits, default=300), env={"HEAPTIER_FAST": "32M"})
        if done.status not in (0, 77):
            failed.append(f"{test['name']}: {done.describe()}")
    if failed:
        raise Wrong(f"{len(failed)} of {len(tests)}:\n" + "\n".join(failed))
    print(f"{len(tests)} unit tests pass under their own library")


if __name__ == "__main__":
    main({"selfhost": selfhost})

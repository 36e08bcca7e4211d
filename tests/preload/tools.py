"""Shells and text tools: many short processes, pipes, and single big ones."""

import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import main  # noqa: E402

_SCRIPT = r"""
set -eu
fib() { if [ "$1" -lt 2 ]; then echo "$1"; else echo $(( $(fib $(($1 - 1))) + $(fib $(($1 - 2))) )); fi; }
fib 9
i=0; text=
while [ $i -lt 3000 ]; do text="$text line-$i"; i=$((i + 1)); done
echo "$text" | tr ' ' '\n' | sort -r | head -n 5
printf '%s\n' $text | while read -r word; do case $word in *77*) echo "$word";; esac; done | wc -l
(sleep 0.05; echo from a subshell) & wait $!
trap 'echo trapped' USR1; kill -USR1 $$
cat <<EOF | sed -e 's/a/b/g' | cut -c 1-20
$(seq 1 2000 | paste -sd+ - )
EOF
for f in 1 2 3 4 5; do (exit $f) || echo "status $?"; done
ls / | wc -l > /dev/null; find /usr/share/doc -maxdepth 1 -name 'lib*' | sort | head -n 3
"""

_BASH = r"""
set -eu
declare -A seen
for ((i = 0; i < 30000; i++)); do seen[key$((i * 7919 % 30011))]=value-$i-with-some-length-to-it; done
sum=0
for k in "${!seen[@]}"; do v=${seen[$k]}; sum=$(( (sum + ${#v} * ${#k}) % 1000003 )); done
echo "${#seen[@]} $sum"
list=(); for ((i = 0; i < 20000; i++)); do list+=("item $i"); done
echo "${#list[@]} ${list[777]} ${list[-1]}"
unset 'list[5]'; echo "${list[@]:3:4}"
x=$(for i in {1..3000}; do echo "$i:${seen[key$i]:-none}"; done | cksum); echo "$x"
"""


def _text(megabytes, seed):
    """Words in lines, the same for the same seed."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randint(2, 11))) for _ in range(3000)]
    lines = []
    size = 0
    while size < megabytes * (1 << 20):
        line = f"{rng.randint(0, 10**9)} " + " ".join(rng.choices(words, k=rng.randint(3, 14)))
        size += len(line) + 1
        lines.append(line)
    return ("\n".join(lines) + "\n").encode()


def sh(bench):
    for shell, script in ((bench.program("dash"), _SCRIPT), (bench.program("bash"), _SCRIPT + _BASH)):
        bench.same([shell, "-c", script], limit=60)
    # awk holds a table of everything it saw.
    bench.same([bench.program("awk"), "{ for (i = 2; i <= NF; i++) n[$i \" \" $1 % 997]++ } "
                "END { for (w in n) { t += n[w] * length(w); c++ } print c, t }"], stdin=_text(0.5, 3))


def grep(bench):
    text = bench.scratch / "text"
    text.write_bytes(_text(8, 1))
    # An automaton that does not fit, walked at random: little text is enough.
    patterns = bench.scratch / "patterns"
    patterns.write_bytes(b"\n".join(line.split()[1] + b" " + line.split()[2]
                                    for line in _text(1, 2).splitlines()))
    some_text = bench.scratch / "some_text"
    some_text.write_bytes(_text(0.2, 3))
    tool = bench.program("grep")
    bench.same([tool, "-c", "-F", "-f", patterns, some_text])
    bench.same([tool, "-E", "-c", r"(.)(.)\2\1.*\1\1", text])
    bench.same([tool, "-P", "-o", r"^\d*7(?= [a-f]+)", text])
    bench.same([tool, "-v", "-i", "-n", "[aeiou]b", text])


def sort(bench):
    # Half noise, half alike: the first would not shrink, the second must.
    text = bench.scratch / "text"
    text.write_bytes(b"\n".join(line + b" and what is the same in every line of it, over and over again"
                                for line in _text(8, 4).splitlines()) + b"\n")
    tool = bench.program("sort")
    bench.same([tool, "-S", "100M", "--parallel=2", text])
    bench.same([tool, "-S", "100M", "--parallel=2", "-n", "-r", "-k1,1", text])
    # Not enough buffer: temporary files and merges.
    bench.same([tool, "-S", "1M", "-T", bench.scratch, "-k3,3", "-u", text])


if __name__ == "__main__":
    main({"sh": sh, "grep": grep, "sort": sort})

#!/bin/sh
# The heaptier command as a user meets it: exit codes, exactly one line for each mistake, and nothing else.
#   test_command.sh HEAPTIER PROBE_LIBRARY
# The programs linked in special ways come by environment (cli_static=PATH ...; empty: not to be had here).
# What stands in single quotes here is for the shell that heaptier starts, or is a message's own backquotes.
# shellcheck disable=SC2016
set -eu

heaptier=$1
probe=$2
for name in $(env | sed -n 's/^\(HEAPTIER_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done
unset LD_PRELOAD
export LC_ALL=C
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/bin" "$tree/lib" "$tree/work"
cp "$heaptier" "$tree/bin/heaptier"
cp "$probe" "$tree/lib/libheaptier.so"
heaptier=$tree/bin/heaptier
library=$tree/lib/libheaptier.so
cd "$tree/work"

failures=0
checks=0
fail() {
  failures=$((failures + 1))
  echo "FAILED: $*" >&2
}

# expect CODE STDERR STDOUT command...   exact texts; STDOUT "*": any, but some
expect() {
  want_code=$1 want_err=$2 want_out=$3
  shift 3
  checks=$((checks + 1))
  code=0
  "$@" >"$tree/out" 2>"$tree/err" </dev/null || code=$?
  out=$(cat "$tree/out")
  err=$(cat "$tree/err")
  [ "$code" = "$want_code" ] || fail "$*: exit $code, not $want_code"
  [ "$err" = "$want_err" ] || fail "$*: stderr is <$err>, not <$want_err>"
  if [ "$want_out" = '*' ]; then
    [ -n "$out" ] || fail "$*: no output"
  elif [ "$out" != "$want_out" ]; then
    fail "$*: stdout is <$out>, not <$want_out>"
  fi
}
h() { "$heaptier" "$@"; }

# --- the command itself
expect 2 'heaptier: no command given; `heaptier help` lists them' '' h
expect 2 'heaptier: there is no command rn; there are run, ctl, doctor, help and version' '' h rn
expect 0 '' '*' h help
expect 0 '' '*' h --help
expect 0 '' '*' h -h
expect 0 '' '*' h help run
expect 0 '' '*' h run --help
expect 0 '' '*' h help doctor
expect 0 '' '*' h doctor --help
expect 0 '' '*' h help options
expect 0 '' '*' h help options --markdown
expect 0 '' '*' h help stats
expect 0 '' '*' h help stats --markdown
expect 0 '' '*' h version
expect 0 '' "$(h version)" h --version
expect 0 '' "$(h version)" h -v
expect 0 '' "$(h version)" h -V
expect 2 'heaptier: --fast is an option of run: heaptier run --fast ...' '' h --fast=2G -- true
expect 2 'heaptier: -x is no option; there are --help and --version, and the options of each command' '' h -x
expect 2 'heaptier: help: no page named optins; there are run, doctor, ctl, options and stats' '' h help optins
expect 2 'heaptier: help: --markdown is for `help options` and `help stats`' '' h help --markdown
expect 2 'heaptier: doctor: The following argument was not expected: --jsn' '' h doctor --jsn
if [ -w /dev/full ]; then
  checks=$((checks + 1))
  if h help options >/dev/full; then fail 'a full disk looks like success'; fi
fi

# --- mistakes: one line, exit 2, the program is not started
mistake() { # LINE words of run...
  line=$1
  shift
  expect 2 "heaptier run: $line" '' h run "$@" -- sh -c 'echo started'
}
sizes='a size of at least 1M (512M, 2G, 2GiB), 1% to 100% of the heap, or auto'
expect 2 'heaptier run: no command given; usage: heaptier run [options] -- command [args]' '' h run
expect 2 'heaptier run: no command given; usage: heaptier run [options] -- command [args]' '' h run --fast 2G --
mistake '--fsat is no option; did you mean --fast?' --fsat 2G
mistake '--fsat is no option; did you mean --fast?' --fsat=2G
mistake '--quux-the-foo is no option (`heaptier help options` lists them)' --quux-the-foo
mistake '-x is no option (`heaptier help options` lists them)' -x
mistake "--fast needs a value; accepted: $sizes" --fast
mistake "--fast=2 is not accepted (a size needs a unit); accepted: $sizes" --fast 2
mistake "--fast=2X is not accepted; accepted: $sizes" --fast=2X
mistake "--fast=a?b is not accepted; accepted: $sizes" --fast="$(printf 'a\nb')"
tiers='dram,zpool, with a size as in dram,zpool:4G, or tiers by node, sized or whole, as in dram=node:0-1;cxl=node:2:4G;pmem=node:3;zpool:2G, or auto'
mistake "--tiers=dram,node:1 is not accepted (nodes belong to a tier, as in cxl=node:1); accepted: $tiers" --tiers dram,node:1
mistake "--tiers=dram=node:0;cxl=node:0 is not accepted (a node is named twice); accepted: $tiers" --tiers 'dram=node:0;cxl=node:0'
nodes=$(sed -n 's/^Mems_allowed_list:[[:space:]]*//p' /proc/self/status)
if [ "$(cat /sys/devices/system/node/has_memory 2>/dev/null)" = "$nodes" ] && [ ! -e /sys/devices/system/node/node63 ]; then
  mistake "--tiers=dram=node:$nodes;cxl=node:63 is not accepted (there is no node 63; nodes with memory: $nodes); accepted: $tiers" \
    --tiers "dram=node:$nodes;cxl=node:63"
  expect 0 '' "dram=node:$nodes;zpool:1G" h run --tiers "dram=node:$nodes;zpool:1G" -- sh -c 'echo "$HEAPTIER_TIERS"'
else
  echo 'skipped: nodes of this host held against --tiers'
fi
mistake '--heap=tcmalloc is not accepted; accepted: jemalloc, mimalloc or none' --heap tcmalloc
mistake '--policy=lru is not accepted; accepted: hotset, interleave, interleave:NODE=WEIGHT,... with weights from 1 to 255, or none' --policy lru
mistake '--codec=zstd:20 is not accepted; accepted: lz4, zstd or zstd:LEVEL with LEVEL from 1 to 19' --codec zstd:20
mistake '--huge=yes is not accepted; accepted: auto, always or never' --huge yes
mistake '--fault=signal is not accepted; accepted: handler or inline' --fault signal
mistake '--handlers=3 is not accepted; accepted: auto, 1, 2, 4, 8 or 16' --handlers 3
mistake '--wake=64 is not accepted (a size needs a unit); accepted: a size (64M, 1G) or 0 for at once' --wake 64
mistake '--hint-budget=1 is not accepted; accepted: 0% to 50%, at most two decimals' --hint-budget 1
mistake '--stats=yes is not accepted; accepted: 0, 1 or json:PATH (%p in PATH is the process id)' --stats=yes
mistake '--stats=json:/nowhere/x is not accepted (/nowhere/: No such file or directory); accepted: 0, 1 or json:PATH (%p in PATH is the process id)' --stats=json:/nowhere/x
mistake '--verbose=2 is not accepted; accepted: 0 or 1' --verbose=2

expect 2 'heaptier run: HEAPTIER_POLICY=lru is not accepted; accepted: hotset, interleave, interleave:NODE=WEIGHT,... with weights from 1 to 255, or none' '' \
  env HEAPTIER_POLICY=lru "$heaptier" run -- true
expect 0 '' 'none' env HEAPTIER_POLICY=lru "$heaptier" run --policy none -- sh -c 'echo "$HEAPTIER_POLICY"'

# --- commands that cannot be started
expect 127 'heaptier run: no-such-program: command not found' '' h run -- no-such-program
expect 127 'heaptier run: 1: command not found; did you mean --stats=1?' '' h run --stats 1 -- true
expect 127 'heaptier run: json:x: command not found; did you mean --stats=json:x?' '' h run --stats json:x true
expect 127 'heaptier run: 1: command not found; did you mean --verbose=1?' '' h run --fast 2G --verbose 1 -- true
expect 127 'heaptier run: no-such-program: command not found' '' h run --stats no-such-program
expect 127 'heaptier run: 1: command not found' '' h run --stats -- 1
expect 127 'heaptier run: ./no-such-program: command not found' '' h run -- ./no-such-program
expect 127 'heaptier run: : command not found' '' h run -- ''
expect 126 "heaptier run: $tree: Is a directory" '' h run -- "$tree"
echo text >plain
expect 126 'heaptier run: ./plain: Permission denied' '' h run -- ./plain
printf '#!/no/such/interpreter\n' >orphan
chmod +x orphan
expect 127 'heaptier run: ./orphan: its interpreter was not found' '' h run -- ./orphan
mv "$library" "$library.away"
code=0
h run true >"$tree/out" 2>"$tree/err" || code=$?
[ "$code" = 125 ] || fail "no library: exit $code"
[ "$(wc -l <"$tree/err")" = 1 ] || fail "no library: not one line: $(cat "$tree/err")"
grep -q "^heaptier run: there is no $tree/bin/../lib/libheaptier.so.*; HEAPTIER_LIB can name the library\$" "$tree/err" ||
  fail "no library: $(cat "$tree/err")"
expect 0 '' "$library.away" env HEAPTIER_LIB="$library.away" "$heaptier" run -- sh -c 'echo "$LD_PRELOAD"'
mv "$library.away" "$library"
expect 125 'heaptier run: HEAPTIER_LIB=/no/lib.so: No such file or directory' '' \
  env HEAPTIER_LIB=/no/lib.so "$heaptier" run -- true
mkdir "$tree/a b"
cp "$library" "$tree/a b/lib.so"
expect 125 "heaptier run: $tree/a b/lib.so: LD_PRELOAD cannot hold a path with a space or a colon" '' \
  env HEAPTIER_LIB="$tree/a b/lib.so" "$heaptier" run -- true

# --- what the command gets
expect 0 '' "$library" h run -- sh -c 'echo "$LD_PRELOAD"'
expect 0 'probe loaded' '' env PROBE_SAYS=1 "$heaptier" run --fast 2G true
expect 0 '' "$library:$probe" env LD_PRELOAD="$probe" "$heaptier" run -- sh -c 'echo "$LD_PRELOAD"'
expect 0 '' "$library" env LD_PRELOAD="$library" "$heaptier" run -- sh -c 'echo "$LD_PRELOAD"'
expect 0 '' "$library:$probe" env LD_PRELOAD="$probe" "$heaptier" run -- "$heaptier" run -- sh -c 'echo "$LD_PRELOAD"'
expect 0 '' 'same' h run -- sh -c '[ "$HEAPTIER_STATS_PID" = $$ ] && echo same'
expect 0 '' '50% dram,zpool:4G mimalloc none zstd:3 never inline 4 0 0.5% 1 1 1' \
  h run --fast 50% --tiers=dram,zpool:4G --heap mimalloc --policy none --codec zstd:3 --huge never --fault inline \
  --handlers 4 --wake 0 --hint-budget 0.5% --stats --verbose --disable -- sh -c 'echo "$HEAPTIER_FAST" \
  "$HEAPTIER_TIERS" "$HEAPTIER_HEAP" "$HEAPTIER_POLICY" "$HEAPTIER_CODEC" "$HEAPTIER_HUGE" "$HEAPTIER_FAULT" \
  "$HEAPTIER_HANDLERS" "$HEAPTIER_WAKE" "$HEAPTIER_HINT_BUDGET" "$HEAPTIER_STATS" "$HEAPTIER_VERBOSE" \
  "$HEAPTIER_DISABLE"'
expect 0 '' '2G' h run --fast 1G --fast 2G -- sh -c 'echo "$HEAPTIER_FAST"'
expect 0 '' '2G' env HEAPTIER_FAST=1G "$heaptier" run --fast 2G -- sh -c 'echo "$HEAPTIER_FAST"'
expect 0 '' '1G' env HEAPTIER_FAST=1G "$heaptier" run -- sh -c 'echo "$HEAPTIER_FAST"'
expect 0 '' 'unset' h run -- sh -c 'echo "${HEAPTIER_FAST-unset}"'
expect 0 '' "json:$tree/work/s-%p.json" h run --stats=json:s-%p.json -- sh -c 'echo "$HEAPTIER_STATS"'
mkdir 'a%b'
cd 'a%b'
expect 0 '' "json:$tree/work/a%%b/s" h run --stats=json:s -- sh -c 'echo "$HEAPTIER_STATS"'
cd ..
# The command's own words are its own, with and without "--".
expect 0 '' 'a --fast 9 -- b' h run --fast 1G echo a --fast 9 -- b
expect 0 '' '-- --fast' h run -- echo -- --fast
expect 0 '' '--help' h run -- printf '%s\n' --help
expect 0 '' 'shell' h run -- sh -c 'echo shell'
printf 'echo no interpreter line\n' >bare
chmod +x bare
expect 0 '' 'no interpreter line' h run ./bare
expect 7 '' '' h run -- sh -c 'exit 7'
code=0
h run -- sh -c 'kill -TERM $$' 2>"$tree/err" || code=$?
[ "$code" = 143 ] || fail "a signal is not passed on: $code"

# --- programs that cannot be preloaded: a warning, and they run
warned() { # PROGRAM WARNING
  if [ -z "$1" ]; then
    echo "skipped: no program for: $2"
    return
  fi
  expect 5 "heaptier run: warning: $1 $2" '' h run -- "$1" 5
}
expect 5 '' '' h run -- "${cli_dynamic:?}" 5
warned "${cli_static:-}" 'is statically linked: nothing can be preloaded into it'
warned "${cli_static_pie:-}" 'is statically linked: nothing can be preloaded into it'
warned "${cli_asan:-}" 'is built with AddressSanitizer, which needs its own malloc: it is started without heaptier'
warned "${cli_tsan:-}" 'is built with ThreadSanitizer, which needs its own malloc: it is started without heaptier'
if [ "$(id -u)" = 0 ]; then
  cp "$cli_dynamic" setuid
  chown 65534 setuid
  chmod 4755 setuid
  warned ./setuid 'is setuid, setgid or has file capabilities: the system ignores LD_PRELOAD for it'
else
  echo 'skipped: a setuid program of another user takes root'
fi

# --- doctor: 0 or 1, text and JSON of the same host
code=0
h doctor >"$tree/text" 2>"$tree/err" || code=$?
case $code in
  0) grep -q '^Tiering works on this host\.$' "$tree/text" || fail 'doctor: exit 0 and no verdict' ;;
  1) grep -q '^Tiering does not work on this host: missing ' "$tree/text" || fail 'doctor: exit 1 and no verdict' ;;
  *) fail "doctor: exit $code" ;;
esac
[ ! -s "$tree/err" ] || fail "doctor: $(cat "$tree/err")"
json_code=0
h doctor --json >"$tree/json" || json_code=$?
[ "$json_code" = "$code" ] || fail "doctor --json: exit $json_code, doctor: $code"
[ "$(grep -c '"subject"' "$tree/json")" = "$(grep -cE '^  (ok|limited|missing) ' "$tree/text")" ] ||
  fail 'doctor: text and JSON differ'
# Without its library it is 1, whatever the host.
mv "$library" "$library.away"
code=0
h doctor >"$tree/text" || code=$?
[ "$code" = 1 ] || fail "doctor without library: exit $code"
grep -q '^  missing  library ' "$tree/text" || fail 'doctor: the library is not missed'

echo "$checks checks, $failures failed"
[ "$failures" = 0 ]

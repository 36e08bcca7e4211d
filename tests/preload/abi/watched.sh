#!/bin/sh
# Programs under a sanitizer or valgrind keep their own heap, whose checks still work, with heaptier preloaded.
# watched.sh LIBRARY PLAIN [SANITIZED]...
set -u
library=$1 plain=$2
shift 2
failed=0 ran=0
export ASAN_OPTIONS=verify_asan_link_order=0:exitcode=9 TSAN_OPTIONS=exitcode=9

expect() { # what status output
  if [ "$1" -ne "$2" ]; then
    echo "$3: status $1 instead of $2" >&2
    failed=1
  fi
  ran=$((ran + 1))
}

for program in "$@"; do
  out=$(LD_PRELOAD=$library "$program" 2>&1)
  expect $? 0 "$program: $out"
  case $program in
    *address*)
      LD_PRELOAD=$library "$program" too-far >/dev/null 2>&1
      expect $? 9 "$program too-far"
      ;;
  esac
done
if command -v valgrind >/dev/null; then
  out=$(LD_PRELOAD=$library valgrind -q --error-exitcode=9 "$plain" 2>&1)
  expect $? 0 "valgrind: $out"
  LD_PRELOAD=$library valgrind -q --error-exitcode=9 "$plain" too-far >/dev/null 2>&1
  expect $? 9 "valgrind too-far"
fi
if [ $ran -eq 0 ]; then
  echo "neither sanitizers nor valgrind here" >&2
  exit 77
fi
exit $failed

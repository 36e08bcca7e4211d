#!/bin/sh
# Time of /bin/true with heaptier and with Debian's jemalloc preloaded: start_up.sh LIBRARY
# Asserts that every start succeeds; prints the rest.
set -eu
library=$1
rounds=200
jemalloc=$(ldconfig -p 2>/dev/null | awk '$1 == "libjemalloc.so.2" { print $NF; exit }')

measure() { # name preload
  start=$(date +%s%N)
  i=0
  while [ $i -lt $rounds ]; do
    LD_PRELOAD=$2 /bin/true
    i=$((i + 1))
  done
  end=$(date +%s%N)
  echo "$1: $(((end - start) / rounds / 1000)) us a start"
}

measure plain ""
measure heaptier "$library"
if [ -n "$jemalloc" ]; then measure libjemalloc.so.2 "$jemalloc"; fi

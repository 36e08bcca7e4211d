// The C interface as a guest: null unless libheaptier happens to be preloaded, so that one binary
// serves both sides of a comparison.
#ifndef HEAPTIER_BENCH_HARNESS_OPTIONAL_HEAPTIER_H_
#define HEAPTIER_BENCH_HARNESS_OPTIONAL_HEAPTIER_H_

#include <algorithm>
#include <string>

#include "runtime/include/heaptier/heaptier.h"

#pragma weak heaptier_state
#pragma weak heaptier_wake
#pragma weak heaptier_where
#pragma weak heaptier_demote
#pragma weak heaptier_fetch
#pragma weak heaptier_stats_json

namespace heaptier::bench {

inline bool under_heaptier() {
  return heaptier_state != nullptr;
}

// The statistics on one line; "{}" without heaptier.
inline std::string stats_line() {
  if (heaptier_stats_json == nullptr) return "{}";
  std::string text(heaptier_stats_json(nullptr, 0) + 4096, '\0');
  text.resize(std::min(heaptier_stats_json(text.data(), text.size()), text.size() - 1));
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_OPTIONAL_HEAPTIER_H_

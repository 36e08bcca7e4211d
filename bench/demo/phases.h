// The parts of the demo's load, in their order: fill, digest, traffic with a BGSAVE in the middle,
// digest again.
#pragma once

#include <cstdint>
#include <string>

#include "bench/demo/histogram.h"
#include "bench/demo/model.h"

namespace heaptier::demo {

struct FillResult {
  std::uint64_t payload_bytes = 0;
  double seconds = 0;
};
// Loads keys until their values have `bytes` bytes together.
FillResult fill(const std::string& socket_path, std::uint64_t bytes, Model* model);

struct DigestResult {
  Digest digest;
  std::uint64_t keys = 0;
  double seconds = 0;
};
// Reads every key of the server. `title` is shown with the progress.
DigestResult read_digest(const std::string& socket_path, const std::string& title);

struct TrafficOptions {
  int connections = 16;
  double write_share = 0.05;
  double zipf_theta = 0.99;
  double warm_seconds = 4;
  double steady_seconds = 16;  // half of it before the BGSAVE, half after
  int server_pid = 0;          // whose resident memory is watched; 0: nobody's
};

struct Part {
  Histogram latency;
  double seconds = 0;
  double throughput() const {
    return seconds > 0 ? static_cast<double>(latency.count()) / seconds : 0;
  }
};

struct TrafficResult {
  Part steady;  // without a save
  Part saving;  // while the BGSAVE ran
  std::uint64_t reads_verified = 0;
  std::uint64_t writes = 0;
  Digest at_save;  // of the data at the moment of the fork, as the model knows it
  double save_seconds = 0;
  double fork_seconds = 0;
  std::uint64_t resident_bytes = 0;  // median of the server's while steady
};
// Closed-loop requests on every connection. Every answer is compared with the model; a wrong one
// ends the program.
TrafficResult run_traffic(const std::string& socket_path, const TrafficOptions& options,
                          Model* model);

}  // namespace heaptier::demo

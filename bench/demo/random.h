// Random numbers for the demo: splitmix64, seeded by two numbers, the same on every machine; and
// the zipfian choice of keys.
#pragma once

#include <cmath>
#include <cstdint>

namespace heaptier::demo {

class Random {
 public:
  Random(std::uint64_t a, std::uint64_t b) : state_(mix(a * 0x9E3779B97F4A7C15u + b)) {}
  std::uint64_t next() { return mix(state_ += 0x9E3779B97F4A7C15u); }
  // Below n, which is at most 2^32.
  std::uint64_t below(std::uint64_t n) { return ((next() >> 32) * n) >> 32; }
  // In [0, 1).
  double fraction() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

// Zipfian ranks 0..n-1 (Gray et al., "Quickly generating billion-record synthetic databases", as in
// YCSB), spread over the key space, so that hot keys are not neighbours in memory.
class Zipf {
 public:
  Zipf(std::uint32_t n, double theta) : n_(n), theta_(theta) {
    double zeta2 = 0;
    for (std::uint32_t i = 1; i <= n; ++i) {
      zeta_ += std::pow(1.0 / i, theta);
      if (i == 2) zeta2 = zeta_;
    }
    alpha_ = 1.0 / (1.0 - theta);
    eta_ = (1.0 - std::pow(2.0 / n, 1.0 - theta)) / (1.0 - zeta2 / zeta_);
  }

  std::uint32_t next(Random& r) const {
    const double u = r.fraction();
    const double uz = u * zeta_;
    std::uint64_t rank = 0;
    if (uz >= 1.0) {
      rank = uz < 1.0 + std::pow(0.5, theta_)
                 ? 1
                 : static_cast<std::uint64_t>(n_ * std::pow(eta_ * u - eta_ + 1.0, alpha_));
    }
    if (rank >= n_) rank = n_ - 1;
    // 2654435761 is prime and larger than any n used here: a permutation of the keys.
    return static_cast<std::uint32_t>(rank * 2654435761u % n_);
  }

 private:
  std::uint32_t n_;
  double theta_;
  double zeta_ = 0;
  double alpha_ = 0;
  double eta_ = 0;
};

}  // namespace heaptier::demo

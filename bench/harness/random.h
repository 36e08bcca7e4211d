// Random numbers for workloads: fast, seeded, the same in every variant of a comparison.
#ifndef HEAPTIER_BENCH_HARNESS_RANDOM_H_
#define HEAPTIER_BENCH_HARNESS_RANDOM_H_

#include <cmath>
#include <cstdint>

namespace heaptier::bench {

// One step of splitmix64: a good hash of x.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed) | 1) {}

  // xorshift64*: one multiplication a number, never 0.
  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  // Uniform in [0, n) for n below 2^32.
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(((next() >> 32) * n) >> 32);
  }
  // Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t state_;
};

// Ranks 0 .. n-1 where rank r comes with a probability proportional to 1/(r+1)^theta, by the
// approximation of Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD
// 1994), which YCSB uses too. theta in (0, 1).
class Zipf {
 public:
  Zipf(std::uint64_t n, double theta) : n_(n), theta_(theta) {
    const double zeta2 = 1 + std::pow(0.5, theta);
    for (std::uint64_t i = 1; i <= n; ++i) zetan_ += 1 / std::pow(static_cast<double>(i), theta);
    alpha_ = 1 / (1 - theta);
    eta_ = (1 - std::pow(2.0 / static_cast<double>(n), 1 - theta)) / (1 - zeta2 / zetan_);
  }

  std::uint64_t next(Random& random) const {
    const double u = random.unit();
    const double uz = u * zetan_;
    if (uz < 1) return 0;
    if (uz < 1 + std::pow(0.5, theta_)) return 1;
    const auto rank =
        static_cast<std::uint64_t>(static_cast<double>(n_) * std::pow(eta_ * u - eta_ + 1, alpha_));
    return rank < n_ ? rank : n_ - 1;
  }

 private:
  std::uint64_t n_;
  double theta_;
  double zetan_ = 0;
  double alpha_;
  double eta_;
};

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_RANDOM_H_

// The demo's loader: fills a redis server, reads and writes it, and proves that every byte is what
// was written.
//   demo_load load --socket PATH --result FILE [--bytes N] [--warm S] [--seconds S] [--connections
//   N] [--pid PID] demo_load digest --socket PATH --result FILE [--title TEXT]
// The result is one JSON object. Exit status 1 and one line on standard error: the server went away
// or gave a wrong answer.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "bench/demo/connection.h"
#include "bench/demo/phases.h"

namespace heaptier::demo {
namespace {

struct Arguments {
  std::string mode;
  std::string socket;
  std::string result;
  std::string title = "reading everything";
  std::uint64_t bytes = 512u << 20;
  TrafficOptions traffic;
};

[[noreturn]] void usage(const std::string& message) {
  std::fprintf(stderr, "demo_load: %s\n", message.c_str());
  std::exit(2);
}

double number(std::string_view name, const char* text) {
  char* end = nullptr;
  const double n = std::strtod(text, &end);
  if (end == text || *end != '\0' || n < 0) {
    usage(std::string(name) + " wants a number, not \"" + text + "\"");
  }
  return n;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  if (argc < 2) usage("load or digest?");
  a.mode = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) usage(std::string(name) + " wants a value");
    const char* value = argv[i + 1];
    if (name == "--socket") {
      a.socket = value;
    } else if (name == "--result") {
      a.result = value;
    } else if (name == "--title") {
      a.title = value;
    } else if (name == "--bytes") {
      a.bytes = static_cast<std::uint64_t>(number(name, value));
    } else if (name == "--warm") {
      a.traffic.warm_seconds = number(name, value);
    } else if (name == "--seconds") {
      a.traffic.steady_seconds = number(name, value);
    } else if (name == "--connections") {
      a.traffic.connections = static_cast<int>(number(name, value));
    } else if (name == "--pid") {
      a.traffic.server_pid = static_cast<int>(number(name, value));
    } else {
      usage("unknown option " + std::string(name));
    }
  }
  if (a.socket.empty() || a.result.empty()) usage("--socket and --result are needed");
  if (a.traffic.connections < 1) usage("--connections wants at least 1");
  return a;
}

void print_part(std::FILE* out, const char* name, const Part& part) {
  std::fprintf(
      out,
      "  \"%s\": {\"requests\": %llu, \"seconds\": %.3f, \"throughput\": %.1f, \"p50_us\": %.1f, "
      "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f},\n",
      name, static_cast<unsigned long long>(part.latency.count()), part.seconds, part.throughput(),
      double(part.latency.percentile(0.5)) / 1e3, double(part.latency.percentile(0.99)) / 1e3,
      double(part.latency.percentile(0.999)) / 1e3, double(part.latency.max()) / 1e3);
}

void close_result(std::FILE* out, const std::string& path) {
  if (std::ferror(out) != 0 || std::fclose(out) != 0) die("cannot write " + path);
}

int load(const Arguments& a, std::FILE* out) {
  Model model;
  const FillResult filled = fill(a.socket, a.bytes, &model);
  const Digest expected_loaded = model.total();
  const DigestResult loaded = read_digest(a.socket, "digest of what was loaded");
  const TrafficResult traffic = run_traffic(a.socket, a.traffic, &model);
  const DigestResult end = read_digest(a.socket, "digest at the end");

  std::fprintf(out, "{\n  \"keys\": %u,\n  \"payload_bytes\": %llu,\n  \"fill_seconds\": %.3f,\n",
               model.keys(), static_cast<unsigned long long>(filled.payload_bytes), filled.seconds);
  std::fprintf(out, "  \"digest_seconds\": %.3f,\n", end.seconds);
  print_part(out, "steady", traffic.steady);
  print_part(out, "saving", traffic.saving);
  std::fprintf(out,
               "  \"reads_verified\": %llu,\n  \"writes\": %llu,\n  \"save_seconds\": %.3f,\n"
               "  \"fork_seconds\": %.6f,\n  \"resident_bytes\": %llu,\n",
               static_cast<unsigned long long>(traffic.reads_verified),
               static_cast<unsigned long long>(traffic.writes), traffic.save_seconds,
               traffic.fork_seconds, static_cast<unsigned long long>(traffic.resident_bytes));
  std::fprintf(
      out,
      "  \"digests\": {\n    \"loaded\": \"%s\", \"loaded_expected\": \"%s\",\n"
      "    \"at_save_expected\": \"%s\",\n    \"end\": \"%s\", \"end_expected\": \"%s\"\n  }\n}\n",
      loaded.digest.hex().c_str(), expected_loaded.hex().c_str(), traffic.at_save.hex().c_str(),
      end.digest.hex().c_str(), model.total().hex().c_str());
  return loaded.digest == expected_loaded && end.digest == model.total() ? 0 : 1;
}

int digest(const Arguments& a, std::FILE* out) {
  const DigestResult d = read_digest(a.socket, a.title);
  std::fprintf(out, "{\"digest\": \"%s\", \"keys\": %llu}\n", d.digest.hex().c_str(),
               static_cast<unsigned long long>(d.keys));
  return 0;
}

int run(int argc, char** argv) {
  const Arguments a = parse(argc, argv);
  std::FILE* out = std::fopen(a.result.c_str(), "we");
  if (out == nullptr) die("cannot write " + a.result);
  int status = 0;
  if (a.mode == "load") {
    status = load(a, out);
  } else if (a.mode == "digest") {
    status = digest(a, out);
  } else {
    usage("load or digest, not " + a.mode);
  }
  close_result(out, a.result);
  if (status != 0) {
    std::fprintf(stderr, "demo_load: a digest differs from what was written; see %s\n",
                 a.result.c_str());
  }
  return status;
}

}  // namespace
}  // namespace heaptier::demo

int main(int argc, char** argv) {
  return heaptier::demo::run(argc, argv);
}

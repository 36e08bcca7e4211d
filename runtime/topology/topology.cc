#include "runtime/topology/topology.h"

#include <cstring>
#include <new>
#include <string_view>
#include <type_traits>

#include "runtime/base/lines.h"
#include "runtime/base/units.h"
#include "runtime/base/words.h"
#include "runtime/base/zone_info.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"

namespace heaptier {
namespace {

// A small file as a whole. What does not fit is cut off at the end of a word, so that half a number
// is not taken for one.
class Text final : public TextSink {
 public:
  bool take(std::string_view piece) override {
    const std::size_t room = sizeof text_ - length_;
    const bool fits = piece.size() <= room;
    const std::size_t taken = fits ? piece.size() : room;
    std::memcpy(text_ + length_, piece.data(), taken);
    length_ += taken;
    if (fits) return true;
    while (length_ > 0 && text_[length_ - 1] != ' ' && text_[length_ - 1] != '\n') --length_;
    return false;
  }
  std::string_view view() const { return {text_, length_}; }

 private:
  char text_[4096];
  std::size_t length_ = 0;
};

// "node12" and prefix "node": 12.
bool numbered(std::string_view name, std::string_view prefix, std::uint64_t* out) {
  return name.starts_with(prefix) && parse_decimal(config::tail(name, prefix.size()), out);
}

class Reader {
 public:
  Reader(FileTree& files, Topology& out) : files_(files), out_(out) {}

  void all() {
    std::memset(out_.node_of_cpu, kNoNode, sizeof out_.node_of_cpu);
    node_sets();
    for (const unsigned node : out_.online) {
      cpus_of(node);
      capacity_of(node);
      distances_of(node);
      figures_of(node);
    }
    settle_sets();
    kernel_tiers();
    nvdimms();
    limits();
    free_memory();
  }

 private:
  using Path = char[160];

  // "NODES/node3/distance": `parts` one after the other, numbers for those that are none.
  template <class... P>
  static const char* join(Path& path, P... parts) {
    TextWriter writer(path, sizeof path);
    const auto put = [&](auto part) {
      if constexpr (std::is_integral_v<decltype(part)>) {
        writer.put_number(part);
      } else {
        writer.put(std::string_view(part));
      }
    };
    (put(parts), ...);
    return writer.finish() < sizeof path ? path : "";
  }
  template <class... P>
  bool read(Text* text, P... parts) {
    Path path;
    return files_.read(join(path, parts...), *text).ok();
  }

  bool node_list(const char* name, NodeSet* out, std::uint32_t* beyond) {
    Text text;
    return read(&text, kNodes, name) && parse_nodes(text.view(), out, beyond);
  }

  void node_sets() {
    unsigned beyond = 0;
    out_.numa = node_list("online", &out_.online, &out_.nodes_beyond) && !out_.online.empty();
    if (!out_.numa) {
      out_.online = NodeSet::of(0);
      out_.nodes_beyond = 0;
    }
    if (!node_list("possible", &out_.possible, &beyond)) out_.possible = out_.online;
    out_.possible = out_.possible | out_.online;
  }

  // After the nodes have been looked at: where the kernel has no list, by what they have.
  void settle_sets() {
    unsigned beyond = 0;
    if (!node_list("has_memory", &out_.memory, &beyond)) {
      for (const unsigned node : out_.online) {
        if (out_.nodes[node].capacity_bytes != 0) out_.memory.add(node);
      }
    }
    if (!node_list("has_cpu", &out_.cpus, &beyond)) {
      for (const unsigned node : out_.online) {
        if (out_.nodes[node].cpus != 0) out_.cpus.add(node);
      }
    }
    out_.memory = out_.memory & out_.online;
    out_.cpus = out_.cpus & out_.online;
    if (out_.numa && !out_.memory.empty()) return;
    out_.memory.add(*out_.online.begin());
    if (out_.cpus.empty()) out_.cpus = out_.memory;
  }

  void cpus_of(unsigned node) {
    Text text;
    if (!read(&text, kNodes, "node", node, "/cpulist")) return;
    MemoryNode& about = out_.nodes[node];
    std::uint32_t cpus = 0;
    const auto count = [&](unsigned first, unsigned last) { cpus += last - first + 1; };
    if (!each_range(text.view(), count)) return;
    about.cpus = cpus;
    (void)each_range(text.view(), [&](unsigned first, unsigned last) {
      for (unsigned cpu = first; cpu <= last && cpu < kMaxCpus; ++cpu) {
        out_.node_of_cpu[cpu] = static_cast<std::uint8_t>(node);
      }
    });
  }

  // "Node 0 MemTotal: 6252748 kB"; without node files, "MemTotal: 6252748 kB".
  void capacity_of(unsigned node) {
    Path path;
    join(path, kNodes, "node", node, "/meminfo");
    (void)each_line(files_, out_.numa ? path : "/proc/meminfo", [&](std::string_view line) {
      for (std::string_view word = next_word(&line); !word.empty(); word = next_word(&line)) {
        std::uint64_t kib = 0;
        if (word != "MemTotal:" || !next_number(&line, &kib) || kib >= kMostBytes >> 10) continue;
        out_.nodes[node].capacity_bytes = kib << 10;
      }
    });
  }

  // One number for each *online* node, in ascending order.
  void distances_of(unsigned node) {
    Text text;
    if (!read(&text, kNodes, "node", node, "/distance")) return;
    std::string_view rest = text.view();
    std::uint8_t row[kMaxNodes] = {};
    for (const unsigned other : out_.online) {
      std::uint64_t distance = 0;
      if (!next_number(&rest, &distance) || distance > UINT8_MAX) return;
      row[other] = static_cast<std::uint8_t>(distance);
    }
    std::memcpy(out_.distance[node], row, sizeof row);
  }

  // access1 is by the nearest CPUs; access0, which older kernels have alone, by the nearest
  // initiators of any kind.
  void figures_of(unsigned node) {
    for (const char* access : {"/access1/initiators/", "/access0/initiators/"}) {
      AccessFigures figures;
      figure(&figures.read_latency_ns, node, access, "read_latency");
      figure(&figures.write_latency_ns, node, access, "write_latency");
      figure(&figures.read_bandwidth_mbs, node, access, "read_bandwidth");
      figure(&figures.write_bandwidth_mbs, node, access, "write_bandwidth");
      if (!figures.has_latency()) continue;
      Path path;
      (void)each_name(files_, join(path, kNodes, "node", node, access), [&](std::string_view name) {
        std::uint64_t initiator = 0;
        if (numbered(name, "node", &initiator) && initiator < kMaxNodes) {
          figures.initiators.add(static_cast<unsigned>(initiator));
        }
      });
      out_.nodes[node].access = figures;
      return;
    }
  }
  void figure(std::uint32_t* out, unsigned node, const char* access, const char* name) {
    Text text;
    std::uint64_t number = 0;
    if (!read(&text, kNodes, "node", node, access, name)) return;
    std::string_view rest = text.view();
    if (!next_number(&rest, &number) || number > UINT32_MAX) return;
    *out = static_cast<std::uint32_t>(number);
  }

  void kernel_tiers() {
    (void)each_name(files_, kTiers, [&](std::string_view name) {
      std::uint64_t tier = 0;
      Text text;
      NodeSet nodes;
      unsigned beyond = 0;
      if (!numbered(name, "memory_tier", &tier) || tier >= kNoKernelTier) return;
      if (!read(&text, kTiers, "/memory_tier", tier, "/nodelist")) return;
      if (!parse_nodes(text.view(), &nodes, &beyond)) return;
      for (const unsigned node : nodes& out_.online) {
        out_.nodes[node].kernel_tier = static_cast<std::uint32_t>(tier);
      }
    });
  }

  // A dax device that the kmem driver has is memory of its target node; below an NVDIMM bus it is
  // persistent memory, anywhere else (hmem, cxl) it is not.
  void nvdimms() {
    (void)each_name(files_, kDax, [&](std::string_view name) {
      Path path;
      Text text;
      char link[256];
      if (!name.starts_with("dax") || name.size() > 32) return;
      if (!read(&text, kDax, name, "/target_node")) return;
      std::string_view rest = text.view();
      std::uint64_t node = 0;
      if (!next_number(&rest, &node) || node >= kMaxNodes) return;
      if (files_.link(join(path, kDax, name, "/driver"), link, sizeof link).failed()) return;
      if (!std::string_view(link).ends_with("/kmem")) return;
      if (files_.link(join(path, kDax, name), link, sizeof link).failed()) return;
      if (std::strstr(link, "/ndbus") != nullptr) out_.nodes[node].nvdimm = true;
    });
  }

  void limits() {
    out_.allowed = NodeSet::all();
    bool cpus_known = false;
    (void)each_line(files_, "/proc/self/status", [&](std::string_view line) {
      const std::string_view key = next_word(&line);
      if (!line.empty()) line.remove_prefix(1);
      unsigned beyond = 0;
      if (key == "Mems_allowed_list:") (void)parse_nodes(line, &out_.allowed, &beyond);
      if (key != "Cpus_allowed_list:") return;
      cpus_known = each_range(line, [&](unsigned first, unsigned last) {
        for (unsigned cpu = first; cpu <= last && cpu < kMaxCpus; ++cpu) {
          out_.allowed_cpus[cpu / 64] |= std::uint64_t{1} << (cpu % 64);
        }
      });
    });
    if (!cpus_known) std::memset(out_.allowed_cpus, 0xff, sizeof out_.allowed_cpus);
    // Nothing allowed that exists is no cpuset but a misreading: a process has memory somewhere.
    if ((out_.allowed & out_.memory).empty()) out_.allowed = NodeSet::all();
  }

  void free_memory() {
    std::uint64_t pages[kMaxNodes] = {};
    const Errno read = each_zone(files_, [&](const NodeZone& zone) {
      if (zone.node < kMaxNodes) pages[zone.node] += zone.usable_pages();
    });
    if (read.failed()) return;  // half of a node's zones would be a wrong figure
    for (unsigned node = 0; node < kMaxNodes; ++node) {
      out_.nodes[node].free_bytes = pages[node] * kPageSize;
    }
  }

  static constexpr const char* kNodes = "/sys/devices/system/node/";
  static constexpr const char* kTiers = "/sys/devices/virtual/memory_tiering";
  static constexpr const char* kDax = "/sys/bus/dax/devices/";
  static constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 56;

  FileTree& files_;
  Topology& out_;
};

}  // namespace

void read_topology(FileTree& files, Topology* out) {
  new (out) Topology{};  // in place: an assignment would need as much stack
  Reader(files, *out).all();
}

TopologyNow::TopologyNow(FileTree& files) : topology_(nullptr) {
  void* const room = bootstrap::allocate(sizeof(Topology), alignof(Topology));
  if (room == nullptr) return;
  topology_ = new (room) Topology;
  read_topology(files, topology_);
}

TopologyNow::~TopologyNow() {
  bootstrap::release(topology_, sizeof(Topology), alignof(Topology));
}

}  // namespace heaptier

#include "runtime/control_answers.h"

#include "runtime/background.h"
#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"
#include "runtime/engine.h"

namespace heaptier {
namespace {

// A JSON object's members, one after the other.
class Members {
 public:
  explicit Members(TextWriter& out) : out_(out) { out_.put('{'); }
  void name(std::string_view text) {
    if (!first_) out_.put(", ");
    first_ = false;
    out_.put('"');
    out_.put(text);
    out_.put("\": ");
  }
  void number(std::string_view text, std::uint64_t value) {
    name(text);
    out_.put_number(value);
  }
  void truth(std::string_view text, bool value) {
    name(text);
    out_.put(value ? "true" : "false");
  }
  void words(std::string_view text, std::string_view value) {
    name(text);
    out_.put('"');
    out_.put(value);
    out_.put('"');
  }
  void nodes(std::string_view text, NodeSet value) {
    name(text);
    out_.put('"');
    config::write_nodes(value, out_);
    out_.put('"');
  }
  void close() { out_.put('}'); }

 private:
  TextWriter& out_;
  bool first_ = true;
};

void put_node_tier(TextWriter& out, const NodeTiers& all, unsigned t, std::uint64_t pages,
                   NodeSet closed) {
  const RankedTier& tier = all.tier(t);
  Members m(out);
  m.words("tier", to_string(tier.kind));
  m.nodes("nodes", tier.nodes);
  m.number("heap_bytes", pages * kPageSize);
  m.number("room_bytes", all.room_pages(t) * kPageSize);
  m.number("capacity_bytes", all.capacity_pages(t) * kPageSize);
  m.nodes("vacated", tier.nodes & closed);
  m.nodes("forbidden", tier.nodes & all.forbidden());
  m.nodes("offline", tier.nodes & all.offline());
  m.close();
}

void put_left(Members& m, TextWriter& out, const LeftPages& pages) {
  m.number("left_pages", pages.all());
  m.name("left");
  constexpr std::string_view kReasons[kStayReasons] = {"pinned", "shared", "no_room", "bound",
                                                       "other"};
  Members left(out);
  for (std::size_t i = 0; i < kStayReasons; ++i) left.number(kReasons[i], pages[i]);
  left.close();
}

void put_interleaving(TextWriter& out, const InterleaveReport& report, bool whole) {
  Members m(out);
  m.words("of", whole ? "heap" : "ranges");
  m.name("weights");
  out.put('"');
  config::write_weights(report.weights, out);
  out.put('"');
  m.words("reason", to_string(report.reason));
  m.truth("settled", report.settled);
  m.number("in_place_pages", report.in_place);
  m.number("moved_pages", report.moved);
  put_left(m, out, report.left);
  m.close();
}

void put_tiers(TextWriter& out, Background& bg) {
  Core& core = bg.core();
  const NodeSet closed = bg.drain().closed();
  out.put("{\"tiers\": [");
  if (core.nodes != nullptr) {
    for (unsigned t = 0; t < core.nodes->count(); ++t) {
      if (t != 0) out.put(", ");
      put_node_tier(out, *core.nodes, t, bg.node_loop().pages_on(t), closed);
    }
  } else {
    Members m(out);
    m.words("tier", "dram");
    m.number("heap_bytes", core.present_pages() * kPageSize);
    m.number("capacity_bytes", bg.loop().watermarks().fast_bytes);
    m.nodes("vacated", closed);
    m.close();
  }
  if (core.store != nullptr) {
    const StoreUsage pool = core.store->usage();
    out.put(", ");
    Members m(out);
    m.words("tier", "zpool");
    m.number(
        "heap_bytes",
        (core.table.total(PageState::kStored) + core.table.total(PageState::kFilled)) * kPageSize);
    m.number("held_bytes", pool.resident_bytes);
    m.number("capacity_bytes", pool.capacity_bytes);
    m.close();
  }
  out.put(']');
  if (const InterleaveReport report = bg.interleave().report(); report.on) {
    out.put(", \"interleave\": ");
    put_interleaving(out, report, bg.interleave().whole());
  }
  out.put('}');
}

void put_drain(TextWriter& out, unsigned node, const DrainReport& report) {
  Members m(out);
  m.number("node", node);
  m.truth("draining", report.draining);
  m.truth("settled", report.settled);
  m.number("moved_pages", report.moved);
  put_left(m, out, report.left);
  m.close();
}

void put_refusal(TextWriter& out, unsigned node, Errno error, const Drain& drain) {
  out.put("{\"error\": \"node ");
  out.put_number(node);
  switch (error.code) {
    case ENODEV:
      out.put(" is of no tier; the chain has nodes ");
      config::write_nodes(drain.chain_nodes(), out);
      break;
    case EBUSY:
      out.put(" is the last one of the chain that is left to go to");
      break;
    case ENOTSUP:
      out.put(" cannot be vacated: this host does not say where pages are (move_pages, /proc)");
      break;
    default:
      out.put(" cannot be vacated: no memory to begin with");
  }
  out.put("\"}");
}

}  // namespace

std::size_t ControlAnswersOf::answer(const ControlRequest& request, char* out, std::size_t room) {
  Drain& drain = background_.drain();
  const unsigned node = request.node;
  TextWriter text(out, room);
  switch (request.verb) {
    case ControlVerb::kStats: {
      StatsSnapshot now;
      engine().snapshot(&now);
      return write_json(out, room, now);
    }
    case ControlVerb::kTiers:
      put_tiers(text, background_);
      break;
    case ControlVerb::kDrain:
      if (const Errno e = drain.begin(node); e.failed()) {
        put_refusal(text, node, e, drain);
      } else {
        put_drain(text, node, drain.report(node));
      }
      break;
    case ControlVerb::kDrained:
      put_drain(text, node, drain.report(node));
      break;
    case ControlVerb::kUndrain:
      if (!drain.closed().contains(node)) {
        text.put("{\"error\": \"node ");
        text.put_number(node);
        text.put(" is not being vacated\"}");
      } else {
        (void)drain.end(node);
        put_drain(text, node, drain.report(node));
      }
      break;
    case ControlVerb::kNonsense:
      text.put("{\"error\": \"no such request\"}");
      break;
  }
  return text.finish();
}

}  // namespace heaptier

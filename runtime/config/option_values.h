// The value grammars behind options.def, one overload a field type. On refusal *out is unchanged.
#pragma once

#include <string_view>

#include "runtime/config/options.h"
#include "runtime/config/text_writer.h"

namespace heaptier::config {

ParseResult parse_value(OptionId id, std::string_view text, FastBudget* out);
ParseResult parse_value(OptionId id, std::string_view text, TierChain* out);
ParseResult parse_value(OptionId id, std::string_view text, HeapKind* out);
ParseResult parse_value(OptionId id, std::string_view text, PolicySpec* out);
ParseResult parse_value(OptionId id, std::string_view text, CodecSpec* out);
ParseResult parse_value(OptionId id, std::string_view text, HugeMode* out);
ParseResult parse_value(OptionId id, std::string_view text, FaultMode* out);
ParseResult parse_value(OptionId id, std::string_view text, SamplerKind* out);
ParseResult parse_value(OptionId id, std::string_view text, StatsOutput* out);
ParseResult parse_value(OptionId id, std::string_view text, ControlMode* out);
ParseResult parse_value(OptionId id, std::string_view text, bool* out);
ParseResult parse_value(OptionId id, std::string_view text,
                        std::uint32_t* out);  // HANDLERS, HINT_BUDGET
ParseResult parse_value(OptionId id, std::string_view text, std::uint64_t* out);  // WAKE

// The same the other way round: what is written parses to an equal value.
void write_value(OptionId id, const FastBudget& value, TextWriter& out);
void write_value(OptionId id, const TierChain& value, TextWriter& out);
void write_value(OptionId id, HeapKind value, TextWriter& out);
void write_value(OptionId id, const PolicySpec& value, TextWriter& out);
void write_value(OptionId id, const CodecSpec& value, TextWriter& out);
void write_value(OptionId id, HugeMode value, TextWriter& out);
void write_value(OptionId id, FaultMode value, TextWriter& out);
void write_value(OptionId id, SamplerKind value, TextWriter& out);
void write_value(OptionId id, const StatsOutput& value, TextWriter& out);
void write_value(OptionId id, ControlMode value, TextWriter& out);
void write_value(OptionId id, bool value, TextWriter& out);
void write_value(OptionId id, std::uint32_t value, TextWriter& out);
void write_value(OptionId id, std::uint64_t value, TextWriter& out);

// "0-3,8"; nothing for the empty set.
void write_nodes(NodeSet nodes, TextWriter& out);
// "0=3,2=1".
void write_weights(const NodeWeights& weights, TextWriter& out);

// substr(from) without its check, which would need the C++ library's exceptions. Requires: from <=
// text.size().
constexpr std::string_view tail(std::string_view text, std::size_t from) {
  text.remove_prefix(from);
  return text;
}

}  // namespace heaptier::config

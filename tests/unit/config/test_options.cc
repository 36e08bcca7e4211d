// The option table, its value grammars, and what is said about bad ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <random>
#include <string>
#include <vector>

#include "runtime/config/options.h"
#include "runtime/config/text_writer.h"

namespace heaptier {
namespace {

std::string shown(OptionId id, const Options& options) {
  char text[kMaxStatsPath + 16];
  EXPECT_LT(format_option(id, options, text, sizeof text), sizeof text);
  return text;
}

// What the option's value becomes, as text; "refused" or "refused: reason".
std::string parsed(OptionId id, std::string_view value) {
  Options options;
  const ParseResult result = parse_option(id, value, &options);
  if (!result.ok) return result.reason ? std::string("refused: ") + result.reason : "refused";
  return shown(id, options);
}

struct Environment {
  Options options;
  Diagnostics diagnostics;
  explicit Environment(std::vector<const char*> variables) {
    variables.push_back(nullptr);
    parse_environment(variables.data(), &options, &diagnostics);
  }
  std::string said() const { return std::string(diagnostics.text()); }
};

TEST(OptionTable, EveryDefaultIsWhatTheStructHolds) {
  for (const OptionInfo& option : option_table()) {
    SCOPED_TRACE(option.env);
    Options options;
    const std::string initial = shown(option.id, options);
    ASSERT_TRUE(parse_option(option.id, option.fallback, &options).ok);
    EXPECT_EQ(shown(option.id, options), initial);
    EXPECT_EQ(option.id, find_flag(option.flag));
    EXPECT_EQ(option.id, find_variable(option.env));
    EXPECT_FALSE(std::string(option.help).empty());
    if (option.bare != nullptr) {
      EXPECT_TRUE(parse_option(option.id, option.bare, &options).ok);
    }
  }
}

TEST(OptionTable, FlagIsTheNameInLowerCase) {
  for (const OptionInfo& option : option_table()) {
    std::string flag = option.name;
    for (char& c : flag) c = c == '_' ? '-' : static_cast<char>(std::tolower(c));
    EXPECT_EQ(flag, option.flag);
    EXPECT_EQ(std::string("HEAPTIER_") + option.name, option.env);
  }
}

TEST(ParseSize, NeedsAUnit) {
  const struct {
    const char* text;
    std::uint64_t bytes;
  } kGood[] = {{"0", 0},
               {"1K", 1024},
               {"64M", 64u << 20},
               {"64m", 64u << 20},
               {"2G", 2ull << 30},
               {"2GB", 2ull << 30},
               {"2GiB", 2ull << 30},
               {"1.5G", 3ull << 29},
               {"1.5GiB", 3ull << 29},
               {"0.001M", 1024},
               {"3T", 3ull << 40},
               {"8388607T", 8388607ull << 40}};
  for (const auto& good : kGood) {
    std::uint64_t bytes = 77;
    EXPECT_TRUE(parse_size(good.text, &bytes)) << good.text;
    EXPECT_EQ(bytes, good.bytes) << good.text;
  }
  for (const char* bad : {"",
                          "1",
                          "64",
                          "00",
                          "G",
                          "iB",
                          "B",
                          "K",
                          "1X",
                          "1 G",
                          " 1G",
                          "1G ",
                          "-1G",
                          "+1G",
                          "1Gi",
                          "1iB",
                          "0x1G",
                          "1e3M",
                          "1.G",
                          ".5G",
                          "1.5",
                          "1.5K",
                          "1.2345G",
                          "1..5G",
                          "1,5G",
                          "1GG",
                          "8388608T",
                          "18446744073709551616K",
                          "99999999999999999999999T",
                          "1G\n",
                          "inf",
                          "auto"}) {
    std::uint64_t bytes = 77;
    EXPECT_FALSE(parse_size(bad, &bytes)) << bad;
    EXPECT_EQ(bytes, 77u) << bad;
  }
}

TEST(ParseOption, Fast) {
  EXPECT_EQ(parsed(OptionId::kFast, "auto"), "auto");
  EXPECT_EQ(parsed(OptionId::kFast, "2048M"), "2G");
  EXPECT_EQ(parsed(OptionId::kFast, "1536M"), "1536M");
  EXPECT_EQ(parsed(OptionId::kFast, "1%"), "1%");
  EXPECT_EQ(parsed(OptionId::kFast, "100%"), "100%");
  EXPECT_EQ(parsed(OptionId::kFast, "2"), "refused: a size needs a unit");
  for (const char* bad : {"", "0", "0%", "101%", "50.5%", "%", "1023K", "-1%", "AUTO", "50 %"}) {
    EXPECT_EQ(parsed(OptionId::kFast, bad), "refused") << bad;
  }
}

TEST(ParseOption, Tiers) {
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool"), "dram,zpool");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool:4GiB"), "dram,zpool:4G");
  Options options;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "dram,zpool:1M", &options).ok);
  EXPECT_EQ(options.tiers.count, 2u);
  EXPECT_EQ(options.tiers.find(TierKind::kZpool)->capacity_bytes, 1u << 20);
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,node:1"),
            "refused: nodes belong to a tier, as in cxl=node:1");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool,file:/x"),
            "refused: tier file: is not built yet in this version");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,swap"),
            "refused: tier swap is not built yet in this version");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram"),
            "refused: dram alone leaves nowhere to move to; that is policy none");
  EXPECT_EQ(parsed(OptionId::kTiers, "zpool,dram"), "refused: the chain starts with dram");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool,zpool"), "refused: a tier is named twice");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram:2G,zpool"), "refused: the size of dram is option FAST");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool:1K"), "refused: a zpool needs at least 1M");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool:4"),
            "refused: the zpool's SIZE needs a unit, as in 4G");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram,zpool:"),
            "refused: the zpool's SIZE needs a unit, as in 4G");
  for (const char* bad : {"", ",", "dram,", ",zpool", "dram,,zpool", "dram zpool", "DRAM,zpool"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, bad).substr(0, 7), "refused") << bad;
  }
}

TEST(ParseOption, TiersOfNodes) {
  for (const char* good : {"dram=node:0-1;cxl=node:2;pmem=node:3;zpool:2G", "dram=node:0;zpool",
                           "dram;cxl=node:0-2,4,63", "dram=node:5;pmem=node:1;cxl=node:3"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, good), good);
  }
  EXPECT_EQ(parsed(OptionId::kTiers, "dram=node:1,0,2;zpool:2048M"), "dram=node:0-2;zpool:2G");
  EXPECT_EQ(parsed(OptionId::kTiers, "dram;zpool:2G"), "dram,zpool:2G");
  Options options;
  ASSERT_TRUE(
      parse_option(OptionId::kTiers, "dram=node:0-1;cxl=node:2;pmem=node:3;zpool:2G", &options).ok);
  ASSERT_EQ(options.tiers.count, 4u);
  EXPECT_TRUE(options.tiers.names_nodes());
  EXPECT_EQ(options.tiers.find(TierKind::kDram)->nodes, NodeSet::of(0) | NodeSet::of(1));
  EXPECT_EQ(options.tiers.tiers[2].kind, TierKind::kPmem);
  EXPECT_EQ(options.tiers.find(TierKind::kZpool)->capacity_bytes, 2ull << 30);
  EXPECT_FALSE(Options{}.tiers.names_nodes());
}

TEST(ParseOption, TiersOfNodesWithSizes) {
  for (const char* good :
       {"dram=node:0-1:8G;cxl=node:2:4G;pmem=node:3;zpool:2G", "dram=node:0:1M;zpool",
        "dram;cxl=node:0-2,4,63:1536M", "dram=node:0:8T;pmem=node:2"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, good), good);
  }
  EXPECT_EQ(parsed(OptionId::kTiers, "dram=node:1,0:4096MiB;cxl=node:2:1.5g"),
            "dram=node:0-1:4G;cxl=node:2:1536M");
  Options options;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "dram=node:0:8G;cxl=node:2:4G", &options).ok);
  EXPECT_EQ(options.tiers.find(TierKind::kDram)->capacity_bytes, 8ull << 30);
  EXPECT_EQ(options.tiers.find(TierKind::kCxl)->capacity_bytes, 4ull << 30);
  EXPECT_EQ(options.tiers.find(TierKind::kCxl)->nodes, NodeSet::of(2));
  for (const char* zero : {"dram=node:0;cxl=node:2:0", "dram=node:0:0;zpool", "dram;cxl=node:2:0M",
                           "dram;cxl=node:2:1023K"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, zero), "refused: a tier of nodes needs at least 1M") << zero;
  }
  for (const char* bad :
       {"dram=node:0;cxl=node:2:4", "dram=node:0:;zpool", "dram=node:0:1G:2G;zpool",
        "dram;cxl=node:2: 4G", "dram;cxl=node:2:-4G", "dram;cxl=node:2:50%"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, bad),
              "refused: the SIZE of a tier of nodes needs a unit, as in cxl=node:2:4G")
        << bad;
  }
  for (const char* bad : {"dram=node::4G;zpool", "dram=node:0 :4G;zpool", "dram=node:4G;zpool"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, bad),
              "refused: nodes are a list like 0-1,4, and ; divides tiers that have nodes")
        << bad;
  }
  EXPECT_EQ(parsed(OptionId::kTiers, "dram=node:64:4G;zpool"),
            "refused: nodes are numbered from 0 to 63");
}

TEST(ParseOption, TiersOfTheMachinesOwn) {
  EXPECT_EQ(parsed(OptionId::kTiers, "auto"), "auto");
  EXPECT_EQ(parsed(OptionId::kTiers, "auto;zpool"), "refused: no such tier");
}

TEST(ParseOption, TwoTiersMayBeOfOneKind) {
  for (const char* chain : {"dram=node:0;cxl=node:1;cxl=node:2", "dram=node:1;dram=node:0;zpool",
                            "dram;pmem=node:2:4G;pmem=node:3"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, chain), chain);
  }
}

TEST(ParseOption, OneTierOfSeveralNodesIsAChain) {
  EXPECT_EQ(parsed(OptionId::kTiers, "dram=node:0-1"), "dram=node:0-1");
}

TEST(ParseOption, TiersOfNodesRefused) {
  const struct {
    const char* value;
    const char* reason;
  } kCases[] = {
      {"dram=node:0;cxl=node:0", "a node is named twice"},
      {"dram=node:0;cxl=node:1;pmem=node:1-2", "a node is named twice"},
      {"dram;dram=node:1", "a tier is named twice"},
      {"dram=node:0;dram", "a tier is named twice"},
      {"dram=node:0;zpool;zpool", "a tier is named twice"},
      {"dram=node:0;cxl=node:1;cxl=node:2;cxl=node:3;cxl=node:4;pmem=node:5;pmem=node:6;pmem=node:"
       "7;zpool",
       "a chain has at most 8 tiers"},
      {"dram=node:0;zpool;cxl=node:1", "the zpool comes last"},
      {"cxl=node:1;dram=node:0", "the chain starts with dram"},
      {"dram=node:0", "dram alone leaves nowhere to move to; that is policy none"},
      {"dram=node:64;zpool", "nodes are numbered from 0 to 63"},
      {"dram=node:0-99;zpool", "nodes are numbered from 0 to 63"},
      {"dram;cxl", "cxl and pmem need nodes, as in cxl=node:2"},
      {"dram;pmem:2G", "cxl and pmem need nodes, as in cxl=node:2"},
      {"dram=node:0;zpool=node:1", "a zpool has a size, not nodes, as in zpool:4G"},
      {"dram=node:0;zpool:4", "the zpool's SIZE needs a unit, as in 4G"},
      {"dram=0;zpool", "after = come nodes, as in cxl=node:2"},
      {"dram=zpool:1G;zpool", "after = come nodes, as in cxl=node:2"},
      {"dram=node:0;slow=node:1", "no such tier"},
      {"dram=node:0;", "no such tier"},
      {"dram=node:0;swap", "tier swap is not built yet in this version"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(parsed(OptionId::kTiers, c.value), std::string("refused: ") + c.reason) << c.value;
  }
  for (const char* bad : {"dram=node:;zpool", "dram=node:x;zpool", "dram=node:1-0;zpool",
                          "dram=node:0,zpool", "dram=node:0\n;zpool", "dram=node:-1;zpool"}) {
    EXPECT_EQ(parsed(OptionId::kTiers, bad),
              "refused: nodes are a list like 0-1,4, and ; divides tiers that have nodes")
        << bad;
  }
}

TEST(ParseOption, Codec) {
  EXPECT_EQ(parsed(OptionId::kCodec, "lz4"), "lz4");
  EXPECT_EQ(parsed(OptionId::kCodec, "zstd"), "zstd:1");
  EXPECT_EQ(parsed(OptionId::kCodec, "zstd:19"), "zstd:19");
  for (const char* bad :
       {"", "lz4:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:1x", "ZSTD"}) {
    EXPECT_EQ(parsed(OptionId::kCodec, bad), "refused") << bad;
  }
}

TEST(ParseOption, Words) {
  const struct {
    OptionId id;
    std::vector<const char*> good;
  } kCases[] = {{OptionId::kHeap, {"jemalloc", "mimalloc", "none"}},
                {OptionId::kPolicy, {"hotset", "none"}},
                {OptionId::kHuge, {"auto", "always", "never"}},
                {OptionId::kFault, {"handler", "inline"}},
                {OptionId::kHandlers, {"auto", "1", "2", "4", "8", "16"}},
                {OptionId::kControl, {"on", "off"}},
                {OptionId::kVerbose, {"0", "1"}},
                {OptionId::kDisable, {"0", "1"}}};
  for (const auto& c : kCases) {
    for (const char* word : c.good) {
      EXPECT_EQ(parsed(c.id, word), word);
      EXPECT_EQ(parsed(c.id, std::string(word) + " "), "refused");
    }
    for (const char* bad : {"", "3", "yes", "true", "01", "-1", "Auto", "hand"}) {
      EXPECT_EQ(parsed(c.id, bad), "refused") << bad;
    }
  }
}

TEST(ParseOption, WakeAndHintBudget) {
  EXPECT_EQ(parsed(OptionId::kWake, "0"), "0");
  EXPECT_EQ(parsed(OptionId::kWake, "1G"), "1G");
  EXPECT_EQ(parsed(OptionId::kWake, "64"), "refused: a size needs a unit");
  EXPECT_EQ(parsed(OptionId::kWake, "64 M"), "refused");
  EXPECT_EQ(parsed(OptionId::kHintBudget, "0%"), "0%");
  EXPECT_EQ(parsed(OptionId::kHintBudget, "0.2%"), "0.20%");
  EXPECT_EQ(parsed(OptionId::kHintBudget, "0.25%"), "0.25%");
  EXPECT_EQ(parsed(OptionId::kHintBudget, "50%"), "50%");
  for (const char* bad : {"", "1", "50.01%", "51%", "1.%", ".5%", "0.125%", "%", "-1%", "1%%",
                          "184467440737095517%", "18446744073709551617%"}) {
    EXPECT_EQ(parsed(OptionId::kHintBudget, bad), "refused") << bad;
  }
}

TEST(ParseOption, Stats) {
  EXPECT_EQ(parsed(OptionId::kStats, "0"), "0");
  EXPECT_EQ(parsed(OptionId::kStats, "1"), "1");
  EXPECT_EQ(parsed(OptionId::kStats, "json:/tmp/%p.json"), "json:/tmp/%p.json");
  EXPECT_EQ(parsed(OptionId::kStats, "json:"), "refused: PATH is empty");
  EXPECT_EQ(parsed(OptionId::kStats, "json:a%d"),
            "refused: after % only p (the process id) or a second %");
  EXPECT_EQ(parsed(OptionId::kStats, "json:a%"),
            "refused: after % only p (the process id) or a second %");
  EXPECT_EQ(parsed(OptionId::kStats, "json:" + std::string(1023, 'x')).size(), 1028u);
  EXPECT_EQ(parsed(OptionId::kStats, "json:" + std::string(1024, 'x')),
            "refused: PATH is longer than 1023 characters");
  EXPECT_EQ(parsed(OptionId::kStats, "text"), "refused");
}

TEST(StatsPath, IsExpanded) {
  Options options;
  ASSERT_TRUE(parse_option(OptionId::kStats, "json:a%p-100%%.json", &options).ok);
  char path[64];
  ASSERT_TRUE(expand_stats_path(options.stats, 4321, path, sizeof path));
  EXPECT_STREQ(path, "a4321-100%.json");
  EXPECT_FALSE(expand_stats_path(options.stats, 4321, path, 15));
  EXPECT_TRUE(expand_stats_path(options.stats, 4321, path, 16));
}

TEST(ParseEnvironment, TakesWhatItKnows) {
  const Environment env({"PATH=/bin", "HEAPTIER_FAST=50%", "HEAPTIER_STATS=json:/tmp/x",
                         "HEAPTIER_STATS_PID=77", "HEAPTIER_LIB=/x/y.so", "HEAPTIER_CODEC=",
                         "HEAPTIER_HANDLERS=4", "HEAPTIER", "HEAPTIERS_X=1", "HEAPTIER_HUGE"});
  EXPECT_EQ(env.said(), "");
  EXPECT_EQ(env.options.fast, (FastBudget{FastBudget::Kind::kPercent, 0, 50}));
  EXPECT_EQ(env.options.handlers, 4u);
  EXPECT_EQ(env.options.codec, CodecSpec{});
  EXPECT_TRUE(env.options.reports(77));
  EXPECT_FALSE(env.options.reports(78));
  EXPECT_EQ(env.options.source[static_cast<int>(OptionId::kFast)], OptionSource::kEnvironment);
  EXPECT_EQ(env.options.source[static_cast<int>(OptionId::kCodec)], OptionSource::kDefault);
}

TEST(ParseEnvironment, TheSessionsFolder) {
  EXPECT_STREQ(Environment({"XDG_RUNTIME_DIR=/run/user/7"}).options.runtime_dir, "/run/user/7");
  EXPECT_STREQ(Environment({"XDG_RUNTIME_DIR=/a", "XDG_RUNTIME_DIR=/b"}).options.runtime_dir, "/a");
  for (const char* none : {"XDG_RUNTIME_DIR=", "XDG_RUNTIME_DIR", "XDG_RUNTIME_DIR=run/user/7",
                           "XDG_RUNTIME_DIRS=/run", "HDG_RUNTIME_DIR=/run", "XDG=/run"}) {
    const Environment env({none});
    EXPECT_STREQ(env.options.runtime_dir, "") << none;
    EXPECT_EQ(env.said(), "") << none;
  }
  const std::string longest = "/" + std::string(kMaxRuntimeDir - 2, 'x');
  EXPECT_EQ(Environment({("XDG_RUNTIME_DIR=" + longest).c_str()}).options.runtime_dir, longest);
  EXPECT_STREQ(Environment({("XDG_RUNTIME_DIR=" + longest + "x").c_str()}).options.runtime_dir, "");
}

TEST(ParseEnvironment, WithoutVariables) {
  const Environment env({});
  EXPECT_TRUE(env.diagnostics.empty());
  EXPECT_FALSE(env.options.reports(1));
  Options options;
  Diagnostics diagnostics;
  parse_environment(nullptr, &options, &diagnostics);
  EXPECT_TRUE(diagnostics.empty());
}

TEST(ParseOption, Policy) {
  EXPECT_EQ(parsed(OptionId::kPolicy, "none"), "none");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave"), "interleave");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:2=1,0=3"), "interleave:0=3,2=1");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=255,63=1"), "interleave:0=255,63=1");
  const std::string list = "refused: weights are a list like 0=3,2=1";
  for (const char* bad : {"interleave:", "interleave:0", "interleave:0=", "interleave:=1",
                          "interleave:0=1,", "interleave:0=1;1=1", "interleave:a=1,1=1",
                          "interleave:0=1,1=-1", "interleave:0=1,1=1 ", "interleave:0-1=3"}) {
    EXPECT_EQ(parsed(OptionId::kPolicy, bad), list) << bad;
  }
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=1,64=1"),
            "refused: nodes are numbered from 0 to 63");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=1,1=0"), "refused: a weight is from 1 to 255");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=256,1=1"),
            "refused: a weight is from 1 to 255");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=1,0=2"), "refused: a node is named twice");
  EXPECT_EQ(parsed(OptionId::kPolicy, "interleave:0=1"),
            "refused: there is nothing to spread over one node");
  EXPECT_EQ(parsed(OptionId::kPolicy, "Interleave"), parsed(OptionId::kPolicy, "lru"));
}

TEST(ParseEnvironment, BadValueIsOneLineAndTheDefault) {
  const Environment env({"HEAPTIER_POLICY=lru", "HEAPTIER_WAKE=64"});
  EXPECT_EQ(env.said(),
            "heaptier: HEAPTIER_POLICY=lru is not accepted; accepted: hotset, interleave, "
            "interleave:NODE=WEIGHT,... with weights from 1 to 255, or none; using hotset "
            "instead\n"
            "heaptier: HEAPTIER_WAKE=64 is not accepted (a size needs a unit); accepted: a size "
            "(64M, 1G) or 0 for at once; using 64M instead\n");
  EXPECT_EQ(env.options.policy.kind, PolicyKind::kHotset);
  EXPECT_EQ(env.options.wake_bytes, 64u << 20);
  EXPECT_EQ(env.options.source[static_cast<int>(OptionId::kPolicy)], OptionSource::kRefused);
}

TEST(ParseEnvironment, UnknownNameIsOneLineWithTheNearest) {
  const Environment env({"HEAPTIER_FSAT=2G", "HEAPTIER_ZZZZZZZZZ=1"});
  EXPECT_EQ(
      env.said(),
      "heaptier: HEAPTIER_FSAT is no option of heaptier; did you mean HEAPTIER_FAST? ignored\n"
      "heaptier: HEAPTIER_ZZZZZZZZZ is no option of heaptier (`heaptier help options` lists "
      "them); ignored\n");
  EXPECT_EQ(env.options.fast, FastBudget{});
}

TEST(ParseEnvironment, FirstOfTwoCounts) {
  const Environment env({"HEAPTIER_FAST=2G", "HEAPTIER_FAST=nonsense"});
  EXPECT_EQ(env.said(), "");
  EXPECT_EQ(env.options.fast.bytes, 2ull << 30);
}

TEST(ParseEnvironment, BadStatsPidMeansEveryProcess) {
  for (const char* bad : {"HEAPTIER_STATS_PID=x", "HEAPTIER_STATS_PID=4294967297"}) {
    const Environment env({bad, "HEAPTIER_STATS=1"});
    EXPECT_EQ(env.diagnostics.lines(), 1u);
    EXPECT_TRUE(env.options.reports(1));
  }
}

TEST(Nearest, NamesWhatWasMeant) {
  EXPECT_EQ(nearest_flag("fst"), OptionId::kFast);
  EXPECT_EQ(nearest_flag("tier"), OptionId::kTiers);
  EXPECT_EQ(nearest_flag("hint_budget"), OptionId::kHintBudget);
  EXPECT_EQ(nearest_flag("hint"), OptionId::kHintBudget);
  EXPECT_EQ(nearest_flag("polcy"), OptionId::kPolicy);
  EXPECT_EQ(nearest_flag("handler"), OptionId::kHandlers);
  EXPECT_EQ(nearest_variable("HEAPTIER_STATS_JSON"), OptionId::kStats);
  EXPECT_EQ(nearest_variable("HEAPTIER_verbose"), OptionId::kVerbose);
  EXPECT_EQ(nearest_flag("quantum-chromodynamics"), OptionId::kCount);
  EXPECT_EQ(nearest_flag(""), OptionId::kCount);
  EXPECT_EQ(nearest_flag(std::string(100000, 'f')), OptionId::kCount);
}

TEST(Diagnostics, StaysWithinItsBufferAndItsLines) {
  Diagnostics diagnostics;
  diagnostics.add({"one\ntwo\x1b[31m", "\t", "three"});
  EXPECT_EQ(diagnostics.text(), "one?two?[31m?three\n");
  const std::string big(1000, 'x');
  for (int i = 0; i < 10; ++i) diagnostics.add({big});
  EXPECT_EQ(diagnostics.lines(), 5u);
  EXPECT_EQ(diagnostics.lost(), 6u);
  EXPECT_LE(diagnostics.text().size(), 4096u);
  EXPECT_EQ(diagnostics.text().back(), '\n');
  diagnostics.clear();
  EXPECT_TRUE(diagnostics.empty());
}

TEST(FormatEffective, OneLineAnOption) {
  const Environment env({"HEAPTIER_FAST=2G", "HEAPTIER_HUGE=maybe"});
  char text[4096];
  ASSERT_LT(format_effective(env.options, text, sizeof text), sizeof text);
  const std::string lines = text;
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), static_cast<long>(kOptionCount));
  EXPECT_NE(lines.find("heaptier: HEAPTIER_FAST=2G                   (environment)\n"),
            std::string::npos)
      << lines;
  EXPECT_NE(lines.find("(default, the value given is not accepted)"), std::string::npos);
  // snprintf's rules: the whole length whatever the room, never a byte too many.
  char small[8] = "#######";
  EXPECT_EQ(format_effective(env.options, small, 4), lines.size());
  EXPECT_STREQ(small, "hea");
  EXPECT_EQ(small[4], '#');
  EXPECT_EQ(format_effective(env.options, nullptr, 0), lines.size());
}

// Whatever bytes arrive: no crash, no value changed on refusal, and every accepted value can be
// written down and read back as the same.
TEST(Fuzz, NonsenseIsRefusedAndSenseComesBack) {
  std::mt19937 random(20);
  const std::string_view kPieces[] = {
      "dram", "zpool",  ",",      ":",    "node", "json", "%p",
      "%",    "auto",   "1",      "0",    "19",   "64",   "M",
      "G",    "iB",     "zstd",   "lz4",  "1.5",  "-",    " ",
      "K",    "none",   "inline", "\xff", "\n",   "8",    "99999999999999999999",
      ";",    "=node:", "cxl",    "pmem", "0-1"};
  int accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    std::string value;
    for (auto n = random() % 5; n > 0; --n) {
      if (random() % 8 == 0) {
        value.push_back(static_cast<char>(random() % 256));
      } else {
        value += kPieces[random() % std::size(kPieces)];
      }
    }
    const auto id = static_cast<OptionId>(random() % kOptionCount);
    Options options;
    const std::string before = shown(id, options);
    if (!parse_option(id, value, &options).ok) {
      ASSERT_EQ(shown(id, options), before) << value;
      continue;
    }
    ++accepted;
    const std::string text = shown(id, options);
    Options again;
    ASSERT_TRUE(parse_option(id, text, &again).ok) << value << " -> " << text;
    ASSERT_EQ(shown(id, again), text) << value;
  }
  EXPECT_GT(accepted, 1000);
}

TEST(Fuzz, EnvironmentOfNonsense) {
  std::mt19937 random(21);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> variables;
    std::size_t bad = 0;
    for (int i = 0; i < 8; ++i) {
      std::string text = random() % 4 == 0 ? "" : "HEAPTIER_";
      bad += text.empty() ? 0 : 1;
      for (auto n = random() % 40; n > 0; --n) {
        text.push_back(static_cast<char>(1 + random() % 255));
      }
      variables.push_back(text);
    }
    std::vector<const char*> pointers;
    for (const std::string& v : variables) pointers.push_back(v.c_str());
    const Environment env(pointers);
    const std::string said = env.said();
    ASSERT_LE(env.diagnostics.lines(), bad);
    ASSERT_EQ(static_cast<std::size_t>(std::count(said.begin(), said.end(), '\n')),
              env.diagnostics.lines());
  }
}

TEST(TextWriter, Numbers) {
  const auto ratio = [](std::uint64_t a, std::uint64_t b, unsigned decimals) {
    char text[64];
    TextWriter writer(text, sizeof text);
    writer.put_ratio(a, b, decimals);
    writer.finish();
    return std::string(text);
  };
  EXPECT_EQ(ratio(0, 7, 1), "0.0");
  EXPECT_EQ(ratio(5, 0, 2), "0.00");
  EXPECT_EQ(ratio(7, 2, 1), "3.5");
  EXPECT_EQ(ratio(2, 3, 3), "0.666");
  EXPECT_EQ(ratio(25, 100, 2), "0.25");
  EXPECT_EQ(ratio(UINT64_MAX, 1, 0), "18446744073709551615");
  EXPECT_EQ(ratio(UINT64_MAX - 1, UINT64_MAX, 3), "0.999");
}

}  // namespace
}  // namespace heaptier

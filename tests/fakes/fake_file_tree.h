// A tree of files that a test makes up: what a kernel would tell on a machine that is not here.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "runtime/base/file_tree.h"

namespace heaptier {

class FakeFileTree final : public FileTree {
 public:
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> links;
  std::size_t piece = 64;  // how much a read gives at once
  int reads = 0;
  // Failing from the n-th call on, counted from 0; -1: never.
  int fail_from = -1;

  Errno read(const char* path, TextSink& sink) override {
    ++reads;
    const auto found = files.find(path);
    if (fails() || found == files.end()) return {ENOENT};
    const std::string& text = found->second;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      // Fails in the middle: what came so far stays with the sink.
      if (at != 0 && fails()) return {EIO};
      if (!sink.take(std::string_view(text).substr(at, piece))) break;
    }
    return kOk;
  }

  Errno list(const char* path, TextSink& names) override {
    if (fails()) return {EACCES};
    std::string folder = path;
    if (!folder.ends_with('/')) folder += '/';
    std::set<std::string> found;
    const auto note = [&](const auto& entry) {
      if (!entry.first.starts_with(folder)) return;
      const std::string rest = entry.first.substr(folder.size());
      found.insert(rest.substr(0, rest.find('/')));
    };
    std::for_each(files.begin(), files.end(), note);
    std::for_each(links.begin(), links.end(), note);
    if (found.empty()) return {ENOENT};
    for (const std::string& name : found) {
      if (!names.take(name)) break;
    }
    return kOk;
  }

  Errno link(const char* path, char* out, std::size_t room) override {
    const auto found = links.find(path);
    if (fails() || found == links.end()) return {ENOENT};
    if (found->second.size() >= room) return {ENAMETOOLONG};
    std::memcpy(out, found->second.c_str(), found->second.size() + 1);
    return kOk;
  }

 private:
  bool fails() { return fail_from >= 0 && calls_++ >= fail_from; }
  int calls_ = 0;
};

}  // namespace heaptier

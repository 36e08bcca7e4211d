// What a process has to say on its control socket.
//
// Thread rule: the background thread.
#pragma once

#include "runtime/control.h"

namespace heaptier {

class Background;

class ControlAnswersOf final : public ControlAnswers {
 public:
  explicit ControlAnswersOf(Background& background) : background_(background) {}
  std::size_t answer(const ControlRequest& request, char* out, std::size_t room) override;

 private:
  Background& background_;
};

}  // namespace heaptier

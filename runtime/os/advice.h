// madvise(2)'s numbers, for rooms that may not include the kernel's headers. Checked in
// kernel_memory.cc.
#pragma once

namespace heaptier::os {

inline constexpr int kAdviceDontNeed = 4;
inline constexpr int kAdviceFree = 8;
inline constexpr int kAdviceHuge = 14;
inline constexpr int kAdviceNoHuge = 15;
inline constexpr int kAdviceDontFork = 10;
inline constexpr int kAdviceDontDump = 16;
inline constexpr int kAdviceWipeOnFork = 18;
inline constexpr int kAdviceCold = 20;      // of a part of a huge page: takes it apart
inline constexpr int kAdviceFillRead = 22;  // as a read of each page would: Linux 5.14
inline constexpr int kAdviceFillWrite = 23;
inline constexpr int kAdviceCollapse = 25;  // Linux 6.1

}  // namespace heaptier::os

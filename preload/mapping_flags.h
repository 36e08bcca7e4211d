// The numbers of mmap(2) and its kin that tell what a call is about to do. The kernel's headers
// belong to the doors to the kernel; tests/preload/abi checks these against them.
#pragma once

namespace heaptier::preload {

inline constexpr int kMapShared = 0x01;
inline constexpr int kMapFixed = 0x10;
inline constexpr int kMapAnonymous = 0x20;
inline constexpr int kMapHugetlb = 0x40000;
inline constexpr int kMremapMayMove = 1;
inline constexpr int kMremapFixed = 2;
inline constexpr int kMremapDontUnmap = 4;
inline constexpr int kMapPrivate = 0x02;
inline constexpr int kProtReadWrite = 3;
inline constexpr int kPosixDontNeed = 4;  // POSIX_MADV_DONTNEED

}  // namespace heaptier::preload

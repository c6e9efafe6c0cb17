// The share of processor time that a container's limit leaves this process.
#pragma once

#include <string>

namespace fusedx {

// Processors' worth of time a second under the tightest limit on this process's control group and the groups around it
// (cgroup v2 cpu.max, v1 cpu.cfs_quota_us); 0 when there is no limit.  `root` stands before /proc and /sys, for tests.
double cpu_quota(const std::string& root = "");

}  // namespace fusedx

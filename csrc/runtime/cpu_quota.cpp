#include "runtime/cpu_quota.hpp"

#include <fstream>

namespace fusedx {
namespace {

double ratio(double quota, double period) { return quota > 0 && period > 0 ? quota / period : 0; }

double limit_v2(const std::string& folder) {  // "max 100000" or "150000 100000"
    double quota = 0, period = 0;
    std::ifstream(folder + "/cpu.max") >> quota >> period;
    return ratio(quota, period);
}

double limit_v1(const std::string& folder) {  // -1 means none
    double quota = 0, period = 0;
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    return ratio(quota, period);
}

double smaller(double x, double y) { return x == 0 || (y > 0 && y < x) ? y : x; }  // 0 is no limit

// Inside a container the group's path may be the host's, of which only the top is there; the files that exist decide.
double tightest(const std::string& mount, std::string group, double (*limit)(const std::string&)) {
    double found = limit(mount);
    for (size_t cut; (cut = group.find_last_of('/')) != std::string::npos; group.erase(cut))
        found = smaller(found, limit(mount + group));
    return found;
}

}  // namespace

double cpu_quota(const std::string& root) {
    const std::string mount = root + "/sys/fs/cgroup";
    std::string v1, v2;
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // "0::/group" (v2) or "3:cpu,cpuacct:/group" (v1)
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        std::string kinds = line.substr(first, second - first);  // ":cpu,cpuacct"
        for (char& each : kinds) each = each == ':' ? ',' : each;
        kinds.push_back(',');
        if (kinds == ",,") v2 = line.substr(second + 1);
        if (kinds.find(",cpu,") != std::string::npos) v1 = line.substr(second + 1);
    }
    double found = tightest(mount, v2, limit_v2);
    for (const char* kind : {"/cpu", "/cpu,cpuacct", "/cpuacct,cpu"}) found = smaller(found, tightest(mount + kind, v1, limit_v1));
    return found;
}

}  // namespace fusedx

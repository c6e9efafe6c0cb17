// Four neighbouring floats of a table, in one 16-byte load.
#pragma once

#include "device.cuh"

namespace fusedx {

struct Four {
    float x[4];
};

FUSEDX_DEVICE Four load_four(const float* p) {
    const float4 v = device::load_constant(reinterpret_cast<const float4*>(p));
    return {{v.x, v.y, v.z, v.w}};
}

}  // namespace fusedx

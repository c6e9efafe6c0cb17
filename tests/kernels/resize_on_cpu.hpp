// Enough of CUDA to run resize.cu on a CPU: its threads never wait for each other, so a launch is six loops.
// Included before the .cu; g++ then compiles that file unchanged.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#define __global__
#define __device__
using std::min;

struct Index {
    unsigned x, y, z;
};
static thread_local Index blockIdx, threadIdx, blockDim;

template <class Body>
void for_each(Index size, Index& at, Body body) {
    for (at.z = 0; at.z < size.z; ++at.z)
        for (at.y = 0; at.y < size.y; ++at.y)
            for (at.x = 0; at.x < size.x; ++at.x) body();
}

template <class... Args, std::size_t... I>
void call(void (*kernel)(Args...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Args*>(arguments[I])...);
}

// arguments: addresses of the values, as cuLaunchKernel takes them.
template <class... Args>
void launch(void (*kernel)(Args...), Index grid, Index block, void** arguments) {
    blockDim = block;
    for_each(grid, blockIdx, [&] {
        for_each(block, threadIdx, [&] { call(kernel, arguments, std::index_sequence_for<Args...>{}); });
    });
}

// Writes the size of each parameter and returns their number.
template <class... Args>
int parameter_sizes(void (*)(Args...), int* sizes) {
    const int all[] = {static_cast<int>(sizeof(Args))...};
    std::copy(std::begin(all), std::end(all), sizes);
    return sizeof...(Args);
}

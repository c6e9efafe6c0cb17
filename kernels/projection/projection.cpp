#include "projection.hpp"

#include "thread_pool.hpp"

namespace fusedx {

void project(const Projection& p, Isa isa) {
    auto rows = baseline::project_rows;
#if defined(FUSEDX_HAS_X86)
    if (isa == Isa::avx512) rows = avx512::project_rows;
    if (isa == Isa::avx2) rows = avx2::project_rows;
#endif
    (void)isa;
    parallel_for(p.rows, p.rows * p.inputs * p.outputs, [&](int64_t begin, int64_t end) { rows(p, begin, end); });
}

}  // namespace fusedx

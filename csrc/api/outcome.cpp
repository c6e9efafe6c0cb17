#include "api/outcome.hpp"

#include <cstring>
#include <exception>
#include <new>
#include <string_view>

#include "api/log.hpp"
#include "model/text.hpp"

namespace fusedx::api {
namespace {

// A fixed place: to keep a message of lacking memory must not need memory.
thread_local char last_text[2048] = "";

// One line of UTF-8, whatever a path, a setting or a file put into the text: the rest is written \xNN, which needs no memory either.
void keep(const char* text) noexcept {
    const std::string_view whole(text);
    size_t end = 0;
    for (size_t at = 0; at < whole.size();) {
        const size_t start = at;
        const int32_t code = next_code_point(whole, at);
        if (code < 0) at = start + 1;
        const bool plain = code >= 0 && is_printable(static_cast<uint32_t>(code));
        const size_t needed = plain ? at - start : 4 * (at - start);
        if (end + needed >= sizeof last_text) break;
        if (plain) std::memcpy(last_text + end, text + start, needed);
        for (size_t i = start; !plain && i < at; ++i) {
            const auto byte = static_cast<unsigned char>(text[i]);
            const char escape[4] = {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
            std::memcpy(last_text + end + 4 * (i - start), escape, 4);
        }
        end += needed;
    }
    last_text[end] = '\0';
}

fx_status fail_plain(fx_status status, const char* text) noexcept {
    keep(text);
    log(status == FX_INTERNAL ? FX_LOG_ERROR : FX_LOG_WARNING, last_text);
    return status;
}

}  // namespace

const char* last_error() noexcept { return last_text; }

fx_status fail(fx_status status, const std::string& text) noexcept { return fail_plain(status, text.c_str()); }

fx_status fail_with_current_exception() noexcept {
    try {
        throw;
    } catch (const Error& error) {
        return fail_plain(static_cast<fx_status>(error.status), error.what());
    } catch (const std::bad_alloc&) {
        return fail_plain(FX_OUT_OF_MEMORY, "the system has no more memory for this call; give it smaller batches, or free some");
    } catch (const std::exception& error) {
        return fail_plain(FX_INTERNAL, error.what());
    } catch (...) {
        return fail_plain(FX_INTERNAL, "an unknown exception");
    }
}

}  // namespace fusedx::api

#include "api/outcome.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>

#include "api/log.hpp"

namespace fusedx::api {
namespace {

// A fixed place: to keep a message of lacking memory must not need memory.
thread_local char last_text[2048] = "";

void keep(const char* text) noexcept {
    const size_t size = std::min(std::strlen(text), sizeof last_text - 1);
    std::memcpy(last_text, text, size);
    size_t end = size;  // not in the middle of a character: 10xxxxxx continues one
    if (text[size] != '\0')
        while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
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
    } catch (const std::invalid_argument& error) {  // settings of the environment
        return fail_plain(FX_BAD_ARGUMENT, error.what());
    } catch (const std::exception& error) {
        return fail_plain(FX_INTERNAL, error.what());
    } catch (...) {
        return fail_plain(FX_INTERNAL, "an unknown exception");
    }
}

}  // namespace fusedx::api

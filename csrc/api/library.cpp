// Version, names, errors, log, processor: what needs no model.
#include <string>

#include "api/log.hpp"
#include "api/outcome.hpp"
#include "engine/image.hpp"
#include "fusedx/fusedx.h"
#include "runtime/isa.hpp"

using namespace fusedx;
using namespace fusedx::api;

#define FX_STRING(x) #x
#define FX_TEXT(x) FX_STRING(x)

extern "C" {

int32_t fx_version(void) { return FX_VERSION; }

const char* fx_version_string(void) { return FX_TEXT(FX_VERSION_MAJOR) "." FX_TEXT(FX_VERSION_MINOR) "." FX_TEXT(FX_VERSION_PATCH); }

const char* fx_status_name(fx_status status) {
    static const char* const names[] = {"ok", "bad_argument", "bad_model", "bad_image", "unavailable", "out_of_memory", "cancelled", "internal"};
    return status >= 0 && status <= FX_INTERNAL ? names[status] : "unknown";
}

const char* fx_last_error(void) { return last_error(); }

const char* fx_reason_name(int32_t reason) { return name(static_cast<Reason>(reason)); }

fx_status fx_set_log_callback(fx_log_callback callback, int32_t level, void* user) {
    return guarded([&] {
        if (callback != nullptr && (level < FX_LOG_ERROR || level > FX_LOG_DEBUG))
            refuse("level must be from FX_LOG_ERROR (1) to FX_LOG_DEBUG (4), got " + std::to_string(level));
        if (!set_log(callback, level, user)) refuse("fx_set_log_callback must not be called from inside the callback");
        return FX_OK;
    });
}

const char* fx_isas(void) {
    const char* names = "";
    guarded([&] {
        static const std::string* const found = [] {
            std::string text;
            for (const Isa isa : available_isas()) text.append(text.empty() ? "" : ",").append(name(isa));
            return new std::string(std::move(text));
        }();
        names = found->c_str();
        return FX_OK;
    });
    return names;
}

}  // extern "C"

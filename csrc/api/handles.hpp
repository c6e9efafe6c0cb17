// Handles of the C interface: numbers, not addresses, so that a closed or invented one is found out without touching memory.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

namespace fusedx::api {

// All kinds of handles count from one number, so that a handle of another kind is unknown here.
uintptr_t next_handle();

// Never destroyed: calls may still come while the process ends.  Its lock is held for a look-up alone, and by nobody in a forked child.
template <class Opaque, class Object>
class Handles {
public:
    static Handles& all() {
        static Handles* const handles = [] {
            auto* const made = new Handles;
            instance_ = made;
            pthread_atfork([] { instance_->mutex_.lock(); }, [] { instance_->mutex_.unlock(); }, [] { instance_->mutex_.unlock(); });
            return made;
        }();
        return *handles;
    }

    Opaque* add(std::shared_ptr<Object> object) {
        const uintptr_t number = next_handle();
        const std::lock_guard lock(mutex_);
        objects_[number] = std::move(object);
        return reinterpret_cast<Opaque*>(number);
    }

    // Null where it is closed or was never given out.
    std::shared_ptr<Object> find(const Opaque* handle) {
        const std::lock_guard lock(mutex_);
        const auto place = objects_.find(reinterpret_cast<uintptr_t>(handle));
        return place == objects_.end() ? nullptr : place->second;
    }

    // The object, which lives on while other calls use it; null as find.
    std::shared_ptr<Object> remove(const Opaque* handle) {
        const std::lock_guard lock(mutex_);
        const auto place = objects_.find(reinterpret_cast<uintptr_t>(handle));
        if (place == objects_.end()) return nullptr;
        std::shared_ptr<Object> object = std::move(place->second);
        objects_.erase(place);
        return object;
    }

private:
    inline static Handles* instance_ = nullptr;
    std::mutex mutex_;
    std::map<uintptr_t, std::shared_ptr<Object>> objects_;
};

}  // namespace fusedx::api

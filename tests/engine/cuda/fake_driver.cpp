// A libcuda.so.1 whose device memory is host memory, for tests: the part of the CUDA driver API that fusedx and PyCUDA call.
//
// Queued work runs when its stream is waited for and not before, so that a host array or a staging block that is reused too
// early, and a result that is read too early, show.  Every call checks what the real driver checks: a context that is current on
// the calling thread, memory that is allocated, limits of a launch.  Where the toolkit is installed this file is compiled
// against its cuda.h, so a signature that differs from NVIDIA's does not compile.

#if __has_include(<cuda.h>)
#include <cuda.h>
#else
#include <cstddef>
typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef int CUfunction_attribute;
typedef int CUpointer_attribute;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st* CUcontext;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
typedef struct CUevent_st* CUevent;
#define CUDAAPI
#define cuDeviceTotalMem cuDeviceTotalMem_v2
#define cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2
#define cuCtxPushCurrent cuCtxPushCurrent_v2
#define cuCtxPopCurrent cuCtxPopCurrent_v2
#define cuMemAlloc cuMemAlloc_v2
#define cuMemFree cuMemFree_v2
#define cuMemcpyHtoDAsync cuMemcpyHtoDAsync_v2
#define cuMemcpyDtoHAsync cuMemcpyDtoHAsync_v2
#define cuMemcpyDtoDAsync cuMemcpyDtoDAsync_v2
#define cuStreamDestroy cuStreamDestroy_v2
#define cuEventDestroy cuEventDestroy_v2
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

using Launcher = int (*)(
    const char* symbol, const unsigned* grid, const unsigned* block, unsigned shared, void** arguments, int cooperative);
using Work = std::function<int()>;

struct Function {
    std::string symbol;
    int dynamic_shared = 48 << 10;
};

std::mutex lock;  // of everything below
std::map<std::string, long long> knobs;
std::map<unsigned long long, size_t> allocations;
std::map<unsigned long long, size_t> adopted;  // another library's
std::map<void*, std::vector<Work>> queues;
std::map<std::string, long long> calls;
std::map<std::string, std::vector<int>> arguments_of;  // symbol -> bytes of each argument, which the real driver reads in the binary
Launcher launcher = nullptr;
int sticky = 0;  // once lost, a context answers everything with the same error
thread_local std::vector<void*> contexts;

long long knob(const char* name, long long otherwise) {
    auto found = knobs.find(name);
    return found == knobs.end() ? otherwise : found->second;
}

size_t used() {
    size_t total = 0;
    for (auto& entry : allocations) total += entry.second;
    return total;
}

bool inside(unsigned long long pointer, size_t bytes) {
    for (auto* known : {&allocations, &adopted}) {
        auto after = known->upper_bound(pointer);
        if (after == known->begin()) continue;
        auto entry = std::prev(after);
        if (pointer + bytes <= entry->first + entry->second) return true;
    }
    return false;
}

int ready(const char* call) {
    calls[call]++;
    if (sticky) return sticky;
    return contexts.empty() ? 201 : 0;  // CUDA_ERROR_INVALID_CONTEXT
}

CUresult result(int code) { return static_cast<CUresult>(code); }

int queue(CUstream stream, Work work) {
    queues[stream].push_back(std::move(work));
    return 0;
}

int copy(void* target, const void* source, size_t bytes) {
    std::memcpy(target, source, bytes);
    return 0;
}

const std::map<int, std::pair<const char*, const char*>> TEXTS = {
    {0, {"CUDA_SUCCESS", "no error"}},
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {200, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {719, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {720, {"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"}},
    {801, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {999, {"CUDA_ERROR_UNKNOWN", "unknown error"}},
};

int launch(CUfunction f, const unsigned* grid, const unsigned* block, unsigned shared, CUstream stream, void** arguments, int cooperative) {
    auto* function = reinterpret_cast<Function*>(f);
    if (int code = static_cast<int>(knob("launch_error", 0))) return code;
    if (cooperative && !knob("cooperative", 1)) return 801;
    if (cooperative && grid[0] * grid[1] * grid[2] > knob("sms", 4)) return 720;
    if (static_cast<int>(shared) > function->dynamic_shared || block[0] * block[1] * block[2] > 1024) return 1;
    std::vector<std::vector<char>> kept;  // the driver copies the arguments before it returns
    for (int size : arguments_of[function->symbol]) {
        auto* bytes = static_cast<const char*>(arguments[kept.size()]);
        kept.emplace_back(bytes, bytes + size);
    }
    std::vector<unsigned> shape = {grid[0], grid[1], grid[2], block[0], block[1], block[2]};
    return queue(stream, [=]() mutable {
        std::vector<void*> addresses;
        for (auto& argument : kept) addresses.push_back(argument.data());
        return launcher ? launcher(function->symbol.c_str(), shape.data(), shape.data() + 3, shared, addresses.data(), cooperative) : 0;
    });
}

}  // namespace

extern "C" {

// What tests turn: name -> number, back to a fresh driver, and who runs a launch (its result is the launch's, found when waiting).
void fake_set(const char* name, long long value) {
    std::lock_guard<std::mutex> hold(lock);
    knobs[name] = value;
    if (std::strcmp(name, "sticky") == 0) sticky = static_cast<int>(value);
}
long long fake_calls(const char* name) { return calls[name]; }
long long fake_used() { return static_cast<long long>(used()); }
void fake_adopt(unsigned long long pointer, size_t bytes) { adopted[pointer] = bytes; }
void fake_on_launch(Launcher callback) { launcher = callback; }
void fake_arguments(const char* symbol, const int* sizes, int count) { arguments_of[symbol].assign(sizes, sizes + count); }
void fake_enqueue(CUstream stream, int (*work)()) {
    std::lock_guard<std::mutex> hold(lock);
    queue(stream, [=] { return work(); });
}
void fake_reset() {
    std::lock_guard<std::mutex> hold(lock);
    knobs.clear(), queues.clear(), calls.clear(), arguments_of.clear(), adopted.clear();
    sticky = 0, launcher = nullptr;
}

CUresult CUDAAPI cuInit(unsigned) { return result(static_cast<int>(knob("init_error", 0))); }
CUresult CUDAAPI cuDriverGetVersion(int* version) { return *version = static_cast<int>(knob("version", 13000)), result(0); }
CUresult CUDAAPI cuGetErrorName(CUresult code, const char** text) {
    auto found = TEXTS.find(static_cast<int>(code));
    *text = found == TEXTS.end() ? "CUDA_ERROR_OTHER" : found->second.first;
    return result(0);
}
CUresult CUDAAPI cuGetErrorString(CUresult code, const char** text) {
    static std::map<int, std::string> others;
    auto found = TEXTS.find(static_cast<int>(code));
    if (found == TEXTS.end()) others[static_cast<int>(code)] = "error number " + std::to_string(static_cast<int>(code));
    *text = found == TEXTS.end() ? others[static_cast<int>(code)].c_str() : found->second.second;
    return result(0);
}

CUresult CUDAAPI cuDeviceGetCount(int* count) { return *count = static_cast<int>(knob("devices", 1)), result(0); }
CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return result(ordinal < knob("devices", 1) ? 0 : 101);
}
CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
    std::snprintf(name, static_cast<size_t>(length), "Fake GPU %d", static_cast<int>(device));
    return result(0);
}
CUresult CUDAAPI cuDeviceTotalMem(size_t* bytes, CUdevice) { return *bytes = static_cast<size_t>(knob("memory", 1ll << 33)), result(0); }
CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (static_cast<int>(attribute)) {
        case 16: *value = static_cast<int>(knob("sms", 4)); break;
        case 38: *value = static_cast<int>(knob("l2", 4 << 20)); break;
        case 75: *value = static_cast<int>(knob("major", 9)); break;
        case 76: *value = static_cast<int>(knob("minor", 0)); break;
        case 81: *value = static_cast<int>(knob("shared_per_sm", 228 << 10)); break;
        case 82: *value = 65536; break;
        case 95: *value = static_cast<int>(knob("cooperative", 1)); break;
        case 97: *value = static_cast<int>(knob("shared_per_block", 227 << 10)); break;
        default: return result(1);
    }
    return result(0);
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    *context = reinterpret_cast<CUcontext>(static_cast<size_t>(device) + 0x1000);
    return result(static_cast<int>(knob("context_error", 0)));
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice) { return result(0); }
CUresult CUDAAPI cuCtxPushCurrent(CUcontext context) { return contexts.push_back(context), result(0); }
CUresult CUDAAPI cuCtxPopCurrent(CUcontext* context) {
    if (contexts.empty()) return result(201);
    *context = static_cast<CUcontext>(contexts.back());
    return contexts.pop_back(), result(0);
}
CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
    *context = contexts.empty() ? nullptr : static_cast<CUcontext>(contexts.back());
    return result(0);
}
CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
    if (contexts.empty()) return result(201);
    *device = static_cast<CUdevice>(reinterpret_cast<size_t>(contexts.back()) - 0x1000);
    return result(0);
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* pointer, size_t bytes) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemAlloc")) return result(code);
    if (bytes == 0) return result(1);
    if (used() + bytes > static_cast<size_t>(knob("memory", 1ll << 33))) return result(2);
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xff, bytes);  // NaN in every float format: what is read before it is written shows
    allocations[*pointer = reinterpret_cast<CUdeviceptr>(memory)] = bytes;
    return result(0);
}
CUresult CUDAAPI cuMemFree(CUdeviceptr pointer) {
    std::map<void*, std::vector<Work>> pending;
    {
        std::lock_guard<std::mutex> hold(lock);
        if (int code = ready("cuMemFree")) return result(code);
        pending.swap(queues);
    }
    for (auto& entry : pending)  // the real one waits for the device, too
        for (auto& work : entry.second)
            if (int code = work()) sticky = code;
    std::lock_guard<std::mutex> hold(lock);
    if (!allocations.erase(pointer)) return result(1);
    std::free(reinterpret_cast<void*>(pointer));
    return result(0);
}
CUresult CUDAAPI cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemHostAlloc")) return result(code);
    return result((*memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256)) ? 0 : 2);
}
// Which device an address is on: 0, the only one with memory, or unknown.
CUresult CUDAAPI cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
    std::lock_guard<std::mutex> hold(lock);
    if (static_cast<int>(attribute) != 9 || !inside(pointer, 1)) return result(1);
    return *static_cast<int*>(value) = 0, result(0);
}
CUresult CUDAAPI cuMemFreeHost(void* memory) { return std::free(memory), result(0); }

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr target, const void* source, size_t bytes, CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemcpyHtoDAsync")) return result(code);
    if (!inside(target, bytes)) return result(1);
    return result(queue(stream, [=] { return copy(reinterpret_cast<void*>(target), source, bytes); }));
}
CUresult CUDAAPI cuMemcpyDtoHAsync(void* target, CUdeviceptr source, size_t bytes, CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemcpyDtoHAsync")) return result(code);
    if (!inside(source, bytes)) return result(1);
    return result(queue(stream, [=] { return copy(target, reinterpret_cast<const void*>(source), bytes); }));
}
CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemcpyDtoDAsync")) return result(code);
    if (!inside(target, bytes) || !inside(source, bytes)) return result(1);
    return result(queue(stream, [=] { return copy(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(source), bytes); }));
}
CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuMemsetD8Async")) return result(code);
    if (!inside(target, bytes)) return result(1);
    return result(queue(stream, [=] { return std::memset(reinterpret_cast<void*>(target), value, bytes), 0; }));
}

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuStreamCreate")) return result(code);
    *stream = static_cast<CUstream>(std::malloc(16));
    return result(0);
}
CUresult CUDAAPI cuStreamDestroy(CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuStreamDestroy")) return result(code);
    queues.erase(stream);
    std::free(stream);
    return result(0);
}
CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    std::vector<Work> work;
    {
        std::lock_guard<std::mutex> hold(lock);
        if (int code = ready("cuStreamSynchronize")) return result(code);
        work.swap(queues[stream]);
    }
    for (auto& item : work)  // without the lock: a launch calls Python back, and other threads go on meanwhile
        if (int code = item()) return sticky = code, result(code);
    return result(0);
}

// An event is the stream that it was last recorded on: waiting for it runs everything queued there.
CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuEventCreate")) return result(code);
    *event = reinterpret_cast<CUevent>(new CUstream{});
    return result(0);
}
CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuEventRecord")) return result(code);
    *reinterpret_cast<CUstream*>(event) = stream;
    return result(0);
}
CUresult CUDAAPI cuEventDestroy(CUevent event) { return delete reinterpret_cast<CUstream*>(event), result(0); }
CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuStreamWaitEvent")) return result(code);
    const CUstream other = *reinterpret_cast<CUstream*>(event);
    return result(queue(stream, [=] { return static_cast<int>(cuStreamSynchronize(other)); }));
}

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuModuleLoadData")) return result(code);
    *module = reinterpret_cast<CUmodule>(1);
    return result(std::strncmp(static_cast<const char*>(image), "bad", 3) == 0 ? 200 : 0);
}
CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuModuleGetFunction")) return result(code);
    if (std::strncmp(name, "fusedx_", 7) != 0) return result(500);
    *function = reinterpret_cast<CUfunction>(new Function{name});
    return result(0);
}
CUresult CUDAAPI cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuFuncSetAttribute")) return result(code);
    if (static_cast<int>(attribute) != 8 || value > knob("shared_per_block", 227 << 10)) return result(1);
    reinterpret_cast<Function*>(function)->dynamic_shared = value;
    return result(0);
}
CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                unsigned shared, CUstream stream, void** arguments, void**) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuLaunchKernel")) return result(code);
    const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    return result(launch(f, grid, block, shared, stream, arguments, 0));
}
CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                           unsigned shared, CUstream stream, void** arguments) {
    std::lock_guard<std::mutex> hold(lock);
    if (int code = ready("cuLaunchCooperativeKernel")) return result(code);
    const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    return result(launch(f, grid, block, shared, stream, arguments, 1));
}

}  // extern "C"

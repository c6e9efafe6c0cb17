// The layer and the chain as C++ callers use them: every instruction set and weight format, many threads, cancelled, short of threads.
// Run under the sanitizers.  With an argument it prints a digest of the results by weight format, which is the same on every machine.
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "check.hpp"
#include "conditional_layer/conditional_layer.hpp"
#include "conditional_layer/weights.hpp"
#include "engine/chain.hpp"
#include "engine/sampler_choice.hpp"
#include "runtime/memory.hpp"
#include "runtime/thread_pool.hpp"
#include "step/step.hpp"

using namespace fusedx;

namespace {

constexpr const char* kFormats[] = {"fp32", "bf16", "fp16", "int8", "int4"};
constexpr std::array kAll = {WeightFormat::fp32, WeightFormat::bf16, WeightFormat::fp16, WeightFormat::int8, WeightFormat::int4};

// Whole numbers below 2^16 by a linear congruence: the same everywhere.
struct Numbers {
    uint32_t state = 1;
    uint32_t next() { return (state = state * 1664525u + 1013904223u) >> 16; }
    float unit() { return (static_cast<int>(next()) - 32768) / 32768.0f; }  // [-1, 1)
    std::vector<float> floats(int64_t count, float scale = 1) {
        std::vector<float> x(count);
        for (float& v : x) v = unit() * scale;
        return x;
    }
    std::vector<double> doubles(int64_t count) {
        std::vector<double> x(count);
        for (double& v : x) v = unit();
        return x;
    }
};

int64_t up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

// A matrix [n, k] of small random weights in any format.
struct Matrix {
    std::vector<float> plain, scale;
    std::vector<uint16_t> halves, small_scale;
    std::vector<uint8_t> bytes;
    PackedView view{};

    Matrix(WeightFormat format, int64_t n, int64_t k, Numbers& numbers) {
        view = {format, n, k, nullptr, nullptr, k};
        switch (format) {
            case WeightFormat::fp32:
                plain = numbers.floats(n * k, 0.05f);
                view.panels = plain.data();
                break;
            case WeightFormat::bf16:
            case WeightFormat::fp16:
                halves.resize(up(n, 32) * k * 32);
                for (auto& v : halves) v = (format == WeightFormat::bf16 ? 0x3c00 : 0x2400) | (numbers.next() & 0x81ff);
                view.panels = halves.data();
                break;
            case WeightFormat::int8:
                bytes.resize(up(n, 64) * up(k, 4) * 256);
                for (auto& v : bytes) v = static_cast<uint8_t>(static_cast<int>(numbers.next() % 255) - 127);
                scale = numbers.floats(n, 1e-3f);
                view.panels = bytes.data(), view.scale = scale.data();
                break;
            case WeightFormat::int4:
                bytes.resize(up(n, 64) * up(k, 64) * 2048);
                for (auto& v : bytes) v = static_cast<uint8_t>(numbers.next());
                small_scale.resize(up(n, 64) * up(k, 64) * 64);
                for (auto& v : small_scale) v = 0x1c00 | (numbers.next() & 0x83ff);
                view.panels = bytes.data(), view.scale = small_scale.data();
                break;
        }
    }
};

struct Model {
    std::vector<float> weight_y, weight_p, weight4, bias4, scale[3], shift[3];
    Matrix second, third;
    std::vector<double> coefficients;
    DenoiserView view{};

    Model(WeightFormat format, int64_t f, int64_t c, int64_t steps, Family family, Numbers n = {})
        : weight_y(n.floats(f * c)), weight_p(n.floats(f * c)), weight4(n.floats(c * f, 0.01f)), bias4(n.floats(c)), second(format, f, f, n),
          third(format, f, f, n), coefficients(n.doubles(steps * 6)) {
        for (double& k : coefficients) k = k / 4 + 0.5;  // not a schedule, but numbers that neither vanish nor explode
        view = {f, c, steps, weight_y.data(), weight_p.data(), second.view, third.view, weight4.data(), bias4.data(), {}, {},
                coefficients.data(), family, false};
        for (int k = 0; k < 3; ++k) {
            scale[k] = n.floats(steps * f), shift[k] = n.floats(steps * f);
            view.scale[k] = scale[k].data(), view.shift[k] = shift[k].data();
        }
    }
};

struct Case {
    std::vector<double> prior, far, noise;
    std::vector<float> feature;
    EncodedView encoded{};
    int64_t draws, images, classes;

    Case(const Model& model, int64_t images, int64_t draws, Numbers n = {}) : draws(draws), images(images), classes(model.view.classes) {
        prior = n.doubles(images * classes), far = n.doubles(images * classes);
        noise = n.doubles((model.view.family == Family::ddim ? 2 : model.view.steps) * draws * images * classes);
        feature = n.floats(images * model.view.features);
        encoded = {images, prior.data(), prior.data(), far.data(), feature.data()};
    }
    std::vector<double> run(const Chain& chain, const RunOptions& options = {}) const {
        std::vector<double> scores(draws * images * classes, -1.0);
        chain.run(encoded, noise.data(), draws, scores.data(), options);
        return scores;
    }
};

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

// What a run looks at: `cancelled` is set when it polls for the `at`-th time.
struct Watch {
    int at, polls = 0;
    std::atomic<bool> cancelled{true};

    static void poll(void* context) {
        Watch& watch = *static_cast<Watch*>(context);
        if (++watch.polls == watch.at) watch.cancelled = true;
    }
    RunOptions options() {
        RunOptions made;
        made.cancelled = &cancelled, made.poll = poll, made.poll_context = this;
        return made;
    }
};

}  // namespace

TEST(every_format_and_instruction_set_gives_the_same_bits) {
    for (WeightFormat format : kAll)
        for (Family family : {Family::posterior, Family::ddim})
            for (int64_t features : {1, 33, 65, 130}) {
                const Model model(format, features, 5, 3, family);
                const Case one(model, 3, 7);
                std::vector<double> first;
                for (Isa isa : available_isas()) {
                    const std::vector<double> scores = one.run(Chain(model.view, name(isa)));
                    if (first.empty()) first = scores;
                    CHECK(same_bits(scores, first));
                }
            }
}

TEST(many_threads_share_one_chain) {
    const Model model(WeightFormat::fp32, 700, 5, 3, Family::posterior);
    const Chain chain(model.view);
    const Case small(model, 1, 1), large(model, 3, 40);
    const std::vector<double> expected[] = {small.run(chain), large.run(chain)};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i)
        threads.emplace_back([&, i] {
            for (int repeat = 0; repeat < 6; ++repeat) {
                std::unique_ptr<ThreadBudget> budget;
                if (i % 3 == 0) budget = std::make_unique<ThreadBudget>(1 + repeat % 2);
                wrong += !same_bits((i % 2 ? small : large).run(chain), expected[i % 2 ? 0 : 1]);
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST(a_budget_is_kept_and_ends) {
    std::vector<int> shares;
    const auto count = [] {
        std::atomic<int> parts{0};
        parallel_for(64, int64_t{1} << 40, [&](int64_t, int64_t) { ++parts; });
        return parts.load();
    };
    const int all = count();
    {
        const ThreadBudget two(2);
        CHECK(count() == std::min(2, all));
        {
            const ThreadBudget one(1), nine(9);
            CHECK(count() == 1);
        }
        CHECK(count() == std::min(2, all));
    }
    CHECK(count() == all);
    REFUSED(ThreadBudget(0), "expected at least 1");
}

TEST(a_cancelled_run_stops_and_the_chain_lives_on) {
    const Model model(WeightFormat::fp32, 300, 5, 50, Family::posterior);
    const Chain chain(model.view);
    const Case one(model, 2, 4);
    const std::vector<double> expected = one.run(chain);
    Watch watch{7};
    RunOptions options = watch.options();
    REFUSED(one.run(chain, options), "cancelled before step 1 of 50");
    watch.cancelled = false;
    REFUSED(one.run(chain, options), "cancelled before step 8 of 50");
    try {
        one.run(chain, options);
    } catch (const Error& error) {
        CHECK(error.status == Status::cancelled);
    }
    CHECK(same_bits(one.run(chain), expected));

    watch.cancelled = false;
    std::thread other([&] { watch.cancelled = true; });  // from another thread, at any moment
    options.poll = nullptr;
    try {
        while (true) one.run(chain, options);
    } catch (const Error& error) {
        CHECK(error.status == Status::cancelled);
    }
    other.join();
}

TEST(what_poll_throws_comes_through) {
    const Model model(WeightFormat::fp32, 64, 2, 5, Family::posterior);
    const Chain chain(model.view);
    RunOptions options;
    options.poll = [](void*) { throw Error(Status::internal, "as asked"); };
    REFUSED(Case(model, 1, 1).run(chain, options), "as asked");
}

TEST(states_are_every_state_or_the_two_ends) {
    for (Family family : {Family::posterior, Family::ddim}) {
        const Model model(WeightFormat::bf16, 40, 3, 4, family);
        const Chain chain(model.view);
        const Case one(model, 5, 60);  // more rows than go through a step together
        const int64_t wide = 5 * 60 * 3 * (family == Family::ddim ? kMapPoints : 1);
        std::vector<double> all(wide * 5), ends(wide * 2);
        RunOptions options;
        options.states = all.data();
        const std::vector<double> scores = one.run(chain, options);
        options.states = ends.data(), options.ends_only = true;
        CHECK(same_bits(one.run(chain, options), scores));
        CHECK(std::memcmp(ends.data(), all.data(), wide * 8) == 0 && std::memcmp(&ends[wide], &all[4 * wide], wide * 8) == 0);
        if (family == Family::posterior) CHECK(same_bits({ends.begin() + wide, ends.end()}, scores));
    }
}

TEST(the_grid_rounds_to_even_at_ties) {
    const double u = 1.0 / (1 << 18);
    const double expected[][2] = {{0.0, 0.0}, {-0.0, 0.0}, {u, u}, {-u, -u}, {u / 2, 0.0}, {3 * u / 2, 2 * u}, {-3 * u / 2, -2 * u},
                                  {1.0 + u / 2, 1.0}, {1.0 + u * 0.501, 1.0 + u}, {1e-300, 0.0}, {1e18, 1e18}, {INFINITY, INFINITY}};
    for (const auto& [y, grid] : expected) CHECK(on_grid(y, 18) == grid);
    CHECK(!std::signbit(on_grid(-0.0, 18)) && !std::signbit(on_grid(-u / 4, 18)));  // one zero: states are compared bit by bit
    CHECK(std::isnan(on_grid(NAN, 18)) && on_grid(1.0 / 2048, 10) == 0.0 && on_grid(3.0 / 2048, 10) == 2.0 / 1024);
    CHECK(state_bits(WeightFormat::fp32) == 18 && state_bits(WeightFormat::fp16) == 18 && state_bits(WeightFormat::int4) == 10);
}

TEST(many_steps_at_a_time_give_the_sequential_bits) {
    for (WeightFormat format : kAll)
        for (Family family : {Family::posterior, Family::ddim}) {
            const Model model(format, 70, 5, family == Family::ddim ? 10 : 40, family);
            const Chain chain(model.view);
            for (const auto& [images, draws] : {std::pair<int64_t, int64_t>{1, 1}, {3, 2}, {5, 60}}) {
                const Case one(model, images, draws);
                const int64_t steps = model.view.steps, wide = images * draws * 5 * (family == Family::ddim ? kMapPoints : 1);
                std::vector<double> expected((steps + 1) * wide), states((steps + 1) * wide);
                RunOptions options;
                options.states = expected.data();
                const std::vector<double> scores = one.run(chain, options);
                for (int64_t rows : {2, 5, 16, 64, 1000}) {
                    for (double least_gain : {0.0, 1e9}) {
                        std::vector<SampleReport> report(images * draws, {-1, -1, -1});
                        std::fill(states.begin(), states.end(), NAN);
                        options.states = states.data(), options.report = report.data();
                        options.rows = rows, options.least_gain = least_gain;
                        CHECK(same_bits(one.run(chain, options), scores) && same_bits(states, expected));
                        for (const SampleReport& r : report)
                            CHECK(r.sweeps >= 1 && r.sweeps <= steps && r.evaluations >= r.sweeps && r.sequential_steps >= 0);
                    }
                }
            }
        }
}

TEST(weights_that_give_no_numbers_end_alike) {
    for (float poison : {INFINITY, NAN, 1e30f}) {
        Model model(WeightFormat::fp32, 70, 3, 30, Family::posterior);
        for (int64_t f = 0; f < 70; ++f) model.shift[1][17 * 70 + f] = poison;
        model.weight4[5] = poison;
        const Chain chain(model.view);
        const Case one(model, 1, 2);
        RunOptions options;
        options.rows = 24;
        CHECK(same_bits(one.run(chain, options), one.run(chain)));
    }
}

TEST(a_cancelled_sweep_stops_and_the_chain_lives_on) {
    const Model model(WeightFormat::fp32, 300, 5, 50, Family::posterior);
    const Chain chain(model.view);
    const Case one(model, 1, 2);
    const std::vector<double> expected = one.run(chain);
    Watch watch{4};
    RunOptions options = watch.options();
    options.rows = 16;
    REFUSED(one.run(chain, options), "cancelled before step 1 of 50");
    watch.cancelled = false;
    REFUSED(one.run(chain, options), "cancelled before step ");
    CHECK(watch.polls == 4);
    options.poll = [](void*) { throw Error(Status::internal, "as asked"); }, watch.cancelled = false;
    REFUSED(one.run(chain, options), "as asked");
    options.poll = nullptr;
    CHECK(same_bits(one.run(chain, options), expected));
}

TEST(the_choice_of_a_sampler) {
    const SamplerWish any{}, sequential{SamplerKind::sequential, 0}, parallel{SamplerKind::parallel, 0}, twenty{SamplerKind::parallel, 20};
    const auto rows = [](const SamplerWish& wish, WeightFormat format, Isa isa, int64_t steps, int64_t chains) {
        return choose_sampler(wish, format, isa, steps, chains).rows;
    };
    for (WeightFormat format : kAll) {
        const int64_t alone = rows(any, format, Isa::avx512vnni, 250, 1);
        CHECK(alone >= 8 && alone <= 32);                            // one image: weights are read once for many steps
        CHECK(rows(any, format, Isa::avx512vnni, 250, 64) == 0);     // many: they share each read already
        CHECK(rows(any, format, Isa::baseline, 250, 1) == 0);        // arithmetic is the limit
        CHECK(rows(any, format, Isa::avx512vnni, 1, 1) == 0 && rows(sequential, format, Isa::avx512vnni, 250, 1) == 0);
        CHECK(rows(parallel, format, Isa::baseline, 250, 1) > 1 && rows(parallel, format, Isa::baseline, 250, 300) == 600);
        CHECK(rows(twenty, format, Isa::avx2, 250, 1) == 20 && rows(any, format, Isa::avx512vnni, 250, 0) == 0);
        CHECK(choose_sampler(any, format, Isa::avx512vnni, 250, 1).least_gain >= 1);  // below which it is not worth its rows
        CHECK(choose_sampler(parallel, format, Isa::avx2, 250, 1).least_gain == 0);
    }
}

TEST(memory_is_aligned_zero_and_refused_when_there_is_none) {
    for (size_t bytes : {size_t{1}, size_t{100}, size_t{4096}, (size_t{2} << 20) - 1, size_t{2} << 20, (size_t{5} << 20) + 3}) {
        Buffer buffer(bytes), moved(std::move(buffer));
        CHECK(buffer.bytes() == 0 && buffer.as<char>() == nullptr && moved.bytes() == bytes);
        CHECK(reinterpret_cast<uintptr_t>(moved.as<char>()) % (bytes < size_t{2} << 20 ? 64 : size_t{2} << 20) == 0);
        for (size_t i = 0; i < bytes; i += 511) CHECK(moved.as<char>()[i] == 0);
        std::memset(moved.as<char>(), 1, bytes);
        buffer = std::move(moved);
        CHECK(buffer.as<char>()[bytes - 1] == 1);
    }
    CHECK(Buffer(0).as<char>() == nullptr);
    REFUSED(Buffer(SIZE_MAX), "out of memory");
    REFUSED(Buffer(size_t{1} << 60), "out of memory");
}

TEST(an_unknown_instruction_set_lists_the_known) { REFUSED(choose_isa("sse9"), "isa=sse9 is not available on this machine; available: "); }

// FNV-1a of the scores of one chain a weight format.
static void print_digests() {
    for (WeightFormat format : kAll)
        for (Family family : {Family::posterior, Family::ddim})
            for (Isa isa : available_isas()) {
                const Model model(format, 200, 7, 6, family);
                const std::vector<double> scores = Case(model, 5, 9).run(Chain(model.view, name(isa)));
                uint64_t digest = 14695981039346656037ull;
                const auto* bytes = reinterpret_cast<const unsigned char*>(scores.data());
                for (size_t i = 0; i < scores.size() * sizeof(double); ++i) digest = (digest ^ bytes[i]) * 1099511628211ull;
                std::printf("%s %s %016llx %s\n", kFormats[static_cast<int>(format)], family == Family::ddim ? "ddim" : "posterior",
                            static_cast<unsigned long long>(digest), name(isa));
            }
}

int main(int argc, char**) {
    if (argc > 1) return print_digests(), 0;
    using namespace fusedx::test;
    for (const auto& one : cases()) {
        const int before = failures;
        one.body();
        std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", one.name);
    }
    std::printf("%zu tests, %d failures\n", cases().size(), failures);
    return failures != 0;
}

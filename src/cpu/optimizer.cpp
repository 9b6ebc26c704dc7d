// Adafactor and AdamW on the CPU.
//
// AdamW is one pass over equal pieces of all tensors. Adafactor needs sums over a whole tensor before any of it may change: the squares of gradient and
// parameter, then the squares of the update, which depend on all of the first sums when the state is factored. So it reads a gradient twice (unfactored)
// or three times (factored). A tensor that fits in a core's share of the cache is worked on by one thread from beginning to end, so that only the first
// reading goes to memory; larger ones are worked on one after the other by all threads. Every tensor is cut into blocks whose length depends on its shape alone
// and whose sums are added in order: the bits depend neither on the number of threads nor on the other tensors. Of tensors that ranks share, the sums of all
// parts meet in two exchanges, of squares and of row and column sums before the update, of its squares after.
#include "ops/optimizer.hpp"

#include "core/parallel.hpp"

#include <cmath>
#include <optional>

namespace flanmoe::cpu {

namespace {

constexpr int64_t block_elements = int64_t{1} << 14;
constexpr int64_t elements_for_all_threads = int64_t{1} << 20;  // from here on all threads work on one tensor

// The inner loops: plain functions of plain pointers, which is what the compiler turns into vector code.

/// Sum in double of short sums in T: part(first, count) over [0, n).
template <class Part>
double sum_of_parts(int64_t n, Part&& part) {
    constexpr int64_t length = 1024;
    double sum = 0;
    for (int64_t first = 0; first < n; first += length) sum += static_cast<double>(part(first, std::min(length, n - first)));
    return sum;
}

template <class T>
T squares(const T* x, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    return sum;
}

/// Sum of (scale g)^2, also added to by_col one by one.
template <class T>
T squares_by_column(const T* __restrict g, T scale, T* __restrict by_col, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const T q = (scale * g[i]) * (scale * g[i]);
        by_col[i] += q;
        sum += q;
    }
    return sum;
}

/// Sum of (scale g factor)^2.
template <class T>
T update_squares(const T* __restrict g, T scale, const T* __restrict factor, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const T u = scale * g[i] * factor[i];
        sum += u * u;
    }
    return sum;
}

/// v = decay v + fresh ((scale g)^2 + epsilon); sum of the squares of scale g / sqrt(v).
template <class T>
T average_squares(const T* __restrict g, T scale, T decay, T fresh, T epsilon, T* __restrict v, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const T q = (scale * g[i]) * (scale * g[i]);
        v[i] = decay * v[i] + fresh * (q + epsilon);
        sum += q / v[i];
    }
    return sum;
}

/// parameter -= scale g factor.
template <class T>
void subtract_scaled(T* __restrict parameter, const T* __restrict g, T scale, const T* __restrict factor, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) parameter[i] -= scale * g[i] * factor[i];
}

/// parameter -= scale g / sqrt(v).
template <class T>
void subtract_normalized(T* __restrict parameter, const T* __restrict g, T scale, const T* __restrict v, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) parameter[i] -= scale * g[i] / std::sqrt(v[i]);
}

/// One tensor's update; the numbers that the next pass needs stay here.
template <class T>
struct AdafactorUpdate {
    const ops::AdafactorSettings& settings;
    T *parameter, *v, *row_state, *col_state;  // row_state: one entry a row of the matrix, whether T5X calls it v_row or v_col
    const T* gradient;
    T scale;  // of the gradient
    int64_t rows, cols, block_rows;
    int64_t whole_rows, whole_cols;  // of all ranks that share the tensor
    int shared;
    bool row_is_v_row;
    Tensor row_factor, col_factor, col_partial;  // temporaries; col_partial: a row of sums for each block

    AdafactorUpdate(Context& context, const ops::AdafactorTensor& tensor, const ops::AdafactorSettings& settings) : settings(settings) {
        const int64_t elements = tensor.parameter.elements();
        parameter = tensor.parameter.as<T>(), gradient = tensor.gradient.as<T>(), scale = static_cast<T>(settings.gradient_scale);
        v = tensor.v ? tensor.v.as<T>() : nullptr;
        rows = 1, cols = elements, block_rows = 1, row_is_v_row = false, row_state = col_state = nullptr;
        shared = tensor.shared;
        whole_rows = 1, whole_cols = shared < 0 ? elements : elements / tensor.parameter.shape[shared] * tensor.whole;
        if (v) return;
        rows = tensor.parameter.shape[0], cols = tensor.parameter.shape[1];
        whole_rows = shared == 0 ? tensor.whole : rows, whole_cols = shared == 1 ? tensor.whole : cols;
        block_rows = std::max<int64_t>(1, block_elements / cols);
        row_is_v_row = ops::rows_are_smaller(tensor);
        row_state = (row_is_v_row ? tensor.v_row : tensor.v_col).as<T>();
        col_state = (row_is_v_row ? tensor.v_col : tensor.v_row).as<T>();
        row_factor = context.allocate(dtype_of<T>, {rows}), col_factor = context.allocate(dtype_of<T>, {cols});
        col_partial = context.allocate(dtype_of<T>, {(rows + block_rows - 1) / block_rows, cols});
    }

    void run() { v ? run_unfactored() : run_factored(); }

    // A shared tensor, in three parts: sums of both exchanges are added over the ranks between them.

    /// Numbers of the first exchange: squares of the parameter; factored: the sum of the state along the shared dimension, sums of squares along the other.
    int64_t first_sums() const { return v ? 1 : 2 + (shared == 0 ? cols : rows); }
    /// Reads the gradient, and brings the state along the shared dimension up to date.
    void gather_sums(double* sums) {
        if (v) {
            const Squares squares = average();
            sums[0] = squares.parameter, own_updates = squares.update;
            return;
        }
        std::vector<double> by_row(static_cast<size_t>(rows));
        sums[0] = gradient_statistics([&](int64_t r, double sum) { by_row[static_cast<size_t>(r)] = sum; });
        const std::vector<double> by_col = column_sums();
        const bool by_rows = shared == 0;
        T* const state = by_rows ? row_state : col_state;
        const std::vector<double>&own = by_rows ? by_row : by_col, &other = by_rows ? by_col : by_row;
        sums[1] = 0;
        for (size_t i = 0; i < own.size(); ++i) {
            state[i] = averaged(state[i], own[i] / static_cast<double>(by_rows ? cols : rows));
            sums[1] += static_cast<double>(state[i]);
        }
        std::copy(other.begin(), other.end(), sums + 2);
    }
    /// From the sums over all ranks: the state along the other dimension, the factors; this rank's squares of the update.
    double update_squares_of(const double* sums) {
        if (v) return own_updates;
        T* const other = shared == 0 ? col_state : row_state;
        const int64_t count = shared == 0 ? cols : rows, whole = shared == 0 ? whole_rows : whole_cols;
        for (int64_t i = 0; i < count; ++i) other[i] = averaged(other[i], sums[2 + i] / static_cast<double>(whole));
        const bool v_row_is_shared = row_is_v_row == (shared == 0);
        set_factors(v_row_is_shared ? sums[1] / static_cast<double>(whole) : mean_of(other, count));
        return squared_updates();
    }
    void apply(double parameters, double updates) { v ? subtract_unfactored(step_size(parameters, updates)) : subtract_factored(step_size(parameters, updates)); }

private:
    /// What the update is multiplied by: rate, parameter scale and clipping of the update's root mean square.
    T step_size(double parameter_squares, double update_squares) const {
        const double n = static_cast<double>(whole_rows * whole_cols), rms = std::sqrt(update_squares / n);
        const double clip = settings.clipping_threshold > 0 ? std::max(1.0, rms / settings.clipping_threshold) : 1.0;
        const double size = settings.scale_by_parameter ? std::max(std::sqrt(parameter_squares / n), settings.minimum_scale) : 1.0;
        return static_cast<T>(settings.rate * size / clip);
    }

    /// Sum of squares of parameters [begin, end); 0 where nothing depends on it.
    double parameter_squares(int64_t begin, int64_t end) const {
        if (!settings.scale_by_parameter) return 0;
        return sum_of_parts(end - begin, [&](int64_t i, int64_t n) { return squares(parameter + begin + i, n); });
    }

    struct Squares {
        double parameter = 0, update = 0;
        Squares& operator+=(const Squares& other) {
            parameter += other.parameter, update += other.update;
            return *this;
        }
    };

    /// Unfactored: the new state, and the squares.
    Squares average() {
        const T decay = static_cast<T>(settings.decay), fresh = static_cast<T>(1 - settings.decay), epsilon = static_cast<T>(settings.epsilon);
        return ordered_sum<Squares>(cols, block_elements, [&](int64_t begin, int64_t end) {
            const double updates = sum_of_parts(end - begin, [&](int64_t i, int64_t n) {
                return average_squares(gradient + begin + i, scale, decay, fresh, epsilon, v + begin + i, n);
            });
            return Squares{parameter_squares(begin, end), updates};
        });
    }

    void subtract_unfactored(T size) {
        const T step = size * scale;
        parallel_for(cols, block_elements, [&](int64_t begin, int64_t end) {
            subtract_normalized(parameter + begin, gradient + begin, step, v + begin, end - begin);
        });
    }

    void run_unfactored() {
        const Squares sums = average();
        subtract_unfactored(step_size(sums.parameter, sums.update));
    }

    double squared_updates() const {
        const T *row = row_factor.as<T>(), *col = col_factor.as<T>();
        return ordered_sum<double>(rows, block_rows, [&](int64_t begin, int64_t end) {
            double sum = 0;
            for (int64_t r = begin; r < end; ++r)
                sum += sum_of_parts(cols, [&](int64_t c, int64_t n) { return update_squares(gradient + r * cols + c, scale * row[r], col + c, n); });
            return sum;
        });
    }

    void subtract_factored(T size) {
        const T *row = row_factor.as<T>(), *col = col_factor.as<T>(), step = size * scale;
        parallel_for(rows, block_rows, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) subtract_scaled(parameter + r * cols, gradient + r * cols, step * row[r], col, cols);
        });
    }

    void run_factored() {
        const double parameters = gradient_statistics([&](int64_t r, double sum) { row_state[r] = averaged(row_state[r], sum / static_cast<double>(cols)); });
        const std::vector<double> sums = column_sums();
        for (int64_t c = 0; c < cols; ++c) col_state[c] = averaged(col_state[c], sums[static_cast<size_t>(c)] / static_cast<double>(rows));
        set_factors(row_is_v_row ? mean_of(row_state, rows) : mean_of(col_state, cols));
        const double updates = squared_updates();
        subtract_factored(step_size(parameters, updates));
    }

    /// Gives by_row(r, sum) the sum of squares of every row of the gradient, leaves the sums by column and block in col_partial, returns the parameter's sum of
    /// squares.
    template <class ByRow>
    double gradient_statistics(ByRow&& by_row) {
        return ordered_sum<double>(rows, block_rows, [&](int64_t begin, int64_t end) {
            T* by_col = col_partial.as<T>() + begin / block_rows * cols;
            std::fill_n(by_col, cols, T{0});
            for (int64_t r = begin; r < end; ++r)
                by_row(r, sum_of_parts(cols, [&](int64_t c, int64_t n) { return squares_by_column(gradient + r * cols + c, scale, by_col + c, n); }));
            return parameter_squares(begin * cols, end * cols);
        });
    }

    T averaged(T state, double mean_square) const {
        return static_cast<T>(settings.decay * static_cast<double>(state) + (1 - settings.decay) * (mean_square + settings.epsilon));
    }

    std::vector<double> column_sums() const {
        const T* partial = col_partial.as<T>();
        std::vector<double> sums(static_cast<size_t>(cols));
        for (int64_t b = 0; b < col_partial.rows(); ++b)
            for (int64_t c = 0; c < cols; ++c) sums[static_cast<size_t>(c)] += static_cast<double>(partial[b * cols + c]);
        return sums;
    }

    static double mean_of(const T* state, int64_t count) {
        double sum = 0;
        for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(state[i]);
        return sum / static_cast<double>(count);
    }

    /// By which rows and columns of the gradient are multiplied; together sqrt(mean v_row / (v_row v_col)).
    void set_factors(double v_row_mean) {
        const auto factors = [](const T* state, int64_t count, double mean, T* factor) {
            for (int64_t i = 0; i < count; ++i) factor[i] = static_cast<T>(std::sqrt(mean / static_cast<double>(state[i])));
        };
        factors(row_state, rows, row_is_v_row ? v_row_mean : 1.0, row_factor.as<T>());
        factors(col_state, cols, row_is_v_row ? 1.0 : v_row_mean, col_factor.as<T>());
    }

    double own_updates = 0;  // unfactored: squares of this rank's update
};

/// Tensors that ranks share: all of them between two exchanges.
template <class T>
void run_shared(Context& context, std::vector<AdafactorUpdate<T>>& updates, const ops::AdafactorSettings& settings) {
    if (updates.empty()) return;
    int64_t count = 0;
    for (const AdafactorUpdate<T>& update : updates) count += update.first_sums();
    const Tensor sums = context.allocate(DType::f64, {count}), squares = context.allocate(DType::f64, {static_cast<int64_t>(updates.size())});
    double* at = sums.as<double>();
    for (AdafactorUpdate<T>& update : updates) update.gather_sums(at), at += update.first_sums();
    settings.add_parts(sums);
    at = sums.as<double>();
    for (size_t i = 0; i < updates.size(); ++i) squares.as<double>()[i] = updates[i].update_squares_of(at), at += updates[i].first_sums();
    settings.add_parts(squares);
    at = sums.as<double>();
    for (size_t i = 0; i < updates.size(); ++i) updates[i].apply(at[0], squares.as<double>()[i]), at += updates[i].first_sums();
}

template <class T>
void run_adafactor(Context& context, std::span<const ops::AdafactorTensor> tensors, const ops::AdafactorSettings& settings) {
    Arena::Scope scope(context.arena);
    std::vector<AdafactorUpdate<T>> small, large, shared;
    for (const ops::AdafactorTensor& tensor : tensors)
        (tensor.shared >= 0 ? shared : tensor.parameter.elements() < elements_for_all_threads ? small : large).emplace_back(context, tensor, settings);
    // Which thread takes which tensor does not matter for the result; inside, parallel_for sees that it is in a parallel region and stays serial.
#pragma omp parallel for schedule(dynamic, 1) if (small.size() > 1)
    for (size_t i = 0; i < small.size(); ++i) small[i].run();
    for (AdafactorUpdate<T>& update : large) update.run();
    run_shared(context, shared, settings);
}

/// Elements [begin, end) of one tensor.
template <class T>
struct AdamWPiece {
    const ops::AdamWTensor* tensor;
    int64_t begin, end;

    void run(const ops::AdamWSettings& s) const {
        const double t = static_cast<double>(s.step + 1);
        const T beta1 = static_cast<T>(s.beta1), fresh1 = static_cast<T>(1 - s.beta1), beta2 = static_cast<T>(s.beta2), fresh2 = static_cast<T>(1 - s.beta2);
        const T step = static_cast<T>(s.rate / (1 - std::pow(s.beta1, t))), root = static_cast<T>(1 / std::sqrt(1 - std::pow(s.beta2, t)));
        const T keep = static_cast<T>(tensor->decay ? 1 - s.rate * s.weight_decay : 1.0), epsilon = static_cast<T>(s.epsilon);
        const T gradient_scale = static_cast<T>(s.gradient_scale);
        T *__restrict parameter = tensor->parameter.as<T>(), *__restrict m = tensor->m.as<T>(), *__restrict v = tensor->v.as<T>();
        const T* __restrict gradient = tensor->gradient.as<T>();
        for (int64_t i = begin; i < end; ++i) {
            const T g = gradient[i] * gradient_scale;
            m[i] = beta1 * m[i] + fresh1 * g;
            v[i] = beta2 * v[i] + fresh2 * (g * g);
            parameter[i] = keep * parameter[i] - step * m[i] / (std::sqrt(v[i]) * root + epsilon);
        }
    }
};

template <class T>
void run_adamw(std::span<const ops::AdamWTensor> tensors, const ops::AdamWSettings& settings) {
    std::vector<AdamWPiece<T>> pieces;
    for (const ops::AdamWTensor& tensor : tensors)
        for (int64_t begin = 0, n = tensor.parameter.elements(); begin < n; begin += block_elements)
            pieces.push_back({&tensor, begin, std::min(n, begin + block_elements)});
    parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) pieces[static_cast<size_t>(i)].run(settings);
    });
}

/// The settings with clipping done, if the gradients may be applied.
template <class Settings>
std::optional<Settings> clipped(Settings settings) {
    if (settings.squared_norm) settings.gradient_scale = ops::clipped_scale(settings.gradient_scale, std::sqrt(*settings.squared_norm.template as<double>()), settings.clip);
    return std::isnan(settings.gradient_scale) ? std::nullopt : std::optional(settings);
}

}  // namespace

void adafactor(Context& context, std::span<const ops::AdafactorTensor> tensors, const ops::AdafactorSettings& given) {
    const auto settings = clipped(given);
    if (!settings) return;
    if (tensors[0].parameter.dtype == DType::f64) return run_adafactor<double>(context, tensors, *settings);
    run_adafactor<float>(context, tensors, *settings);
}

void adamw(Context&, std::span<const ops::AdamWTensor> tensors, const ops::AdamWSettings& given) {
    const auto settings = clipped(given);
    if (!settings) return;
    if (tensors[0].parameter.dtype == DType::f64) return run_adamw<double>(tensors, *settings);
    run_adamw<float>(tensors, *settings);
}

}  // namespace flanmoe::cpu

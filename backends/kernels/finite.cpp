// What is asked of many gradients before a step: are they finite, how large are they. It comes behind prelude.cpp.

namespace {

// The largest magnitude as an integer; the bits of finite numbers are below those of infinity. Four places are read at a
// time, because one core gets a sixth more out of the memory so.
template <class Bits> bool all_finite(const Bits* x, Index n, Bits infinity) {
  constexpr Bits magnitude = Bits(~Bits(0)) >> 1;
  const Index quarter = n / 4;
  Bits first = 0, second = 0, third = 0, fourth = 0;
  for (Index i = 0; i < quarter; ++i) {
    first = std::max<Bits>(first, x[i] & magnitude);
    second = std::max<Bits>(second, x[i + quarter] & magnitude);
    third = std::max<Bits>(third, x[i + 2 * quarter] & magnitude);
    fourth = std::max<Bits>(fourth, x[i + 3 * quarter] & magnitude);
  }
  for (Index i = 4 * quarter; i < n; ++i) first = std::max<Bits>(first, x[i] & magnitude);
  return std::max(std::max(first, second), std::max(third, fourth)) < infinity;
}

bool all_finite(int kind, const void* x, Index begin, Index n) {
  switch (kind) {
    case 0: return all_finite(static_cast<const std::uint32_t*>(x) + begin, n, std::uint32_t(0x7f800000));
    case 1: return all_finite(static_cast<const std::uint64_t*>(x) + begin, n, std::uint64_t(0x7ff0000000000000));
    case 2: return all_finite(static_cast<const std::uint16_t*>(x) + begin, n, std::uint16_t(0x7f80));
    default: return all_finite(static_cast<const std::uint16_t*>(x) + begin, n, std::uint16_t(0x7c00));
  }
}

inline double plus_square(double sum, double x) { return sum + x * x; }

// A float's square is exact in double, so that one instruction for both changes nothing.
inline double plus_square(double sum, float x) {
#ifdef __FMA__
  return __builtin_fma(double(x), double(x), sum);
#else
  return plus_square(sum, double(x));
#endif
}

// In lanes, so that the order of additions is written out, and at four places at a time, as above.
template <class Stored> double squares(const Stored* x, Index n) {
  constexpr int WIDTH = 16;
  double first[WIDTH] = {}, second[WIDTH] = {}, third[WIDTH] = {}, fourth[WIDTH] = {};
  const Index quarter = n / (4 * WIDTH) * WIDTH;
  for (Index start = 0; start < quarter; start += WIDTH) {
#pragma omp simd
    for (int j = 0; j < WIDTH; ++j) {
      const Stored* place = x + start + j;
      first[j] = plus_square(first[j], load(place[0]));
      second[j] = plus_square(second[j], load(place[quarter]));
      third[j] = plus_square(third[j], load(place[2 * quarter]));
      fourth[j] = plus_square(fourth[j], load(place[3 * quarter]));
    }
  }
  for (Index i = 4 * quarter; i < n; ++i) first[i % WIDTH] = plus_square(first[i % WIDTH], load(x[i]));
  double sum = 0;
  for (int lane = 0; lane < WIDTH; ++lane) sum += (first[lane] + second[lane]) + (third[lane] + fourth[lane]);
  return sum;
}

double squares(int kind, const void* x, Index begin, Index n) {
  switch (kind) {
    case 0: return squares(static_cast<const float*>(x) + begin, n);
    case 1: return squares(static_cast<const double*>(x) + begin, n);
    case 2: return squares(static_cast<const Bfloat16*>(x) + begin, n);
    default: return squares(static_cast<const Float16*>(x) + begin, n);
  }
}

}  // namespace

// The place of the first tensor with a NaN or an infinity, or the number of tensors.
// kinds: 0 float32, 1 float64, 2 bfloat16, 3 float16.
extern "C" Index hessiod_nonfinite(Index tensors, const Index* sizes, const void* const* arrays, const Index* kinds,
                                   Index threads) {
  const std::vector<Task> tasks = pieces(tensors, sizes);
  const Index count = Index(tasks.size());
  Index first = tensors;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1) reduction(min : first)
  for (Index number = 0; number < count; ++number) {
    const Task task = tasks[count - 1 - number];  // backwards: a step begins with what was read last
    if (!all_finite(int(kinds[task.tensor]), arrays[task.tensor], task.begin, task.end - task.begin))
      first = std::min(first, task.tensor);
  }
  return first;
}

// The sum of squares of all entries of all tensors; the same arguments.
extern "C" double hessiod_squares(Index tensors, const Index* sizes, const void* const* arrays, const Index* kinds,
                                  Index threads) {
  const std::vector<Task> tasks = pieces(tensors, sizes);
  const Index count = Index(tasks.size());
  std::vector<double> sums(count);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (Index number = 0; number < count; ++number) {
    const Index place = count - 1 - number;  // backwards: a step begins with what was read last
    const Task task = tasks[place];
    sums[place] = squares(int(kinds[task.tensor]), arrays[task.tensor], task.begin, task.end - task.begin);
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

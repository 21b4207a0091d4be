// Inner products of many pairs of arrays, in doubles; it comes behind prelude.cpp.

namespace {

template <class T> double inner(const T* x, const T* y, Index n) {
  double lanes[LANES] = {};
  const Index whole = n - n % LANES;
  for (Index start = 0; start < whole; start += LANES) {
#pragma omp simd
    for (int j = 0; j < LANES; ++j) lanes[j] += double(x[start + j]) * double(y[start + j]);
  }
  for (Index i = whole; i < n; ++i) lanes[i - whole] += double(x[i]) * double(y[i]);
  double sum = 0;
  for (int j = 0; j < LANES; ++j) sum += lanes[j];
  return sum;
}

}  // namespace

// products[t] = sum of x * y over the entries of tensor t; kinds: 0 float32, 1 float64. It does not depend on threads.
extern "C" void hessiod_inner(Index tensors, const Index* sizes, const void* const* xs, const void* const* ys,
                              const Index* kinds, double* products, Index threads) {
  const std::vector<Task> tasks = pieces(tensors, sizes);
  const Index count = Index(tasks.size());
  std::vector<double> parts(count);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (Index number = 0; number < count; ++number) {
    const Task task = tasks[number];
    const void *x = xs[task.tensor], *y = ys[task.tensor];
    const Index begin = task.begin, n = task.end - begin;
    parts[number] = kinds[task.tensor] == 0
                        ? inner(static_cast<const float*>(x) + begin, static_cast<const float*>(y) + begin, n)
                        : inner(static_cast<const double*>(x) + begin, static_cast<const double*>(y) + begin, n);
  }
  std::fill(products, products + tensors, 0.0);
  for (Index number = 0; number < count; ++number) products[tasks[number].tensor] += parts[number];
}

// Matrix products of the sizes of layers, by rows; it comes behind prelude.cpp. Compiled with products and sums
// contracted: a fused one rounds once.

#include <limits>
#include <memory>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, TALL = 8;
#elif defined(__AVX__)
constexpr int BYTES = 32, TALL = 6;
#else
constexpr int BYTES = 16, TALL = 4;
#endif

template <class T> struct Vector { typedef T Type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias)); };
template <class T> constexpr int ENTRIES = BYTES / sizeof(T);  // of a vector
template <class T> constexpr int WIDE = 2 * ENTRIES<T>;        // columns that are worked out at a time

constexpr Index DEPTH = 256;       // products that are summed in registers; such sums are then added up
constexpr Index WORTH_PACKING = 64;  // rows that a copied piece has to be multiplied by

template <class T> struct Matrix {
  const T* start;
  Index row, column;    // how far apart rows and columns lie
  bool padded = false;  // whether there are WIDE columns to read, whatever their number
};

// found = a b for TALL rows of a and WIDE columns of b; the sums stay in registers.
template <class T>
inline void tile(Index depth, const T* const* a, Index step, const T* b, Index row_b, T* found, Index row) {
  using V = typename Vector<T>::Type;
  V sums[TALL][2] = {};
  for (Index k = 0; k < depth; ++k) {
    const V* columns = (const V*)(b + k * row_b);
#pragma GCC unroll 8
    for (int i = 0; i < TALL; ++i) {
      const V entry = a[i][k * step] - V{};
      sums[i][0] += entry * columns[0];
      sums[i][1] += entry * columns[1];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < TALL; ++i) {
    V* to = (V*)(found + i * row);
    to[0] = sums[i][0], to[1] = sums[i][1];
  }
}

// c = a b, or c += a b, for at most WIDE columns and at most DEPTH rows of b.
template <class T>
void panel(Index rows, Index columns, Index depth, Matrix<T> a, Matrix<T> b, T* c, Index row_c, bool add) {
  T packed[DEPTH * WIDE<T>], found[TALL * WIDE<T>];
  if (!b.padded && (columns < WIDE<T> || rows >= WORTH_PACKING)) {
    for (Index k = 0; k < depth; ++k) {
      T* to = std::copy_n(b.start + k * b.row, columns, packed + k * WIDE<T>);
      std::fill_n(to, WIDE<T> - columns, T(0));
    }
    b = {packed, WIDE<T>, 1};
  }
  for (Index top = 0; top < rows; top += TALL) {
    const Index height = std::min<Index>(TALL, rows - top);
    const T* starts[TALL];
    for (int i = 0; i < TALL; ++i) starts[i] = a.start + (top + std::min<Index>(i, height - 1)) * a.row;
    T* to = c + top * row_c;
    if (!add && height == TALL && columns == WIDE<T>) {
      tile(depth, starts, a.column, b.start, b.row, to, row_c);
      continue;
    }
    tile(depth, starts, a.column, b.start, b.row, found, WIDE<T>);
    for (Index i = 0; i < height; ++i)
      for (Index j = 0; j < columns; ++j)
        to[i * row_c + j] = found[i * WIDE<T> + j] + (add ? to[i * row_c + j] : T(0));
  }
}

// c = a b for at most WIDE columns.
template <class T>
void multiply(Index rows, Index columns, Index depth, Matrix<T> a, Matrix<T> b, T* c, Index row_c) {
  for (Index first = 0; first < depth; first += DEPTH) {
    panel(rows, columns, std::min(DEPTH, depth - first), a, b, c, row_c, first > 0);
    a.start += DEPTH * a.column, b.start += DEPTH * b.row;
  }
}

template <class T> T dot(const T* x, const T* y, Index n) {
  T lanes[2 * LANES] = {};
  const Index whole = n - n % (2 * LANES);
  for (Index start = 0; start < whole; start += 2 * LANES) {
#pragma omp simd
    for (int j = 0; j < 2 * LANES; ++j) lanes[j] += x[start + j] * y[start + j];
  }
  for (Index i = whole; i < n; ++i) lanes[i - whole] += x[i] * y[i];
  for (int half = LANES; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  return lanes[0];
}

// found = a x with a symmetric.
template <class T> void symmetric_times(Index n, const T* a, const T* x, T* __restrict found) {
  std::fill_n(found, n, T(0));
  for (Index k = 0; k < n; ++k)
    for (Index j = 0; j < n; ++j) found[j] += x[k] * a[k * n + j];
}

// The lower triangle becomes that of a symmetric matrix; in squares, as columns are slow to read.
template <class T> void mirror(Index n, T* a) {
  constexpr Index SIDE = 16;
  for (Index top = 0; top < n; top += SIDE)
    for (Index left = 0; left <= top; left += SIDE)
      for (Index i = top; i < std::min(top + SIDE, n); ++i)
        for (Index j = left; j < std::min(left + SIDE, i); ++j) a[i * n + j] = a[j * n + i];
}

// In pieces of DEPTH rows, as the products are.
template <class T> void sums_of_rows(Index rows, Index size, const T* x, T* found) {
  std::vector<T> own(size);
  for (Index first = 0; first < rows; first += DEPTH) {
    std::fill(own.begin(), own.end(), T(0));
    for (Index row = first; row < std::min(first + DEPTH, rows); ++row)
      for (Index j = 0; j < size; ++j) own[j] += x[row * size + j];
    for (Index j = 0; j < size; ++j) found[j] = first > 0 ? found[j] + own[j] : own[j];
  }
}

// How many threads some products are worth: waiting for one another takes as long as a million of them, or far longer
// where other processes are at work too.
inline Index worth(double products, Index threads) {
  constexpr double LEAST = 1 << 23;
  return std::max<Index>(1, std::min<Index>(threads, Index(products / LEAST)));
}

// How many threads share pieces of work out, if not one of them is worth several threads.
inline Index across(double largest, double all, Index threads) {
  return worth(largest, threads) > 1 ? 1 : worth(all, threads);
}

// Half of what a dense product takes.
inline double work_of_moment(Index rows, Index size) { return 0.5 * double(rows) * double(size) * double(size); }

// A second moment. With ones each row has a last entry of 1: the moment's last row and column are the sums of rows.
template <class T> void moment(Index rows, Index size, bool ones, const T* x, T* found, Index threads) {
  const Index width = size + ones;
  threads = worth(work_of_moment(rows, size), threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  for (Index first = 0; first < rows; first += DEPTH) {
    const Index depth = std::min(DEPTH, rows - first);
    const T* part = x + first * size;
#pragma omp for schedule(static, 1) nowait  // each thread has the same columns every time, and waits for nobody
    for (Index left = 0; left < size; left += WIDE<T>) {  // columns from the first row to the diagonal
      const Index columns = std::min<Index>(WIDE<T>, size - left);
      const Matrix<T> left_side = {part, 1, size}, right_side = {part + left, size, 1};
      panel(left + columns, columns, depth, left_side, right_side, found + left, width, first > 0);
    }
  }
  if (ones) sums_of_rows(rows, size, x, found + size * width);
  if (rows == 0) std::fill_n(found, width * width, T(0));
  if (ones) {
    for (Index i = 0; i < size; ++i) found[i * width + size] = found[size * width + i];
    found[width * width - 1] = T(rows);
  }
  mirror(width, found);
}

constexpr Index STEP = 32;  // rows that are eliminated at a time

// A symmetric matrix of at most STEP rows becomes its inverse by Gauss-Jordan steps ("sweeps"); false unless it is
// positive definite, which it is if all pivots are positive.
template <class T> bool swept(Index n, T* a) {
  for (Index k = 0; k < n; ++k) {
    T row[STEP];
    std::copy_n(a + k * STEP, n, row);
    if (!(row[k] > 0)) return false;
    const T pivot = 1 / row[k];
    for (Index i = 0; i < n; ++i) {
      if (i == k) continue;
      const T share = row[i] * pivot;
      for (Index j = 0; j < n; ++j) a[i * STEP + j] -= share * row[j];
      a[i * STEP + k] = share;
    }
    for (Index j = 0; j < n; ++j) a[k * STEP + j] = row[j] * pivot;
    a[k * STEP + k] = -pivot;
  }
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) a[i * STEP + j] = -a[i * STEP + j];
  return true;
}

inline double work_of_step(Index n) { return 0.5 * double(STEP) * double(n) * double(n); }

// The same in blocks, on the upper triangle: of a symmetric matrix no pivots need be looked for (Peters and Wilkinson,
// 1975), and nearly all of the work is products. With P the block's inverse and L its columns,
//   block <- -P,   its columns <- L P,   the others <- others - L P L',   which after all blocks is minus the inverse.
template <class T> bool inverted(Index n, T* a, Index threads) {
  threads = worth(work_of_step(n), threads);
  std::vector<T> right(n * STEP), across(n * STEP);  // - L P by rows, and L' by rows
  T block[STEP * STEP], columns[STEP * STEP];
  for (Index start = 0; start < n; start += STEP) {
    const Index width = std::min(STEP, n - start), end = start + width;
    for (Index k = 0; k < width; ++k) {
      for (Index i = 0; i < start; ++i) across[k * n + i] = a[i * n + start + k];
      std::fill_n(&across[k * n + start], width, T(0));  // the block itself stays out of the update
      std::copy_n(a + (start + k) * n + end, n - end, &across[k * n + end]);
      for (Index j = k; j < width; ++j) block[k * STEP + j] = block[j * STEP + k] = a[(start + k) * n + start + j];
    }
    if (!swept(width, block)) return false;
    for (Index i = 0; i < width * STEP; ++i) columns[i] = -block[i];
    for (Index left = 0; left < width; left += WIDE<T>)
      multiply(n, std::min<Index>(WIDE<T>, width - left), width, Matrix<T>{across.data(), 1, n},
               Matrix<T>{columns + left, STEP, 1}, right.data() + left, STEP);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (Index left = 0; left < n; left += WIDE<T>) {
      const Index wide = std::min<Index>(WIDE<T>, n - left);
      panel(left + wide, wide, width, Matrix<T>{right.data(), STEP, 1}, Matrix<T>{&across[left], n, 1}, a + left, n, true);
    }
    for (Index k = 0; k < width; ++k) {
      for (Index i = 0; i < start; ++i) a[i * n + start + k] = -right[i * STEP + k];
      for (Index i = end; i < n; ++i) a[(start + k) * n + i] = -right[i * STEP + k];
      for (Index j = k; j < width; ++j) a[(start + k) * n + start + j] = -block[k * STEP + j];
    }
  }
  return true;
}

// The inverse of a damped factor, whose rows lie so far apart; NaN where it is not positive definite.
template <class T> void inverse(Index n, const T* factor, Index row, T damping, T* found, Index threads) {
  for (Index i = 0; i < n; ++i) {
    std::copy_n(factor + i * row, n, found + i * n);
    found[i * n + i] += damping;
  }
  if (!inverted(n, found, threads)) {
    std::fill_n(found, n * n, std::numeric_limits<T>::quiet_NaN());
    return;
  }
  for (Index i = 0; i < n; ++i)
    for (Index j = i; j < n; ++j) found[i * n + j] = -found[i * n + j];
  mirror(n, found);
}

struct Layer {
  Index kind, out, in;           // 0 float32, 1 float64; the weight's sizes
  Index block_a, block_g;        // sizes of the blocks of the inverses, the last of which may be smaller
  Index first_a, first_g;        // where they stand among all blocks
  Index first, bias;             // where the weight stands among all gradients, and whether the bias is behind it
};

struct Memory {
  const void* const *grads, *const *blocks;
  void* const* found;
};

// Columns [left, left + columns) of G^-1 W A^-1, and their inner product with the gradient.
template <class T> double weight(const Layer& layer, const Memory& memory, Index left, Index columns, T* right) {
  const Index out = layer.out, in = layer.in, number = left / layer.block_a, start = number * layer.block_a;
  const Index size = std::min(layer.block_a, in + layer.bias - start), own = std::min(size, in - start);
  const T *grad = (const T*)memory.grads[layer.first], *inverse = (const T*)memory.blocks[layer.first_a + number];
  T* found = (T*)memory.found[layer.first] + left;
  inverse += left - start;
  multiply(out, columns, own, Matrix<T>{grad + start, in, 1}, Matrix<T>{inverse, size, 1}, right, WIDE<T>);
  const T* bias = size > own ? (const T*)memory.grads[layer.first + 1] : nullptr;
  if (bias)
    for (Index i = 0; i < out; ++i)
      for (Index j = 0; j < columns; ++j) right[i * WIDE<T> + j] += bias[i] * inverse[own * size + j];
  double product = 0;
  for (Index top = 0, place = layer.first_g; top < out; top += layer.block_g, ++place) {
    const Index height = std::min(layer.block_g, out - top);
    const Matrix<T> block = {(const T*)memory.blocks[place], height, 1}, below = {right + top * WIDE<T>, WIDE<T>, 1, true};
    multiply(height, columns, height, block, below, found + top * in, in);
  }
  double sums[WIDE<T>] = {};
  for (Index i = 0; i < out; ++i)
    for (Index j = 0; j < columns; ++j) sums[j] += double(found[i * in + j]) * double(grad[i * in + left + j]);
  for (Index j = 0; j < columns; ++j) product += sums[j];
  return product;
}

// The same for the bias, the last column.
template <class T> double bias(const Layer& layer, const Memory& memory, T* right) {
  const Index out = layer.out, in = layer.in, number = in / layer.block_a, start = number * layer.block_a;
  const T *grad = (const T*)memory.grads[layer.first] + start, *given = (const T*)memory.grads[layer.first + 1];
  const T* last = (const T*)memory.blocks[layer.first_a + number];
  last += (in - start) * (in - start + 1);  // its last row, as it is symmetric
  T* found = (T*)memory.found[layer.first + 1];
  for (Index i = 0; i < out; ++i) right[i] = dot(grad + i * in, last, in - start) + given[i] * last[in - start];
  double product = 0;
  for (Index top = 0, place = layer.first_g; top < out; top += layer.block_g, ++place) {
    const Index height = std::min(layer.block_g, out - top);
    symmetric_times(height, (const T*)memory.blocks[place], right + top, found + top);
  }
  for (Index i = 0; i < out; ++i) product += double(found[i]) * double(given[i]);
  return product;
}

struct Part { Index layer, left, columns; };  // no columns: the bias

template <class T> double work(const Layer& layer, const Memory& memory, const Part& part) {
  const std::unique_ptr<T[]> right(new T[layer.out * WIDE<T>]);
  return part.columns ? weight(layer, memory, part.left, part.columns, right.get()) : bias(layer, memory, right.get());
}

}  // namespace

// How many bytes of a row are worked on at a time.
extern "C" Index hessiod_vector_bytes() { return BYTES; }

extern "C" void hessiod_moment(Index kind, Index rows, Index size, Index ones, const void* x, void* found,
                               Index threads) {
  if (kind == 0)
    moment(rows, size, ones != 0, static_cast<const float*>(x), static_cast<float*>(found), threads);
  else
    moment(rows, size, ones != 0, static_cast<const double*>(x), static_cast<double*>(found), threads);
}

struct Rows { Index kind, number, size; };

// Many of them without ones: those too small for several threads are shared out.
extern "C" void hessiod_moments(Index count, const Rows* rows, const void* const* x, void* const* found, Index threads) {
  double all = 0, largest = 0;
  for (Index place = 0; place < count; ++place) {
    const double work = work_of_moment(rows[place].number, rows[place].size);
    all += work, largest = std::max(largest, work);
  }
  const Index sharing = across(largest, all, threads), each = sharing > 1 ? 1 : threads;
#pragma omp parallel for schedule(dynamic) num_threads(sharing) if (sharing > 1)
  for (Index place = 0; place < count; ++place)
    hessiod_moment(rows[place].kind, rows[place].number, rows[place].size, 0, x[place], found[place], each);
}

extern "C" void hessiod_inverse(Index kind, Index n, const void* factor, Index row, double damping, void* found,
                                Index threads) {
  if (kind == 0)
    inverse(n, static_cast<const float*>(factor), row, float(damping), static_cast<float*>(found), threads);
  else
    inverse(n, static_cast<const double*>(factor), row, damping, static_cast<double*>(found), threads);
}

struct Factor { Index kind, size, row; };

// Many of them: those too small for several threads are shared out.
extern "C" void hessiod_inverses(Index count, const Factor* factors, const void* const* given, const double* dampings,
                                 void* const* found, Index threads) {
  double all = 0, largest = 0;
  for (Index place = 0; place < count; ++place) {
    const double size = double(factors[place].size);
    all += 0.5 * size * size * size, largest = std::max(largest, work_of_step(factors[place].size));
  }
  const Index sharing = across(largest, all, threads), each = sharing > 1 ? 1 : threads;
#pragma omp parallel for schedule(dynamic) num_threads(sharing) if (sharing > 1)
  for (Index place = 0; place < count; ++place)
    hessiod_inverse(factors[place].kind, factors[place].size, given[place], factors[place].row, dampings[place],
                    found[place], each);
}

// products are <V, grad> of each gradient, all zero before. They do not depend on threads.
extern "C" void hessiod_natural(Index count, const Layer* layers, const void* const* blocks, const void* const* grads,
                                void* const* found, double* products, Index threads) {
  const Memory memory = {grads, blocks, found};
  std::vector<Part> parts;
  for (Index number = 0; number < count; ++number) {
    const Layer& layer = layers[number];
    const Index wide = layer.kind == 0 ? WIDE<float> : WIDE<double>;
    for (Index start = 0; start < layer.in; start += layer.block_a)
      for (Index left = start, end = std::min(start + layer.block_a, layer.in); left < end; left += wide)
        parts.push_back({number, left, std::min(wide, end - left)});
    if (layer.bias) parts.push_back({number, 0, 0});
  }
  const Index all = Index(parts.size());
  double work_in_all = 0;
  for (Index number = 0; number < count; ++number)
    work_in_all += double(layers[number].out) * double(layers[number].in) * double(layers[number].out + layers[number].in);
  threads = worth(work_in_all, threads);
  std::vector<double> sums(all);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (Index place = 0; place < all; ++place) {
    const Part& part = parts[place];
    const Layer& layer = layers[part.layer];
    sums[place] = (layer.kind == 0 ? work<float> : work<double>)(layer, memory, part);
  }
  for (Index place = 0; place < all; ++place)
    products[layers[parts[place].layer].first + !parts[place].columns] += sums[place];
}

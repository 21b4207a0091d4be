// What every generated file begins with: dtypes in memory, and how the work is cut into pieces.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
extern "C" __attribute__((simd("notinbranch"))) double pow(double, double) noexcept;  // glibc has a vector form of it
#endif

namespace {

using Index = std::int64_t;

constexpr Index CHUNK = 16384;     // entries that one partial sum is over: fixed, so that sums depend on nothing else
constexpr Index TASK = 4 * CHUNK;  // entries that a thread takes at a time
constexpr int LANES = 16;          // interleaved partial sums within a chunk
constexpr int ROWS = 8;            // entries of a lane that are worked out before they are added to its sum

enum class Bfloat16 : std::uint16_t {};
enum class Float16 : std::uint16_t {};

template <class To, class From> inline To cast_bits(From from) {
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(Bfloat16 x) { return cast_bits<float>(std::uint32_t(x) << 16); }

inline float load(Float16 x) {
  // The exponent is moved by a product, which also makes denormals normal; infinity and NaN need the largest one.
  const std::uint32_t shifted = (std::uint32_t(x) & 0x7fff) << 13;
  const std::uint32_t scaled = cast_bits<std::uint32_t>(cast_bits<float>(shifted) * 0x1p112f);
  const std::uint32_t magnitude = shifted >= 0x0f800000u ? shifted | 0x7f800000u : scaled;
  return cast_bits<float>(magnitude | (std::uint32_t(x) & 0x8000) << 16);
}

inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }

inline void store(Bfloat16& to, float x) {
  const std::uint32_t bits = cast_bits<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
  to = Bfloat16((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

inline void store(Float16& to, float x) {
  const std::uint32_t bits = cast_bits<std::uint32_t>(x), magnitude = bits & 0x7fffffff;
  // Adding a number whose last digit is float16's last digit rounds to it, to nearest and ties to even: for denormals
  // that is 1/2; for the others it is done on the bits.
  const std::uint32_t denormal = cast_bits<std::uint32_t>(cast_bits<float>(magnitude) + 0.5f) - 0x3f000000;
  const std::uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const std::uint32_t finite = magnitude < 0x38800000 ? denormal : normal;
  const std::uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;  // NaN, infinity and what rounds to it
  to = Float16((magnitude >= 0x477ff000 ? special : finite) | (bits >> 16 & 0x8000));
}

template <class T> inline T larger(T x, T y) { return x > y ? x : y; }
template <class T> inline T smaller(T x, T y) { return x < y ? x : y; }
template <class T> inline T clipped(T x, T low, T high) { return smaller(larger(x, low), high); }

// Asks for what a sweep will read 2 KiB further on: the hardware alone leaves some of the bandwidth unused.
template <class T> inline void fetch(const T* place) { __builtin_prefetch(reinterpret_cast<const char*>(place) + 2048); }

struct Task { Index tensor, begin, end; };

// Pieces of at most TASK entries of all tensors together.
std::vector<Task> pieces(Index tensors, const Index* sizes) {
  std::vector<Task> tasks;
  for (Index tensor = 0; tensor < tensors; ++tensor)
    for (Index begin = 0; begin < sizes[tensor]; begin += TASK)
      tasks.push_back({tensor, begin, std::min(begin + TASK, sizes[tensor])});
  return tasks;
}

// How many of the tensors, the largest first, are too large for one thread: it would still be at work when the others
// have done the rest. An eighth of what a thread has in all is not.
inline Index shared_by_all(Index tensors, const Index* sizes, const Index* order, Index threads) {
  const Index most = std::max(TASK, std::accumulate(sizes, sizes + tensors, Index(0)) / (8 * threads));
  Index found = 0;
  while (found < tensors && sizes[order[found]] > most) ++found;
  return found;
}

}  // namespace

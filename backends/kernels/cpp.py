"""C++ from a program's graph: one function over many tensors, in place, one loop for each pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hessiod.backends.kernels.integers import philox_source
from hessiod.core.trace import Graph, Pass, Program, passes
from hessiod.core.trace.graph import ARRAY, SCALAR, Node

HERE = Path(__file__).parent

STORAGE = {"float32": "float", "float64": "double", "bfloat16": "Bfloat16", "float16": "Float16"}
"""The dtypes that arrays may have in memory. Half-precision ones are calculated with in float32."""

KINDS = {name: number for number, name in enumerate(STORAGE)}
"""Their numbers in functions that read arrays of several dtypes."""

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "abs": "std::fabs({0})",
    "sqrt": "std::sqrt({0})",
    "pow": "T(pow(double({0}), double({1})))",  # in double: float32 results are then rounded once
    "exp": "std::exp({0})",
    "log": "std::log({0})",
    "cos": "std::cos({0})",
    "sin": "std::sin({0})",
    "clip": "clipped<T>({0}, {1}, {2})",
    "maximum": "larger<T>({0}, {1})",
    "minimum": "smaller<T>({0}, {1})",
}
TYPES = {"float": "T", "bool": "bool", "float32": "float", "float64": "double", "int64": "Index"}


def source(programs: Sequence[Program], dtypes: Mapping[str, str]) -> str:
    """A whole file: ``hessiod_run_0`` runs the first program, and so on.

    ``dtypes`` are those of "param", "grad" and "estimate" in memory; every other array has the dtype that is calculated
    with, float64 for float64 parameters and float32 for all others.
    """
    parts = [written("prelude.cpp")]
    parts += [function(number, program, dtypes) for number, program in enumerate(programs)]
    return "\n".join(parts)


def common_source() -> str:
    """The file with what belongs to no rule: looks through many arrays, inner products, Philox."""
    return "\n".join([written("prelude.cpp", "finite.cpp", "inner.cpp"), philox_source()])


def matrices_source() -> str:
    """The file with matrix products of the sizes of layers."""
    return written("prelude.cpp", "matrices.cpp")


def written(*names: str) -> str:
    """Files that stand beside this one, one behind the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def function(number: int, program: Program, dtypes: Mapping[str, str]) -> str:
    """The functions of one program."""
    graph, working = program.graph, "double" if dtypes["param"] == "float64" else "float"
    storage = {name: STORAGE[dtypes[name]] if name in dtypes else working for name in program.operands}
    sweeps = passes(graph)
    loops = [loop(f"pass_{place}", sweep, graph, storage) for place, sweep in enumerate(sweeps)]
    loops += [
        loop(f"sparing_{place}", sweep, graph, storage, dict(sweep.spared))
        for place, sweep in enumerate(sweeps)
        if sweep.spared
    ]
    driver = DRIVER if graph.elementwise else REDUCING_DRIVER
    return driver.format(
        number=number,
        working=working,
        arrays=len(program.operands),
        scalars=len(graph.scalars),
        loops="\n".join(loops),
        singles=sum(len(sweep.sums) + len(sweep.singles) for sweep in sweeps) or 1,
        passes=reducing_passes(sweeps, graph) if not graph.elementwise else "",
        sums=max(len(sweep.sums) for sweep in sweeps),
    )


def loop(name: str, sweep: Pass, graph: Graph, storage: Mapping[str, str], zeros: Collection[int] = ()) -> str:
    """The function of one pass over ``n`` entries from ``begin``; operands in ``zeros`` are not read."""
    written = {array for array, _ in sweep.stores}
    read = {graph.nodes[node].name for node in sweep.loads if node not in zeros}
    pointers = []
    for index, (array, dtype) in enumerate(storage.items()):
        if array in read | written:
            constant = "" if array in written else "const "
            pointers.append(
                f"{constant}{dtype}* __restrict const {array} = ({constant}{dtype}*)arrays[{index}] + begin;"
            )
    entry = [f"const T v{node} = {loaded(graph.nodes[node].name, node in zeros)};" for node in sweep.loads]
    entry += [assignment(node, graph) for node in sweep.body]
    entry += [f"store({array}[i], v{node});" for array, node in sweep.stores]
    fetches = [f"fetch({array} + row);" for array in storage if array in read]
    lines = [*pointers, *numbers(graph)]
    if sweep.sums:
        count = len(sweep.sums)
        entry += [f"terms[{index}][j] = v{graph.nodes[node].inputs[0]};" for index, node in enumerate(sweep.sums)]
        lines += ROWS_LOOP.format(count=count, fetches=indented(fetches, 4), entry=indented(entry, 4)).splitlines()
    else:
        lines += ROW_LOOP.format(fetches=indented(fetches, 2), entry=indented(entry, 4)).splitlines()
    unused = [] if sweep.sums else ["(void)sums;"]
    return PASS.format(name=name, lines=indented([*lines, *unused], 2))


def loaded(array: str, spared: bool) -> str:
    """An operand's entry, or zero for one that is spared."""
    return "0" if spared else f"load({array}[i])"


def numbers(graph: Graph) -> list[str]:
    """Scalars, constants and what earlier passes worked out, as local constants."""
    lines = []
    for place, node in enumerate(graph.nodes):
        if node.op == "scalar":
            lines.append(f"[[maybe_unused]] const T v{place} = scalars[{graph.scalars.index(node.name)}];")
        elif node.op == "constant":
            lines.append(f"[[maybe_unused]] const T v{place} = T({float(node.value).hex()});")
    for index, place in enumerate(single_places(graph)):
        lines.append(f"[[maybe_unused]] const T v{place} = singles[{index}];")
    return lines


def single_places(graph: Graph) -> list[int]:
    """Places of the numbers that are worked out from arrays."""
    return [place for place, node in enumerate(graph.nodes) if node.rank not in (ARRAY, SCALAR)]


def assignment(place: int, graph: Graph) -> str:
    """The line that evaluates a node."""
    node = graph.nodes[place]
    return f"const {TYPES[node.dtype]} v{place} = {expression(node)};"


def expression(node: Node) -> str:
    """A node's value from its inputs'."""
    inputs = [f"v{place}" for place in node.inputs]
    if node.op == "astype":
        return f"{TYPES[node.dtype]}({inputs[0]})"
    return EXPRESSIONS[node.op].format(*inputs)


def reducing_passes(sweeps: Sequence[Pass], graph: Graph) -> str:
    """For each pass: the sweep over chunks, then its sums in the order of the chunks, then the numbers from them."""
    order, lines = single_places(graph), []
    for number, sweep in enumerate(sweeps):
        backwards = str(number > 0).lower()
        lines.append(
            f"sweep({chosen(number, sweep, graph)}, size, arrays, scalars, singles, sums, threads, {backwards});"
        )
        if not sweep.sums:
            continue
        lines += ["{", *[f"  {line}" for line in numbers(graph) if "singles" not in line]]
        known = [
            place for place in order if any(place in earlier.sums + earlier.singles for earlier in sweeps[:number])
        ]
        lines += [f"  [[maybe_unused]] const T v{place} = singles[{order.index(place)}];" for place in known]
        for index, place in enumerate(sweep.sums):
            value = f"total(sums, {index}, size)"
            if graph.nodes[place].op == "mean":
                value = f"T({value}) / T(std::max<Index>(size, 1))"
            lines.append(f"  const T v{place} = T({value});")
        lines += [f"  {assignment(place, graph)}" for place in sweep.singles]
        done = [*sweep.sums, *sweep.singles]
        lines += [f"  singles[{order.index(place)}] = v{place};" for place in done]
        lines.append("}")
    return indented(lines, 2)


def chosen(number: int, sweep: Pass, graph: Graph) -> str:
    """The function of a pass: the one that reads less, where the scalars that allow it are zero."""
    scalars = [f"scalars[{graph.scalars.index(graph.nodes[scalar].name)}] == 0" for _, scalar in sweep.spared]
    return f"{' && '.join(scalars)} ? sparing_{number} : pass_{number}" if scalars else f"pass_{number}"


def indented(lines: Sequence[str], by: int) -> str:
    """Lines behind some spaces."""
    return "\n".join(" " * by + line for part in lines for line in part.split("\n"))


PASS = """\
void {name}(Index begin, Index n, void* const* arrays, const T* scalars, const T* singles, double* sums) {{
  (void)singles;
{lines}
}}
"""

ROW_LOOP = """\
for (Index row = 0; row < n; row += LANES) {{
{fetches}
  const Index end = std::min<Index>(row + LANES, n);
#pragma omp simd
  for (Index i = row; i < end; ++i) {{
{entry}
  }}
}}"""

ROWS_LOOP = """\
double lanes[{count}][LANES] = {{}};
for (Index start = 0; start < n; start += ROWS * LANES) {{
  const Index width = std::min<Index>(ROWS * LANES, n - start);
  T terms[{count}][ROWS * LANES];
  if (width < ROWS * LANES) std::memset(terms, 0, sizeof terms);
  for (Index row = start; row < start + ROWS * LANES; row += LANES) {{
{fetches}
  }}
#pragma omp simd
  for (Index j = 0; j < width; ++j) {{
    const Index i = start + j;
{entry}
  }}
  for (int sum = 0; sum < {count}; ++sum) add_rows(terms[sum], lanes[sum]);
}}
for (int sum = 0; sum < {count}; ++sum) sums[sum] = folded(lanes[sum]);"""

DRIVER = """\
namespace program_{number} {{
using T = {working};

{loops}
}}  // namespace program_{number}

extern "C" void hessiod_run_{number}(Index tensors, const Index* sizes, void* const* arrays, const Index* rows,
                               const double* scalars, Index threads) {{
  using namespace program_{number};
  const std::vector<Task> tasks = pieces(tensors, sizes);
  const Index count = Index(tasks.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (Index number = 0; number < count; ++number) {{
    const Task task = tasks[number];
    T own[{scalars}];
    for (int place = 0; place < {scalars}; ++place) own[place] = T(scalars[rows[task.tensor] * {scalars} + place]);
    pass_0(task.begin, task.end - task.begin, arrays + task.tensor * {arrays}, own, nullptr, nullptr);
  }}
}}
"""

REDUCING_DRIVER = """\
namespace program_{number} {{
using T = {working};

constexpr int SUMS = {sums};

// Several rows at a time, so that the lanes are in registers while they grow. Zeros change no sum.
void add_rows(const T* terms, double* lanes) {{
#pragma omp simd
  for (int lane = 0; lane < LANES; ++lane) {{
    double sum = lanes[lane];
    for (int row = 0; row < ROWS; ++row) sum += double(terms[row * LANES + lane]);
    lanes[lane] = sum;
  }}
}}

double folded(const double* lanes) {{
  double sum = 0;
  for (int lane = 0; lane < LANES; ++lane) sum += lanes[lane];
  return sum;
}}

double total(const std::vector<double>& sums, int index, Index size) {{
  double sum = 0;
  for (Index chunk = 0; chunk * CHUNK < size; ++chunk) sum += sums[chunk * SUMS + index];
  return sum;
}}

{loops}
using Sweep = void (*)(Index, Index, void* const*, const T*, const T*, double*);

// Every other sweep runs backwards, and finds in the cache what the one before has read last.
void sweep(Sweep sweep_chunk, Index size, void* const* arrays, const T* scalars, const T* singles,
           std::vector<double>& sums, Index threads, bool backwards) {{
  const Index chunks = (size + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (Index number = 0; number < chunks; ++number) {{
    const Index chunk = backwards ? chunks - 1 - number : number, begin = chunk * CHUNK;
    sweep_chunk(begin, std::min(CHUNK, size - begin), arrays, scalars, singles, sums.data() + chunk * SUMS);
  }}
}}

void run(Index size, void* const* arrays, const double* given, std::vector<double>& sums, Index threads) {{
  T scalars[{scalars}], singles[{singles}];
  for (int place = 0; place < {scalars}; ++place) scalars[place] = T(given[place]);
  sums.resize(std::max<std::size_t>(sums.size(), SUMS * ((size + CHUNK - 1) / CHUNK)));
{passes}
}}
}}  // namespace program_{number}

// Most tensors are one thread's each, the largest first, so that nobody waits; all threads share each very large one.
extern "C" void hessiod_run_{number}(Index tensors, const Index* sizes, void* const* arrays, const Index* rows,
                               const double* scalars, Index threads) {{
  using namespace program_{number};
  std::vector<Index> order(tensors);
  std::iota(order.begin(), order.end(), Index(0));
  std::stable_sort(order.begin(), order.end(), [sizes](Index a, Index b) {{ return sizes[a] > sizes[b]; }});
  const auto move = [&](Index tensor, std::vector<double>& sums, Index sharing) {{
    run(sizes[tensor], arrays + tensor * {arrays}, scalars + rows[tensor] * {scalars}, sums, sharing);
  }};
  const Index shared = threads > 1 ? shared_by_all(tensors, sizes, order.data(), threads) : 0;
  std::vector<double> sums;
  for (Index place = 0; place < shared; ++place) move(order[place], sums, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {{
    std::vector<double> own;
#pragma omp for schedule(dynamic)
    for (Index place = shared; place < tensors; ++place) move(order[place], own, 1);
  }}
}}
"""
